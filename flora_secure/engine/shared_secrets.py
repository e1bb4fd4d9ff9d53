"""X25519 in a simulation: what two clients of one process agree on is computed by the first and taken by the second.

X25519(a, b·G) = X25519(b, a·G) (RFC 7748, section 6.1): the messages are the same bytes, for half of the work. No
deployment can do this, for there nobody holds both ends of a pair; so clients do it only where they are told to.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from flora_protocols import keys


class SharedSecrets:
    """The secrets that one end of a pair has computed and the other has not asked for yet.

    Each waits under the public keys of both, in the order of who will take it, and is given once: to the holder of the
    private key that belongs to the one, for the other. `repr` shows none.

    `clock`: CPU seconds. `spared_seconds`: what those who took a secret would have spent on computing it, each the
    mean of all that were computed until then.
    """

    def __init__(self, clock: Callable[[], float] = time.process_time) -> None:
        self._clock = clock
        self._waiting: dict[bytes, bytes] = {}
        self._computed, self._seconds = 0, 0.0
        self.spared_seconds = 0.0

    def __len__(self) -> int:
        return len(self._waiting)

    def exchange(self, private: X25519PrivateKey, publics: Mapping[int, bytes]) -> dict[int, bytes]:
        """Agree with many peers at once, with arguments and errors of `flora_protocols.keys.exchange_all`."""
        own, take = private.public_key().public_bytes_raw(), self._waiting.pop
        taken = {peer: take(own + public, None) for peer, public in publics.items()}
        missing = {peer: publics[peer] for peer, secret in taken.items() if secret is None}
        before = self._clock()
        computed = keys.exchange_all(private, missing)
        self._seconds += self._clock() - before
        self._computed += len(computed)
        if len(computed) < len(publics):
            self.spared_seconds += (len(publics) - len(computed)) * self._seconds / self._computed
        self._waiting.update((publics[peer] + own, secret) for peer, secret in computed.items())
        return {peer: computed[peer] if secret is None else secret for peer, secret in taken.items()}

    def forget(self) -> None:
        """Drop what nobody has taken: after each trip, because the next one has other keys."""
        self._waiting.clear()
