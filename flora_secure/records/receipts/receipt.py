"""`receipt.json` of a run's folder, and the receipt that a client keeps of the rounds in which it was.

The leaves of the tree are config.toml, then the lines of rounds.jsonl: round r is leaf r. Each is blinded
(`head.blinded`); the salt is in the folder's receipt, for whoever has the log, and in no client's. So a client's
receipt shows it that it is in the signed log, and nothing of what its lines say.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from flora_secure.boundary.foreign import read_text
from flora_secure.errors import ForeignError, PlainError, RunFolderError
from flora_secure.plain import from_plain
from flora_secure.privacy.events import RoundEvent
from flora_secure.records.reading import parse_object, read_config, read_lines
from flora_secure.records.receipts.head import Head, Signer, blinded, now, require_hex
from flora_secure.records.receipts.tree import Tree, leads, leaf_hash

NAME = "receipt.json"
SCHEMA, CLIENT_SCHEMA = "flora-secure/receipt/1", "flora-secure/client-receipt/1"
MOST_BYTES = 1 << 26
_LONGEST_PATH = 32  # hashes
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """A run's receipt. `signature`: of the head; `salt`: 32 bytes; `leaves`: their hashes, by which a line that is not
    as it was signed can be named; all in hex."""

    head: Head
    signature: str
    salt: str
    leaves: list[str]

    def __post_init__(self) -> None:
        """Raises `PlainError` that names the first key whose value cannot be."""
        require_hex("signature", self.signature, 64)
        require_hex("salt", self.salt, 32)
        for place, leaf in enumerate(self.leaves):
            require_hex(f"leaves[{place}]", leaf, 32)

    @property
    def tree(self) -> Tree:
        """The tree over the leaves that the receipt lists."""
        return Tree([bytes.fromhex(leaf) for leaf in self.leaves])

    def leaf(self, place: int, data: bytes) -> str:
        """The hash that `data` has as the leaf at that place, and the report at that of the tree's size."""
        return leaf_hash(blinded(bytes.fromhex(self.salt), place, data)).hex()

    def to_json(self) -> str:
        """The document, `schema` first."""
        return _document(SCHEMA, dataclasses.asdict(self))


