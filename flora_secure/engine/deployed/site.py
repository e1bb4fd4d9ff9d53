"""A site of a federation behind any engine: the server's bytes in, an answer's bytes out, and never an exception.

    terms       does this site have what the server has? Both log what differs, and training waits until nothing does
    farewell    the trained adapter, which the site keeps
    receipt     of the rounds that it was in, checked and kept
    all others  belong to its `client.Client`: policy, ledger, training, noise, masks

A process may live for one message. Model and images are loaded by the messages that ask for training, and by the
terms; what the others need of them stands in `state/facts.json`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

from flora_protocols import identity_public
from flora_secure.boundary.foreign import json_of, read_text
from flora_secure.client.client import Client
from flora_secure.client.contribution import Contributions, Trainer
from flora_secure.client.ledger import ClientLedger
from flora_secure.client.policy import Policy
from flora_secure.client.store import FileStore
from flora_secure.engine.deployed.envelope import enveloped
from flora_secure.engine.deployed.kept_receipts import keep_receipt
from flora_secure.engine.deployed.own_store import store_in
from flora_secure.errors import (
    ForeignError,
    PlainError,
    Refusal,
    RefusalError,
    RunFolderError,
    first_line,
)
from flora_secure.plain import from_plain
from flora_secure.planning.config import RunConfig
from flora_secure.planning.rules import TrainedValues, rule_named
from flora_secure.records.durable import PRIVATE, PRIVATE_FOLDER, replace_file, replace_folder
from flora_secure.rounds.enrolment import Enrolment
from flora_secure.rounds.farewell import decode_farewell, decode_receipt, is_farewell, is_receipt
from flora_secure.rounds.invitation import Invitation
from flora_secure.rounds.terms import Terms, is_terms

_FACTS = "flora-secure/site-facts/1"


@dataclass(frozen=True, kw_only=True)
class _Facts:
    """What the site knows of its model without loading it: `state/facts.json`.

    `config`: digest of the configuration that it is of. `agreed`: SHA-256 of the server's terms that fitted; empty
    before.
    """

    config: str
    model_hash: str
    rule: str
    a: int
    b: int
    terms: dict[str, str]
    agreed: str


class Training(Trainer, Protocol):
    """What a site needs of its model and images: `training.SiteTraining`, or contributions that are given."""

    @property
    def model_hash(self) -> str:
        """SHA-256 of the frozen model, hex."""
        ...

    def terms(self, enrolment: Enrolment) -> Terms:
        """What this site brings to the federation."""
        ...

    def save(self, adapter: bytes, folder: Path) -> None:
        """Write the trained adapter, float16 as `rounds.float16` has it, into a folder. Raises OSError."""
        ...


@dataclass(eq=False)
class Site:
    """One site, for as many messages as come.

    Attributes:
        folder: its own, with `state/` for what it keeps and `adapter/` for what was trained.
        config: of the federation.
        enrolment: who takes part, from out of band.
        identity: its Ed25519 secret key.
        policy: its terms.
        training: loads model and images, and makes the trainer; called when they are needed, once.
        log: told, in lines for the site's own people, what happens. No line leaves the site.
        server_key: the public key, hex, that receipts must be signed by; None where the coordinator gave none.
    """

    folder: Path
    config: RunConfig
    enrolment: Enrolment
    identity: bytes = field(repr=False)
    policy: Policy
    training: Callable[[], Training] = field(repr=False)
    log: Callable[[str], None] = field(repr=False)
    server_key: str | None = None
    _turn: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    @cached_property
    def _trainer(self) -> Training:
        return self.training()

    def answer(self, message: bytes) -> bytes:
        """The answer to one message, as `rounds.reply` writes it: the same bytes again to the same message.

        Whatever goes wrong is said to `log`, and its code alone to the server. One message at a time: engines have
        threads, and a position that two of them load would mask two vectors with one mask.
        """
        with self._turn:
            return enveloped(self._answer, message, self.log)

    def _answer(self, message: bytes) -> bytes:
        if is_terms(message):
            return self._compare(Terms.from_bytes(message, "server"), hashlib.sha256(message).hexdigest())
        facts = self._facts()
        if facts is None or not facts.agreed:
            raise RefusalError(Refusal.TERMS, "the server's terms have not been compared with this site's, or differ")
        if is_farewell(message):
            self._keep(decode_farewell(message, TrainedValues(rule_named(facts.rule), facts.a, facts.b)))
            return b""
        if is_receipt(message):
            self.log(
                keep_receipt(
                    decode_receipt(message),
                    folder=self.folder,
                    client=self._number,
                    server_key=self.server_key,
                    given=self.ledger.given,
                    rounds=self.config.training.rounds,
                )
            )
            return b""
        store = store_in(self._state)
        try:
            client = self._client(facts, store)
            before = len(client.ledger.given)
            reply = client.answer(message)
        finally:
            store.close()
        if len(client.ledger.given) > before:
            with suppress(Exception):  # the upload is counted and safe: no log may keep it back
                self._say_what_is_given(client.ledger)
        return reply

    def _say_what_is_given(self, ledger: ClientLedger) -> None:
        given, policy = ledger.given, self.policy
        terms = f"of {policy.most_epsilon:g} allowed, δ = {policy.delta:g}, per {policy.unit}"
        self.log(
            f"uploaded in round {given[-1].event.round}; this site's own ledger counts ε = "
            f"{ledger.epsilon(policy.delta):.4g} {terms}, over {len(given)} {'round' if len(given) == 1 else 'rounds'}"
        )

    def _client(self, facts: _Facts, store: FileStore) -> Client:
        return Client(
            enrolment=self.enrolment,
            number=self._number,
            policy=self.policy,
            trainer=_Later(TrainedValues(rule_named(facts.rule), facts.a, facts.b), facts.model_hash, self),
            ledger=self.ledger,
            store=store,
            model_hash=bytes.fromhex(facts.model_hash),
            identity=self.identity,
        )

    @property
    def number(self) -> int:
        """The site's number in the enrolment. Raises ConfigError where its key is not enrolled, or is revoked."""
        return self._number

    @property
    def ledger(self) -> ClientLedger:
        """What it has given, as it stands on disk. Raises RunFolderError for a file that is no ledger."""
        return ClientLedger(self._state / "ledger.jsonl")

    @cached_property
    def _number(self) -> int:
        return self.enrolment.number_of(identity_public(self.identity))

    @property
    def _state(self) -> Path:
        return self.folder / "state"

    def _compare(self, server: Terms, told: str) -> bytes:
        """This site's terms; what differs from the server's is said, and nothing is answered until it is mended."""
        trainer = self._trainer
        own = trainer.terms(self.enrolment)
        differences = own.differences(server)
        for difference in differences:
            self.log(f"terms differ, {difference.line('this site', 'the server')}; agree on one of the two")
        trained = trainer.trained
        facts = _Facts(
            config=self.config.digest,
            model_hash=trainer.model_hash,
            rule=trained.rule.name,
            a=trained.a,
            b=trained.b,
            terms=dict(own.values),
            agreed="" if differences else told,
        )
        self._state.mkdir(PRIVATE_FOLDER, parents=True, exist_ok=True)
        table = {"schema": _FACTS, **asdict(facts)}
        replace_file(self._state / "facts.json", json.dumps(table).encode(), mode=PRIVATE)
        if not differences:
            self.log("the server's terms are this site's")
        return own.to_bytes()

    def _facts(self) -> _Facts | None:
        """What was written when the terms were compared; None where it is of another configuration or not there."""
        path = self._state / "facts.json"
        if not path.exists():
            return None
        try:
            table = json_of(read_text(path))
            if table.pop("schema") != _FACTS:
                return None
            facts = from_plain(_Facts, table)
            bytes.fromhex(facts.model_hash)
        except (ForeignError, PlainError, KeyError, AttributeError, TypeError, ValueError) as error:
            raise RunFolderError(f"{path} is not what this site wrote: {first_line(error)}; remove it") from None
        return facts if facts.config == self.config.digest else None

    def _keep(self, adapter: bytes) -> None:
        """Write the trained adapter to `adapter/`, in the place of an earlier one."""
        target = self.folder / "adapter"
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=".adapter-") as scratch:
            fresh = Path(scratch) / "adapter"
            fresh.mkdir()
            self._trainer.save(adapter, fresh)
            if target.exists():
                shutil.rmtree(target)
            replace_folder(fresh, target)
        self.log(f"the federation is over; its adapter is in {target}")


@dataclass(frozen=True, eq=False)
class _Later:
    """The site's trainer, which is loaded when it trains."""

    trained: TrainedValues
    model_hash: str
    site: Site

    def contributions(self, invitation: Invitation, broadcast: bytes, members: Sequence[int]) -> Contributions:
        """One contribution, see `contribution.Trainer`. Raises RefusalError for another model than was agreed on."""
        trainer = self.site._trainer
        if trainer.model_hash != self.model_hash or trainer.trained != self.trained:
            raise RefusalError(Refusal.MODEL, "the model here is not the one that the terms were compared for")
        return replace(trainer.contributions(invitation, broadcast, members))
