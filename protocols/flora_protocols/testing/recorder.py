"""Moves a cohort with randomness that is not random, and writes down every step for the test vectors (see vectors).

Steps marked with a check must be refused: the recorder raises if they are not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from itertools import count
from typing import Any

import numpy as np

from flora_protocols.client import ClientAdvertise
from flora_protocols.client_round import ClientAgree, ClientUnmask
from flora_protocols.codec import CHECKSUM, HEADER, Bitmap, checksum
from flora_protocols.dealing import ClientCollect
from flora_protocols.errors import MisuseError, PeerError, ProtocolError, TooFewSurvivors, UnsoundShares
from flora_protocols.keys import identity_public
from flora_protocols.params import Floors, Profile, SessionParams
from flora_protocols.prepared import ServerPrepared
from flora_protocols.round_params import RoundParams
from flora_protocols.server import ServerAdvertise
from flora_protocols.server_round import RoundResult, ServerMask, ServerUnmask
from flora_protocols.suites import Suite
from flora_protocols.testing import kem

Json = dict[str, Any]
LEAST = Floors(clients=2, threshold=2, survivors=2, suite=Suite.X25519)
MODEL = hashlib.sha256(b"model").digest()
_KINDS: dict[type[ProtocolError], str] = {TooFewSurvivors: "too few", UnsoundShares: "unsound"}
_DO = ("advertise", "encapsulate", "share", "collect", "mask", "agree", "unmask")


class Recorder:
    """A cohort whose every step is written down.

    `mail`: what each client gets next; in MASK that is the START, and `inboxes` has what comes with the first one.
    `sent`: what each sent in this trip. `params`: as of `SessionParams`; `malicious` stands for the profile and its
    identities, `hybrid` for the suite.
    """

    def __init__(self, name: str, says: str, *, floors: Floors = LEAST, **params: Any) -> None:
        clients = params["clients"]
        malicious, hybrid = params.pop("malicious", False), params.pop("hybrid", False)
        self.keys = [stream(b"identity", index, 32) for index in range(clients)] if malicious else []
        self.params = SessionParams(
            profile=Profile.MALICIOUS_SERVER if malicious else Profile.SEMI_HONEST,
            suite=Suite.X25519_MLKEM768 if hybrid else Suite.X25519,
            identities=tuple(identity_public(key) for key in self.keys),
            **{"neighbours": clients - 1, "bits": 9, "dimension": 5, "number": 7} | params,
        )
        self.head: Json = {
            "name": name,
            "says": says,
            "params": _plain(self.params),
            "floors": vars(floors) | {"suite": int(floors.suite)},
            "identity_keys": [key.hex() for key in self.keys],
        }
        self.steps: list[Json] = []
        self._name, self._drawn = name.encode(), count()
        self._past: dict[tuple[int, str], Any] = {}
        self.clients: dict[int, Any] = {
            i: ClientAdvertise(self.params, i, floors=floors, identity=self.keys[i] if malicious else None)
            for i in range(clients)
        }
        self.server: Any = ServerAdvertise(self.params)
        self.prepared: Any = None
        self.inboxes: dict[int, bytes] = {}
        self.session = b""
        self.mail = dict.fromkeys(self.clients, b"")
        self.sent: dict[int, bytes] = {}
        self.vectors = {i: self._values(i) for i in self.clients}

    def step(self, index: int, message: bytes = b"", *, check: str = "", do: str = "", vector: Any = None) -> None:
        """One client's transition; with `check`, one that is refused. `do`: `leave`, or a transition made before, once
        more."""
        do = do or next(name for name in _DO if hasattr(self.clients[index], name))
        client = self.clients[index] if hasattr(self.clients[index], do) else self._past[index, do]
        entry: Json = {"at": index, "do": do}
        arguments: list[Any] = [] if do in ("advertise", "leave") else [message]
        drawn: list[bytes] = []

        def draw(size: int) -> bytes:
            drawn.append(stream(self._name, next(self._drawn), size))
            return drawn[-1]

        def encapsulate(key: bytes) -> tuple[bytes, bytes]:
            secret, ciphertext = kem.encapsulate(key, stream(self._name, next(self._drawn), 32))
            entry["kem"] = [*entry.get("kem", ()), {"secret": secret.hex(), "ciphertext": ciphertext.hex()}]
            return secret, ciphertext

        if arguments:
            entry["message"] = message.hex()
        if do == "mask":
            values = self.vectors[index] if vector is None else vector
            entry["vector"] = [int(value) for value in values]
            arguments.append(np.array(values, np.uint32))
        if do in ("advertise", "encapsulate"):
            arguments.append(draw if do == "advertise" else encapsulate)

        def move() -> Any:
            if do == "mask":
                arguments[0] = RoundParams.from_bytes(self.params, self.session, message)
            return getattr(client, do)(*arguments)

        after = self._attempt(entry, check, move)
        if drawn:
            entry["randomness"] = b"".join(drawn).hex()
        if after is not None:
            self._past[index, do] = client
            if isinstance(after, tuple):
                after, self.sent[index] = after
                entry["gives"] = self.sent[index].hex()
            self.clients[index] = after
        self.steps.append(entry)

    def receive(self, client: int, message: bytes, *, check: str = "") -> None:
        """Let the server take a message, as if from `client`."""
        entry: Json = {"at": "server", "do": "receive", "client": client, "message": message.hex()}
        self._attempt(entry, check, lambda: self.server.receive(client, message))
        self.steps.append(entry)

    def close(self, *, check: str = "") -> None:
        """The server ends the trip, or the round."""
        entry: Json = {"at": "server", "do": "close"}
        after = self._attempt(entry, check, self.server.close)
        if isinstance(after, RoundResult):
            outcome = {"survivors": after.survivors, "dropped": after.dropped, "recovered": after.recovered}
            entry["gives"] = {"sum": after.sum.tolist(), **outcome}
            truth = sum(self.vectors[i].astype(np.uint64) for i in after.survivors) % (1 << self.params.bits)
            if after.sum.tolist() != np.asarray(truth).tolist():
                raise AssertionError(f"{self.head['name']}: the sum is wrong")
        elif after is not None:
            self.server, self.mail = after
            entry["gives"] = {str(index): message.hex() for index, message in self.mail.items()}
        self.steps.append(entry)
        if isinstance(self.server, ServerPrepared):
            self.prepared, self.inboxes, self.session = self.server, self.mail, self.server.session
            self.begin()

    def begin(self, *, check: str = "", **more: Any) -> Recorder:
        """The server begins a round, of the first slot that is left among all that may be invited; or what `more`
        has."""
        message = self.start(**more)
        entry: Json = {"at": "server", "do": "begin", "message": message.hex()}
        asked = RoundParams.from_bytes(self.params, self.session, message)
        after = self._attempt(entry, check, lambda: self.prepared.begin(asked))
        if after is not None:
            self.server, self.mail = after, dict.fromkeys(asked.invited, message)
        self.steps.append(entry)
        return self

    def start(
        self, slot: int | None = None, invited: Collection[int] | None = None, round: int = 3, session: bytes = b""
    ) -> bytes:
        """The START of a round, sound or not."""
        asked = RoundParams(
            slot=self.prepared.next_slot if slot is None else slot,
            round=round,
            model_hash=MODEL,
            invited=Bitmap.of(self.params.clients, self.prepared.clients if invited is None else invited),
        )
        return asked.to_bytes(self.params, session or self.session)

    def move(self, dropping: Collection[int] = ()) -> None:
        """All clients but `dropping` make their transition; nothing is delivered."""
        self.sent = {}
        for index in self.mail:
            if index not in dropping:
                self.ready(index)
                self.step(index, self.mail[index])

    def ready(self, index: int) -> None:
        """Bring a client to the round that has begun: out of the last one, or through its inbox."""
        if isinstance(self.server, ServerMask):
            if isinstance(self.clients[index], ClientAgree | ClientUnmask):
                self.step(index, do="leave")
            if isinstance(self.clients[index], ClientCollect):
                self.step(index, self.inboxes[index])

    def deliver(self, instead: dict[int, bytes] | None = None) -> None:
        """The server takes what was sent, or what `instead` has; and closes the trip unless it is the last."""
        for index, message in (self.sent | (instead or {})).items():
            if index not in self.server.heard:
                self.receive(index, message)
        if not isinstance(self.server, ServerUnmask):
            self.close()

    def trip(self, dropping: Collection[int] = ()) -> Recorder:
        """Play one whole trip, in which those in `dropping` send nothing."""
        self.move(dropping)
        self.deliver()
        return self

    def set_up(self) -> Recorder:
        """Play all trips of the set-up."""
        while self.prepared is None:
            self.trip()
        return self

    def finish(self, *, check: str = "") -> Recorder:
        """Play all trips that are left, and end the round."""
        while not isinstance(self.server, ServerUnmask):
            self.trip()
        self.trip()
        self.close(check=check)
        return self

    def _attempt(self, entry: Json, check: str, act: Callable[[], Any]) -> Any:
        try:
            result = act()
        except (PeerError, TooFewSurvivors, UnsoundShares, MisuseError) as error:
            if not check:
                raise
            entry["refused"] = {"check": check, "error": _KINDS.get(type(error), "misuse")}
            if isinstance(error, PeerError):
                entry["refused"] |= {"error": "peer", "culprit": error.culprit}
            return None
        if check:
            raise AssertionError(f"{self.head['name']}: {check} did not refuse step {len(self.steps)}")
        return result

    def _values(self, index: int) -> Any:
        raw = np.frombuffer(stream(b"vector " + self._name, index, 4 * self.params.dimension), "<u4")
        return raw & np.uint32((1 << self.params.bits) - 1)


def body_of(message: bytes) -> bytes:
    """What is inside the frame."""
    return message[HEADER:-CHECKSUM]


def reframed(message: bytes, body: bytes) -> bytes:
    """`message` with another body, and the checksum that belongs to it."""
    return mended(message[:HEADER] + body)


def mended(frame: bytes) -> bytes:
    """A frame that lacks its checksum, with the right one."""
    return frame + checksum(frame)


def stream(label: bytes, number: int, size: int) -> bytes:
    """`size` bytes that anybody can make again, from a label and a number."""
    return hashlib.shake_256(b"flora-secure/2 vectors\0" + label + b"\0" + number.to_bytes(4, "little")).digest(size)


def _plain(params: SessionParams) -> Json:
    fields = ("clients", "neighbours", "threshold", "bits", "dimension", "slots", "number", "corrupt")
    plain: Json = {field: getattr(params, field) for field in fields}
    plain["suite"] = int(params.suite)
    plain["profile"] = params.profile.value
    plain["identities"] = [key.hex() for key in params.identities]
    return plain
