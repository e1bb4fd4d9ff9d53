"""Every decoder of both sides, in every state, to be fed with anything: for `fuzz.py` and for what it has found.

An input is a target, a mode and bytes. Modes: the bytes are the message; they are the body of a right frame; they are
changes to the body of the true message; or to its header and body. All but the first mend checksum and digest, so
that what lies behind them is reached. Demanded of every input:

- nothing is raised but ProtocolError, whose text has no more than 300 characters;
- a refused message leaves the position as it was, container by container;
- refusing takes no more memory than `ALLOWANCE` and eight times the message.
"""

from __future__ import annotations

import copy
import hashlib
import re
import struct
import tracemalloc
from contextlib import suppress

import numpy as np
from attacker import body_of, reframed
from cohorts import duplicate

from flora_protocols import PeerError, Profile, ProtocolError, RoundResult, SessionParams, load_position, messages
from flora_protocols.codec import HEADER, Kind, encode_frame
from flora_protocols.member import _HEAD as DUMP_HEAD
from flora_protocols.testing.recorder import Recorder

ALLOWANCE = 64 << 10
COHORTS = {
    "complete": {"clients": 5, "threshold": 3},
    "Harary": {"clients": 6, "neighbours": 4, "threshold": 2, "direct_reveal": True},
    "signed": {"clients": 5, "threshold": 3, "malicious": True, "direct_reveal": True},
    "signed Harary": {"clients": 6, "neighbours": 4, "threshold": 3, "malicious": True},
}
MOVES = ("share", "mask", "agree", "unmask")


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
        self.more = [vector] if self.move == "mask" else []

    def take(self, message):
        position = duplicate(self.position)
        before = contents(position)
        try:
            getattr(position, self.move)(message, *self.more)
        except ProtocolError:
            assert same(before, position), "a refused message has changed the client"
            raise


class ServerTarget(Target):
    """The server takes client 1's message after all others, and closes the trip."""

    def __init__(self, name, position, truth):
        super().__init__(f"{name}: {type(position).__name__}", truth)
        self.position = position

    def take(self, message):
        position = duplicate(self.position)
        vars(position).update(contents(position))
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
            *small, n, k, t, corrupt, d, number = struct.unpack_from("<BBBIIIIIQ", frame, 4)
            fields = {"clients": n, "neighbours": k, "threshold": t, "corrupt": corrupt, "dimension": d}
            fields |= {"profile": list(Profile)[small[0] % 2], "direct_reveal": bool(small[1]), "bits": small[2]}
            fields |= {"round": number, "model_hash": frame[35:67], "identities": self.params.identities}
            return frame[:67] + SessionParams(**fields).setup_id[:8]
        return frame + self.truth[67:]

    def framed(self, body):
        return self.mended(self.truth[:4] + body)

    def parts(self):
        return self.truth[:4], self.truth[4:67]

    def take(self, message):
        read = SessionParams.from_bytes(message, self.params.identities)
        assert read.to_bytes() == message, "one set of parameters, two encodings"


class LargeTarget(Target):
    """A decoder in the largest session there is: what a short message claims must not be allocated."""

    def __init__(self, kind, decode):
        own = messages.Advertisement(bytes(32), bytes(32), b"")
        session = LARGE.setup_id if kind is Kind.ROSTER else bytes(32)
        super().__init__(f"large: {kind.name}", encode_frame(kind, session, bytes(100)))
        self.take = lambda message: decode(message, own)


LARGE = SessionParams(clients=1 << 16, neighbours=60, threshold=30, bits=32, dimension=1 << 30)
LARGE_TARGETS = {
    Kind.ROSTER: lambda message, own: messages.decode_roster(LARGE, message, 1, own),
    Kind.INBOX: lambda message, own: messages.decode_inbox(bytes(32), message, 1, LARGE.graph.members(1)),
    Kind.UPLOAD: lambda message, own: messages.decode_upload(LARGE, bytes(32), message, 1),
    Kind.SURVIVORS: lambda message, own: messages.decode_survivors(LARGE, bytes(32), message),
    Kind.REVEAL: lambda message, own: messages.decode_reveal(bytes(32), message, 1, 60, range(30)),
}


