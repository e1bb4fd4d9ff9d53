"""Sessions in which some parties are the package's and some the reference's: random parameters, drop-outs, complaints.

A *twin* is both at once, fed alike: whatever one of them makes or refuses, the other does, too, byte for byte.
"""

import copy

import numpy as np
import pytest
import secagg
from library import Library
from replay import Reference
from secagg import Refused
from session import Session

import flora_protocols as ours


class Twin:
    """Two parties that must not differ. What is drawn is drawn alike, and a KEM gives both the same."""

    def __init__(self, one, other):
        self.both = one, other

    def step(self, do, *arguments):
        one, other = (self.attempt(party, do, arguments) for party in self.both)
        assert one == other, do
        if isinstance(one, Refused):
            raise one
        return one

    def attempt(self, party, do, arguments):
        try:
            result = party.step(do, *map(copy.copy, arguments))
        except Refused as refused:
            return Alike(None, refused.error, refused.culprit)
        if isinstance(result, dict):
            return {key: list(value) if isinstance(value, tuple) else value for key, value in result.items()}
        return result

    @property
    def session(self):
        return self.both[0].session


class Alike(Refused):
    """Equal to another refusal of the same kind. (The package names no check, but a code.)"""

    def __eq__(self, other):
        return isinstance(other, Alike) and (self.error, self.culprit) == (other.error, other.culprit)

    __hash__ = None


class Source:
    """Randomness that begins again where it is copied."""

    def __init__(self, key):
        self.key, self.drawn = key, 0

    def __call__(self, size):
        self.drawn += 1
        return secagg.keystream(secagg.sha(self.key + bytes((self.drawn,))), bytes(16), size)


class Kem:
    """What was encapsulated for a key is encapsulated for it again, whoever asks this one (or its copy)."""

    def __init__(self):
        self.made = {}

    def __call__(self, key):
        if key not in self.made:
            self.made[key] = secagg.encapsulate(key)
        return self.made[key]


def configuration(rng):
    """Parameters of a session in which some may drop; and how: as a vector has them."""
    n = int(rng.integers(2, 10))
    options = [n - 1, *(k for k in range(2, n - 1, 2))]
    k = int(rng.choice(options))
    holders, malicious = k + (k == n - 1), bool(rng.integers(2))
    least = holders // 2 + 1 if malicious else 2
    t = int(rng.integers(min(max(least, 2), holders), max(least, 2, (holders + least) // 2) + 1))
    most = min(t - 1, 2 * t - holders - 1) if malicious else t - 1
    keys = [rng.bytes(32) for _ in range(n * malicious)]
    return {
        "name": "mixed",
        "identity_keys": [key.hex() for key in keys],
        "floors": {"clients": 2, "threshold": 2, "survivors": 2, "suite": 1},
        "params": {
            "clients": n,
            "neighbours": k,
            "threshold": t,
            "bits": int(rng.integers(8, 33)),
            "dimension": int(rng.integers(1, 40)),
            "profile": "malicious-server" if malicious else "semi-honest",
            "suite": int(rng.integers(1, 3)),
            "slots": int(rng.integers(1, 4)),
            "number": int(rng.integers(2**63)),
            "corrupt": int(rng.integers(0, min(most, 2) + 1)),
            "identities": [ours.identity_public(key).hex() for key in keys],
        },
    }


class Mixed:
    """One session. `party(make)` is a party of it: `make(implementation)` gives one of either."""

    def __init__(self, vector, rng, party, dropping):
        self.params, self.rng, self.dropping = vector["params"], rng, dropping
        self.s = Session(self.params)
        self.clients = {i: party(lambda kind, i=i: kind.client(vector, i)) for i in self.s.everybody}
        self.server = party(lambda kind: kind.server(vector))
        self.ready = set()

    def absent(self, among):
        return {i for i in among if self.rng.random() < self.dropping}

    def trip(self, do, mail, more=lambda i: (), spoiled=()):
        """Everybody in `mail` but the absent answers; what the server tells them then."""
        absent = self.absent(mail)
        for i, message in mail.items():
            if i in absent:
                continue
            try:
                sent = self.clients[i].step(do, *((message,) if message else ()), *more(i))
            except Refused as refused:
                unless_too_few(refused)
                continue
            self.server.step("receive", i, bent(sent) if i in spoiled else sent)
        return self.server.step("close")

    def set_up(self, spoiled):
        mail, salt = dict.fromkeys(self.clients, b""), self.rng.bytes(16)
        mail = self.trip("advertise", mail, lambda i: (Source(salt + bytes((i,))),))
        if self.s.hybrid:
            mail = self.trip("encapsulate", mail, lambda i: (Kem(),))
        self.inboxes = self.trip("share", mail, spoiled=spoiled)

    def round(self, slot):
        s = self.s
        invited = sorted(self.inboxes.keys() - self.absent(self.inboxes))
        session = self.clients[min(self.inboxes)].session
        start, here = s.start(session, slot, slot + 5, bytes(32), invited), {}
        self.server.step("begin", start)
        vectors = {i: [int(x) for x in self.rng.integers(0, 2**s.b, s.d)] for i in invited}
        for i in invited:
            try:
                if i in self.ready:
                    self.clients[i].step("leave")
                else:
                    self.clients[i].step("collect", self.inboxes[i])
                self.ready.add(i)
            except Refused as refused:
                if refused.error != "misuse":  # it has revealed, and is out of the last round already
                    unless_too_few(refused)
                    continue
            here[i] = start
        mail = self.trip("mask", here, lambda i: (vectors[i],))
        if s.malicious:
            mail = self.trip("agree", mail)
        result = self.trip("unmask", mail)
        wanted = [sum(column) % 2**s.b for column in zip(*(vectors[i] for i in result["survivors"]), strict=True)]
        assert result["sum"] == wanted


def unless_too_few(refused):
    """Nobody lies here, so there is no other reason."""
    if refused.error != "too few":
        raise refused


def bent(shares):
    """SHARES in which a bit of the first box is turned, or of what there is instead."""
    frame = shares[:13] + bytes((shares[13] ^ 1,)) + shares[14:-4]
    return frame + secagg.checksum(frame)


def played(rng, party, dropping, spoiled=0):
    """How many rounds of a random session came to a sum, which is the right one, and how many had too few left."""
    vector = configuration(rng)
    mixed = Mixed(vector, rng, party, dropping)
    try:
        mixed.set_up(range(spoiled))
    except Refused as refused:
        unless_too_few(refused)
        return 0, 1
    sums = 0
    for slot in range(vector["params"]["slots"]):
        try:
            mixed.round(slot)
            sums += 1
        except Refused as refused:
            unless_too_few(refused)
    return sums, vector["params"]["slots"] - sums


@pytest.mark.parametrize("spoiled", [0, 1])
def test_both_make_the_same_bytes(spoiled):
    """All parties are twins: every message, outcome and refusal is the same, in sessions of all sorts; in some of them
    the box of one dealer does not open, of which its holder complains."""
    rng = np.random.default_rng(17 + spoiled)

    def twin(make):
        return Twin(make(Library()), make(Reference()))

    sums, failed = np.sum([played(rng, twin, rng.choice([0, 0.05, 0.15]), spoiled) for _ in range(20)], axis=0)
    assert sums > 8
    assert failed > 2


def test_mixed_cohorts_come_to_the_sum():
    """Each party is one or the other, by lot."""
    rng = np.random.default_rng(3)

    def one_or_other(make):
        return make(Library() if rng.integers(2) else Reference())

    assert np.sum([played(rng, one_or_other, 0.05) for _ in range(30)], axis=0)[0] > 15
