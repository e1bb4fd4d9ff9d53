"""Every decoder of both sides, in every state, to be fed with anything: for `fuzz.py` and for what it has found.

An input is a target, a mode and bytes. Modes: the bytes are the message; they are the body of a right frame; they are
changes to the body of the true message; or to its header and body. All but the first mend checksum and digest, so
that what lies behind them is reached. Demanded of every input:

- nothing is raised but ProtocolError, whose text has no more than 300 characters;
- a refused message leaves the position as it was, container by container;
- refusing takes no more memory than `ALLOWANCE` and eight times the message.
"""

from __future__ import annotations

import re
import tracemalloc

from cohorts import duplicate
from fuzz_targets import (
    LARGE,
    LARGE_TARGETS,
    MOVES,
    ClientTarget,
    DumpTarget,
    LargeTarget,
    ParamsTarget,
    ServerTarget,
    StartTarget,
    duplicated,
    fresh,
)

from flora_protocols import (
    ClientCollect,
    ClientReady,
    PeerError,
    ProtocolError,
)
from flora_protocols.testing.recorder import Recorder

ALLOWANCE = 64 << 10
COHORTS = {
    "complete": {"clients": 5, "threshold": 3},
    "Harary": {"clients": 6, "neighbours": 4, "threshold": 2, "slots": 2},
    "signed": {"clients": 5, "threshold": 3, "malicious": True},
    "signed Harary": {"clients": 6, "neighbours": 4, "threshold": 3, "malicious": True, "slots": 2},
    "hybrid": {"clients": 4, "threshold": 3, "hybrid": True, "malicious": True},
}


def targets():
    """Every decoder of both sides in every cohort; always the same secrets, so that an input always does the same."""
    made = []
    for name, how in COHORTS.items():
        r = Recorder(f"fuzz {name}", "", **how)
        leaver, identity = r.params.clients - 1, r.keys[0] if r.keys else None

        def here(r=r, name=name, identity=identity):
            position = r.clients[0]
            made.append(DumpTarget(name, type(position), r.params, duplicate(position).dump(), identity))
            if any(hasattr(position, move) for move in MOVES):
                truth = r.inboxes[0] if isinstance(position, ClientCollect) else r.mail[0]
                made.append(ClientTarget(name, duplicate(position), truth, r.vectors[0]))

        for rounds in range(r.params.slots):
            if rounds:
                r.begin(round=4)
            while True:
                here()
                if isinstance(r.clients[0], ClientCollect):
                    made.append(StartTarget(name, fresh(r.prepared), r.mail[0]))
                    r.ready(0)
                    here()
                r.move({leaver} if isinstance(r.clients[0], ClientReady) else ())
                for index, message in r.sent.items():
                    if index != 1:
                        r.receive(index, message)
                made.append(ServerTarget(name, duplicated(r.server), r.sent[1]))
                r.deliver()
                if type(r.server).__name__ == "ServerUnmask" and r.server.heard:
                    r.close()
                    break
        here()
    made += [LargeTarget(LARGE, kind, decode) for kind, decode in LARGE_TARGETS.items()]
    for name, how in (("complete", {}), ("signed", {"malicious": True}), ("hybrid", {"hybrid": True})):
        made.append(ParamsTarget(name, Recorder("", "", clients=5, threshold=3, **how).params))
    assert {target.position.__class__.__name__ for target in made if hasattr(target, "position")} >= {
        *("ClientShare", "ClientEncapsulate", "ClientDecapsulate", "ClientCollect", "ClientReady"),
        *("ClientAgree", "ClientUnmask", "ServerAdvertise", "ServerEncapsulate", "ServerShare", "ServerPrepared"),
        *("ServerMask", "ServerAgree", "ServerUnmask"),
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