def contents(position):
    """What a position holds, its containers copied."""
    return {
        name: copy.copy(value) if isinstance(value, dict | set | np.ndarray) else value
        for name, value in vars(position).items()
    }


def same(before, position):
    now = vars(position)
    return now.keys() == before.keys() and all(
        np.array_equal(now[name], value) if isinstance(value, np.ndarray) else now[name] == value
        for name, value in before.items()
    )


def targets():
    """Every decoder of both sides in every cohort; always the same secrets, so that an input always does the same."""
    made = []
    for name, how in COHORTS.items():
        r = Recorder(f"fuzz {name}", "", **how)
        leaver = r.params.clients - 1
        while True:
            here, server = duplicate(r.clients[0]), r.server
            made.append(DumpTarget(name, type(here), r.params, duplicate(here).dump(), r.keys[0] if r.keys else None))
            if type(here).__name__ == "ClientDone":
                break
            if type(here).__name__ != "ClientAdvertise":
                made.append(ClientTarget(name, here, r.mail[0], r.vectors[0]))
            r.move({leaver} if type(here).__name__ == "ClientMask" else ())
            for index, message in r.sent.items():
                if index != 1:
                    r.receive(index, message)
            waiting = duplicate(server)
            vars(waiting).update(contents(waiting))
            made.append(ServerTarget(name, waiting, r.sent[1]))
            r.deliver()
    made += [LargeTarget(kind, decode) for kind, decode in LARGE_TARGETS.items()]
    for name, how in (("complete", {}), ("signed", {"malicious": True, "direct_reveal": True})):
        made.append(ParamsTarget(name, Recorder("", "", clients=5, threshold=3, **how).params))
    assert {target.position.__class__.__name__ for target in made if hasattr(target, "position")} >= {
        *("ClientShare", "ClientMask", "ClientAgree", "ClientUnmask"),
        *("ServerAdvertise", "ServerShare", "ServerMask", "ServerAgree", "ServerUnmask"),
    }
    return made


def edited(data, changes):
    """`data` with a byte XORed for every three bytes of `changes`; one left over cuts, two grow."""
    out = bytearray(data)
    for at in range(0, len(changes) - 2, 3):
        if out:
            out[int.from_bytes(changes[at : at + 2], "little") % len(out)] ^= changes[at + 2]
    rest = changes[len(changes) // 3 * 3 :]
    if len(rest) == 1:
        return bytes(out[: max(len(out) - rest[0], 0)])
    return bytes(out) + rest


class Decoders:
    """All targets, and how an input reaches one of them."""

    def __init__(self):
        self.targets = targets()

    def seeds(self):
        """The true messages, in every mode."""
        for number, target in enumerate(self.targets):
            yield bytes((number, 0)) + target.truth
            yield bytes((number, 1)) + target.parts()[1]
            yield bytes((number, 2))
            yield bytes((number, 3))

    def message(self, data):
        """(target, message) of an input of at least two bytes."""
        target, mode, rest = self.targets[data[0] % len(self.targets)], data[1] % 4, data[2:]
        if mode == 0:
            return target, rest
        if mode == 1:
            return target, target.framed(rest)
        head, body = target.parts()
        if mode == 2:
            return target, target.framed(edited(body, rest))
        return target, target.mended(edited(head + body, rest))

    def run(self, data, measure=False):
        """(outcome, bytes allocated to refuse, if measured). AssertionError, or whatever else is raised, is a find."""
        target, message = self.message(data)
        outcome, peak = "taken", 0
        if measure:
            tracemalloc.start()
        try:
            target.take(message)
        except ProtocolError as error:
            peak = tracemalloc.get_traced_memory()[1]
            outcome = f"{type(error).__name__}: {plain(error)}"
        finally:
            tracemalloc.stop()
        assert peak <= ALLOWANCE + 8 * len(message), f"{peak} bytes to refuse {len(message)}"
        assert len(outcome) <= 300, "an endless error"
        return f"{target.name}: {outcome}", peak


def plain(error):
    """An error's text without what differs from case to case."""
    text = error.reason if isinstance(error, PeerError) else str(error)
    text = re.sub("starts with [0-9a-f]*", "starts with #", text)
    return re.sub("#(, #)+", "#", re.sub("[0-9]+", "#", text))
