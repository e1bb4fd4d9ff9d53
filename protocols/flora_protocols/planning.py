"""How many neighbours, and which threshold: the smallest Harary graph that keeps its promises (Bell et al. CCS'20).

Of n clients at most A = floor(corrupt * n) collude and D = floor(dropout * n) drop out. The graph's order is drawn at
random, so a client's k neighbours are k draws without replacement, and three things can go wrong:

1. The honest survivors fall apart into two groups, whose sums the server would then learn apart. Two runs of k/2
   neighbouring places must then be bad (corrupt or dropped); there are n (n - k - 1) / 2 pairs of such runs, and k
   given places are all bad with probability C(n - k, A + D - k) / C(n, A + D). Allowed: less than 2^-(sigma + 1) over
   all slots of a session, in each of which others may drop out; so log2 of their number, rounded up, is added to sigma.
2. More than a of somebody's k neighbours are corrupt. Allowed for each of n clients: 2^-(sigma + 1) / n.
3. Fewer than u of somebody's k neighbours survive. Allowed for each of n clients: 2^-eta / n.

Semi-honest: t = max(a + 1, 2). Malicious server: t = floor((a + k) / 2) + 1, the smallest with 2t > k + a, because a
server may tell two halves of the holders two stories and the corrupt ones both. Both need t <= u.

Everything is decided in exact integers. In k + m draws at least as many neighbours are corrupt, and at most m more
survive, than in k; so a graph that misses by g survivors cannot be mended by fewer than g more neighbours (2g where t
grows with k / 2), and the search skips those.
"""

from __future__ import annotations

from fractions import Fraction
from math import comb

from flora_protocols.errors import MisuseError, ParameterError
from flora_protocols.params import MAX_CLIENTS, MAX_SLOTS, Profile
from flora_protocols.ranges import whole


def find_parameters(
    clients: int,
    corrupt: float | Fraction,
    dropout: float | Fraction,
    profile: Profile = Profile.SEMI_HONEST,
    sigma: int = 40,
    eta: int = 30,
    slots: int = 1,
) -> tuple[int, int]:
    """The smallest (neighbours k, threshold t) for `SessionParams`.

    `clients`: n. `corrupt`, `dropout`: fractions in [0, 1). `sigma`: security fails with probability at most
    2^-sigma a session of so many `slots`, whose corrupt clients are the same and whose dropouts are not. `eta`: with at
    most D dropouts a round fails with probability at most 2^-eta. The complete graph, k = n - 1, is the answer where no
    even k below n - 1 is; it keeps its promises with certainty. The number of corrupt holders that t resists,
    `SessionParams.corrupt`, is `corrupt_holders(n, k, corrupt, sigma)`.

    Raises ParameterError if even the complete graph cannot work, MisuseError for wrong types.
    """
    bad, lost = _counts(clients, corrupt, dropout, profile, sigma, eta)
    whole("slots", slots, 1, MAX_SLOTS)
    everybody = _threshold(profile, clients, bad)
    if everybody > clients - lost:
        raise ParameterError(
            f"{bad} corrupt of {clients} clients need threshold {everybody} ({profile.value} profile), but only "
            f"{clients - lost} survive {lost} dropouts; plan for fewer corrupt clients, for fewer dropouts, "
            f"or for {'the semi-honest profile' if profile is Profile.MALICIOUS_SERVER else 'more clients'}"
        )
    k = _connected(clients, bad + lost, sigma + (slots - 1).bit_length())
    while k < clients - 1:
        t = _threshold(profile, k, _corrupt_neighbours(clients, bad, k, sigma))
        missing = t - _surviving_neighbours(clients, clients - lost, k, eta)
        if missing <= 0:
            return k, t
        k += 2 * missing if profile is Profile.MALICIOUS_SERVER else missing + missing % 2
    return clients - 1, everybody


def corrupt_holders(clients: int, neighbours: int, corrupt: float | Fraction, sigma: int = 40) -> int:
    """The largest number of corrupt holders of any client's shares, except with probability 2^-(sigma + 1).

    `neighbours`: k, as `find_parameters` found it. In the complete graph that is every corrupt client.
    """
    bad, _ = _counts(clients, corrupt, 0, Profile.SEMI_HONEST, sigma, 1)
    whole("neighbours", neighbours, 1, clients - 1)
    return bad if neighbours == clients - 1 else _corrupt_neighbours(clients, bad, neighbours, sigma)


def _counts(
    clients: int, corrupt: float | Fraction, dropout: float | Fraction, profile: Profile, sigma: int, eta: int
) -> tuple[int, int]:
    """(A, D). A decimal fraction is taken as it is written: 0.29 of 100 is 29, though the float is a little less."""
    whole("clients", clients, 2, MAX_CLIENTS)
    whole("sigma", sigma, 1, 128)
    whole("eta", eta, 1, 128)
    if not isinstance(profile, Profile):
        raise MisuseError(f"profile must be a Profile, not {profile!r}")
    for name, value in (("corrupt", corrupt), ("dropout", dropout)):
        if isinstance(value, bool) or not isinstance(value, int | float | Fraction):
            raise MisuseError(f"{name} must be a fraction of the clients, not {value!r}")
        if not 0 <= value < 1:  # also refuses NaN
            raise ParameterError(f"{name} is {value}; a fraction of the clients, at least 0 and below 1, is possible")
    bad, lost = (int(Fraction(str(value)) * clients) for value in (corrupt, dropout))
    return bad, lost


def _threshold(profile: Profile, holders: int, corrupt: int) -> int:
    return max((corrupt + holders) // 2 if profile is Profile.MALICIOUS_SERVER else corrupt, 1) + 1


def _connected(clients: int, bad: int, sigma: int) -> int:
    """The smallest even k, at least 2, with condition 1; below n - 1 only if there is one."""
    some, every, k = 1, 1, 0  # C(n - k, bad - k) / C(n, bad) = some / every, built factor by factor
    while k < clients - 1:
        for place in (k, k + 1):
            some, every = some * max(bad - place, 0), every * (clients - place)
        k += 2
        if clients * (clients - k - 1) * some << sigma < every:
            break
    return k


def _corrupt_neighbours(clients: int, bad: int, k: int, sigma: int) -> int:
    """Condition 2: the smallest a with P[Hyp(n, A, k) > a] <= 2^-(sigma + 1) / n."""
    a = min(bad, k)
    ways, total, tail = comb(bad, a) * comb(clients - bad, k - a), comb(clients, k), 0
    while a > 0 and (tail + ways) * clients << (sigma + 1) <= total:
        tail += ways
        ways = ways * (a * (clients - bad - k + a)) // ((bad - a + 1) * (k - a + 1))
        a -= 1
    return a


def _surviving_neighbours(clients: int, alive: int, k: int, eta: int) -> int:
    """Condition 3: the largest u with P[Hyp(n, n - D, k) < u] <= 2^-eta / n."""
    u = max(0, k - (clients - alive))
    ways, total, tail = comb(alive, u) * comb(clients - alive, k - u), comb(clients, k), 0
    while u < min(alive, k) and (tail + ways) * clients << eta <= total:
        tail += ways
        ways = ways * ((alive - u) * (k - u)) // ((u + 1) * (clients - alive - k + u + 1))
        u += 1
    return u
