"""What can be fed to either side, in whichever state, and what must hold then; `decoders` has all of them."""

from __future__ import annotations

import copy
import hashlib
import struct
from contextlib import suppress

import numpy as np
from attacker import body_of, reframed
from cohorts import duplicate

from flora_protocols import (
    Bitmap,
    Profile,
    ProtocolError,
    RoundParams,
    RoundResult,
    SessionParams,
    Suite,
    load_position,
    round_messages,
    setup_messages,
)
from flora_protocols.codec import HEADER, Kind, encode_frame
from flora_protocols.deposits import Deposits
from flora_protocols.member import _HEAD as DUMP_HEAD
from flora_protocols.setup_messages import Advertisement

MOVES = ("encapsulate", "share", "collect", "mask", "agree", "unmask")
_PARAMS = struct.Struct("<BBHIIIIIQ")  # after magic, version and suite


class Target:
    """One decoder in one state. `truth`: the message it waits for. `take(message)`: raises, or returns."""

    def __init__(self, name, truth):
        self.name, self.truth = name, truth

    def mended(self, frame):
        """`frame`, header and body, with its checksum."""
        return reframed(frame[:HEADER], frame[HEADER:])

    def framed(self, body):
        return reframed(self.truth, body)

    def parts(self):
        """(bytes before the body, the body)."""
        return self.truth[:HEADER], body_of(self.truth)


class ClientTarget(Target):
    """A transition of client 0."""

    def __init__(self, name, position, truth, vector):
        super().__init__(f"{name}: {type(position).__name__}", truth)
        self.position = position
        self.move = next(move for move in MOVES if hasattr(position, move))
        self.vector = vector

    def take(self, message):
        position = duplicate(self.position)
        before = contents(position)
        try:
            if self.move == "mask":
                start = RoundParams.from_bytes(position._me.params, position.session, message)
                position.mask(start, self.vector)
            elif self.move == "encapsulate":
                position.encapsulate(message, lambda key: (bytes(32), bytes(1088)))
            else:
                getattr(position, self.move)(message)
        except ProtocolError:
            assert same(before, position), "a refused message has changed the client"
            raise


class ServerTarget(Target):
    """The server takes client 1's message after all others, and closes the trip."""

    def __init__(self, name, position, truth):
        super().__init__(f"{name}: {type(position).__name__}", truth)
        self.position = position

    def take(self, message):
        position = duplicated(self.position)
        before = contents(position)
        try:
            position.receive(1, message)
        except ProtocolError:
            assert same(before, position), "a refused message has changed the server"
            raise
        before = contents(position)
        try:
            result = position.close()
        except ProtocolError:
            assert same(before, position), "a refused closing has changed the server"
            raise
        assert isinstance(result, tuple | RoundResult)


class DumpTarget(Target):
    """A client's position is read from bytes."""

    def __init__(self, name, cls, params, truth, identity):
        super().__init__(f"{name}: dump of {cls.__name__}", truth)
        self.cls, self.params, self.identity = cls, params, identity

    def mended(self, frame):
        return frame + hashlib.sha256(b"flora-secure/2 dump\0" + frame).digest()

    def framed(self, body):
        return self.mended(self.truth[: DUMP_HEAD.size] + body)

    def parts(self):
        return self.truth[: DUMP_HEAD.size], self.truth[DUMP_HEAD.size : -32]

    def take(self, message):
        loaded = self.cls.load(self.params, message, identity=self.identity)
        again = load_position(self.params, message, identity=self.identity)
        assert type(again) is type(loaded)
        assert loaded.dump() == again.dump() == message, "one position, two dumps"


class ParamsTarget(Target):
    """Parameters are read from bytes; mended is the tag at their end, where they are parameters."""

    def __init__(self, name, params):
        super().__init__(f"{name}: parameters", params.to_bytes())
        self.params = params

    def mended(self, frame):
        with suppress(ProtocolError, struct.error):
            malicious, bits, slots, n, k, t, corrupt, d, number = _PARAMS.unpack_from(frame, 4)
            fields = {"clients": n, "neighbours": k, "threshold": t, "corrupt": corrupt, "dimension": d}
            fields |= {"profile": list(Profile)[malicious % 2], "bits": bits, "slots": slots, "number": number}
            fields |= {"suite": self.params.suite, "identities": self.params.identities}
            return frame[: 4 + _PARAMS.size] + SessionParams(**fields).setup_id[:8]
        return frame + self.truth[4 + _PARAMS.size :]

    def framed(self, body):
        return self.mended(self.truth[:4] + body)

    def parts(self):
        return self.truth[:4], self.truth[4 : 4 + _PARAMS.size]

    def take(self, message):
        read = SessionParams.from_bytes(message, self.params.identities)
        assert read.to_bytes() == message, "one set of parameters, two encodings"