@dataclass(frozen=True, kw_only=True)
class Proof:
    """A round in the signed log: the hash of its leaf, and the path from there to the root, hex."""

    round: int
    leaf: str
    path: list[str]

    def __post_init__(self) -> None:
        """Raises `PlainError` that names the first key whose value cannot be."""
        require_hex("leaf", self.leaf, 32)
        if len(self.path) > _LONGEST_PATH:
            raise PlainError(f"path has {len(self.path)} hashes, and {_LONGEST_PATH} are the most")
        for text in self.path:
            require_hex("path", text, 32)


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a client was told of a round before it uploaded, from its own ledger: the numbers of the noise."""

    round: int
    sigma_local: float
    scale: float
    clip_norm: float
    count_scale: float
    dimension: int
    colluders: int
    honest_minimum: int
    sampling_rate: float

    @classmethod
    def of(cls, event: RoundEvent) -> Told:
        """From the worst that the client counted."""
        names = {field.name for field in dataclasses.fields(cls)} - {"honest_minimum"}
        return cls(**{name: getattr(event, name) for name in names}, honest_minimum=event.survivors - event.colluders)


@dataclass(frozen=True, kw_only=True)
class ClientReceipt:
    """The receipt that a client keeps.

    `rounds`: those that the log names it as a participant of. `told`: those that it says it uploaded in; empty as the
    server hands it out, filled by the client from its own ledger, signed by nobody.
    """

    client: int
    head: Head
    signature: str
    rounds: list[Proof]
    told: list[Told]

    def __post_init__(self) -> None:
        """Raises `PlainError` that names the first key whose value cannot be."""
        require_hex("signature", self.signature, 64)
        for key, given in (("rounds", self.rounds), ("told", self.told)):
            numbers = [one.round for one in given]
            if numbers != sorted(set(numbers)) or not all(number >= 1 for number in numbers):
                raise PlainError(f"{key} must have rounds from 1, in ascending order")

    @property
    def astray(self) -> list[int]:
        """Rounds whose path does not lead to the root of the head."""
        root, size = bytes.fromhex(self.head.root), self.head.size
        return [
            one.round
            for one in self.rounds
            if not leads(bytes.fromhex(one.leaf), one.round, size, [bytes.fromhex(text) for text in one.path], root)
        ]

    @property
    def lacking(self) -> list[int]:
        """Rounds that the client says it uploaded in, and the signed log does not name it in."""
        return sorted({told.round for told in self.told} - {proof.round for proof in self.rounds})

    def to_json(self) -> str:
        """The document, `schema` first."""
        return _document(CLIENT_SCHEMA, dataclasses.asdict(self))


def signed(folder: Path, report: bytes, adapter: str, session: bytes, signer: Signer) -> Receipt:
    """The receipt of the run in `folder`, whose config.toml and rounds.jsonl are whole; `report` is what report.json is
    going to hold, `adapter` the hash of the adapter's weights, `session` the run's 16 bytes."""
    salt = signer.salt(session)
    entries = [text.encode() for text in (read_config(folder), *read_lines(folder)[0])]
    leaves = [leaf_hash(blinded(salt, place, entry)) for place, entry in enumerate(entries)]
    head = Head(
        key=signer.public,
        lasting=signer.lasting,
        session=session.hex(),
        size=len(leaves),
        root=Tree(leaves).root.hex(),
        report=leaf_hash(blinded(salt, len(leaves), report)).hex(),
        adapter=adapter,
        time=now(),
    )
    return Receipt(head=head, signature=signer.sign(head), salt=salt.hex(), leaves=[leaf.hex() for leaf in leaves])


def client_receipts(receipt: Receipt, participants: Sequence[Iterable[int]], clients: Iterable[int]) -> dict[int, str]:
    """The receipt of each of `clients`, as a document. `participants`: of every round, in order. It takes no key:
    whoever has a run's folder can hand them out."""
    tree, head = receipt.tree, dataclasses.asdict(receipt.head)
    proofs: dict[int, list[dict[str, Any]]] = {client: [] for client in clients}
    for number, cohort in enumerate(participants, 1):
        path = [beside.hex() for beside in tree.path(number)]
        proof = dataclasses.asdict(Proof(round=number, leaf=receipt.leaves[number], path=path))
        for client in cohort:
            if client in proofs:
                proofs[client].append(proof)
    found = {}
    for client, rounds in proofs.items():
        # as `ClientReceipt.to_json`, without a copy of each proof for each client
        table = {"client": client, "head": head, "signature": receipt.signature, "rounds": rounds, "told": []}
        found[client] = _document(CLIENT_SCHEMA, table)
    return found


def read_receipt(folder: Path) -> Receipt:
    """`receipt.json` of a run's folder; no signature is looked at. Raises `RunFolderError`, one line that names the
    file, for one that cannot be read or is of another schema."""
    return _read(folder / NAME, SCHEMA, Receipt)


def read_client_receipt(path: Path) -> ClientReceipt:
    """A client's receipt; no signature is looked at. Raises as `read_receipt`."""
    return _read(path, CLIENT_SCHEMA, ClientReceipt)


def client_receipt_of(text: str, where: str) -> ClientReceipt:
    """A client's receipt from its text. Raises `RunFolderError`, which begins with `where`."""
    return _parsed(text, CLIENT_SCHEMA, ClientReceipt, where)


def _document(schema: str, table: dict[str, Any]) -> str:
    return json.dumps({"schema": schema, **table}, ensure_ascii=False, allow_nan=False) + "\n"


def _read(path: Path, schema: str, kind: type[T]) -> T:
    try:
        text = read_text(path, MOST_BYTES)
    except ForeignError as error:
        raise RunFolderError(f"{path} cannot be read: {error}") from None
    return _parsed(text, schema, kind, str(path))


def _parsed(text: str, schema: str, kind: type[T], where: str) -> T:
    table = parse_object(text, where)
    if (found := table.pop("schema", None)) != schema:
        raise RunFolderError(f"{where}: schema must be {schema!r}, got {found!r:.60}")
    try:
        return from_plain(kind, table)
    except PlainError as error:
        raise RunFolderError(f"{where}: {error}") from None