class StartTarget(Target):
    """A START is read, and whether its round could begin is asked of the server."""

    def __init__(self, name, prepared, truth):
        super().__init__(f"{name}: ServerPrepared", truth)
        self.position = prepared

    def take(self, message):
        prepared = duplicated(self.position)
        start = RoundParams.from_bytes(prepared.params, prepared.session, message)
        assert start.to_bytes(prepared.params, prepared.session) == message, "one round, two encodings"
        before = contents(prepared)
        try:
            prepared.begin(start)
        except ProtocolError:
            assert same(before, prepared), "a refused round has changed the session"
            raise


class LargeTarget(Target):
    """A decoder in the largest session there is: what a short message claims must not be allocated."""

    def __init__(self, params, kind, decode):
        session = params.setup_id if kind in (Kind.ADVERTISEMENT, Kind.ROSTER) else bytes(32)
        super().__init__(f"large: {kind.name}", encode_frame(kind, params.suite, session, bytes(100)))
        self.take = lambda message: decode(params, message)


NOBODY = bytes(32)
OWN = Advertisement(bytes(32), bytes(32), b"")
LARGE = SessionParams(
    clients=1 << 16,
    neighbours=60,
    threshold=30,
    bits=32,
    dimension=1 << 30,
    slots=1024,
    suite=Suite.X25519_MLKEM768,
)
LARGE_TARGETS = {
    Kind.ADVERTISEMENT: lambda params, message: setup_messages.decode_advertisement(params, message, 1),
    Kind.ROSTER: lambda params, message: setup_messages.decode_roster(params, message, 1, OWN),
    Kind.CIPHERTEXTS: lambda params, message: setup_messages.decode_ciphertexts(params, NOBODY, message, 1, 30),
    Kind.DELIVERY: lambda params, message: setup_messages.decode_delivery(params, NOBODY, message, 1),
    Kind.SHARES: lambda params, message: setup_messages.decode_shares(params, NOBODY, message, 1, 60, 31),
    Kind.INBOX: lambda params, message: setup_messages.decode_inbox(params, NOBODY, message, 1),
    Kind.START: lambda params, message: RoundParams.from_bytes(params, NOBODY, message),
    Kind.UPLOAD: lambda params, message: round_messages.decode_upload(params, NOBODY, message, 1),
    Kind.SURVIVORS: lambda params, message: round_messages.decode_survivors(params, NOBODY, message),
    Kind.AGREEMENT: lambda params, message: round_messages.decode_agreement(
        params, NOBODY, message, 1, Bitmap(bytes(1 << 13))
    ),
    Kind.REVEAL: lambda params, message: round_messages.decode_reveal(params, NOBODY, message, 1, 60, 30),
}


def contents(position):
    """What a position holds, its containers copied, and what its session holds."""
    held = {
        name: copy.copy(value) if isinstance(value, dict | set | list | np.ndarray) else value
        for name, value in vars(position).items()
    }
    return held | {name: contents(value) for name, value in held.items() if isinstance(value, Deposits)}


def same(before, position):
    now = vars(position)
    return now.keys() == before.keys() and all(
        same(value, now[name])
        if isinstance(now[name], Deposits)
        else np.array_equal(now[name], value)
        if isinstance(value, np.ndarray)
        else now[name] == value
        for name, value in before.items()
    )


def duplicated(position):
    """A position with containers of its own; of a round, with a session of its own, too."""
    copied = duplicate(position)
    vars(copied).update(contents(position))
    if isinstance(vars(position).get("_deposits"), Deposits):
        copied._deposits = duplicate(position._deposits)
        vars(copied._deposits).update(contents(position._deposits))
    return copied


def fresh(prepared):
    """The session before its first round."""
    other = duplicated(prepared)
    other._next, other._scopes = 0, []
    return other
