"""The Merkle tree and the signed head: known answers, properties, and what is refused."""

import dataclasses
import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flora_secure.errors import PlainError, RunFolderError
from flora_secure.records.receipts.head import Head, Signer, blinded
from flora_secure.records.receipts.receipt import (
    Receipt,
    client_receipt_of,
    client_receipts,
    read_client_receipt,
    read_receipt,
)
from flora_secure.records.receipts.tree import Tree, leads, leaf_hash

# the entries, roots and paths of certificate transparency's reference tests (RFC 6962)
ENTRIES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
PATHS = {
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
}
LEAVES = [leaf_hash(bytes.fromhex(entry)) for entry in ENTRIES]
SIGNER = Signer(bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"), lasting=True)
HEAD = Head(
    key=SIGNER.public,
    lasting=True,
    session="5e" * 16,
    size=8,
    root=ROOTS[8],
    report="01" * 32,
    adapter="02" * 32,
    time="2026-01-31T09:00:00Z",
)


@pytest.mark.parametrize("size", range(9))
def test_roots_are_those_of_the_reference(size: int) -> None:
    assert Tree(LEAVES[:size]).root.hex() == ROOTS[size]


@pytest.mark.parametrize(("place", "size"), PATHS)
def test_paths_are_those_of_the_reference(place: int, size: int) -> None:
    assert [beside.hex() for beside in Tree(LEAVES[:size]).path(place)] == PATHS[place, size]


def divided(leaves: list[bytes]) -> bytes:
    """The root as the RFC defines it, at the largest power of two below the size."""
    if len(leaves) == 1:
        return leaves[0]
    half = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + divided(leaves[:half]) + divided(leaves[half:])).digest()


SIZES = st.integers(1, 130)


@given(SIZES, st.data())
def test_every_leaf_is_included_where_it_is_and_nowhere_else(size: int, data: st.DataObject) -> None:
    leaves = [leaf_hash(bytes([number])) for number in range(size)]
    tree, place = Tree(leaves), data.draw(st.integers(0, size - 1))
    path = tree.path(place)
    assert tree.root == divided(leaves)
    assert leads(leaves[place], place, size, path, tree.root)
    other = data.draw(st.integers(-1, size).filter(lambda one: one != place))
    assert not leads(leaves[place], other, size, path, tree.root)
    assert not leads(leaf_hash(b"another"), place, size, path, tree.root)
    assert not leads(leaves[place], place, size, [*path, bytes(32)], tree.root)
    if path:
        spoilt = data.draw(st.integers(0, len(path) - 1))
        wrong = [bytes(32) if at == spoilt else beside for at, beside in enumerate(path)]
        assert not leads(leaves[place], place, size, wrong, tree.root)
        assert not leads(leaves[place], place, size, path[:-1], tree.root)
        # an inner node is no leaf
        assert not leads(path[0], place ^ 1, size, path, tree.root)


def test_a_path_is_of_one_size() -> None:
    """A path that ends below the root of the size that is claimed is none, though its hashes lead to the root."""
    tree = Tree(LEAVES[:2])
    assert leads(LEAVES[0], 0, 2, tree.path(0), tree.root)
    for size in (1, 3, 4):
        assert not leads(LEAVES[0], 0, size, tree.path(0), tree.root)


def test_there_is_no_path_of_no_leaf() -> None:
    for place in (-1, 3):
        with pytest.raises(IndexError):
            Tree(LEAVES[:3]).path(place)


def test_a_signature_is_of_every_field() -> None:
    signature = SIGNER.sign(HEAD)
    assert HEAD.signed_by(signature)
    other = Signer(bytes(32), lasting=True)
    changes = {
        "key": other.public,
        "lasting": False,
        "session": "5f" * 16,
        "size": 9,
        "root": ROOTS[7],
        "report": "03" * 32,
        "adapter": "04" * 32,
        "time": "2026-01-31T09:00:01Z",
    }
    assert changes.keys() == {field.name for field in dataclasses.fields(HEAD)}
    for key, value in changes.items():
        assert not dataclasses.replace(HEAD, **{key: value}).signed_by(signature), key
    for spoilt in ("", "00" * 64, signature[2:], signature[:-2] + "ff", "é" * 128):
        assert not HEAD.signed_by(spoilt)
    assert repr(SIGNER.secret)[2:-1] not in repr(SIGNER)


def test_a_known_answer_of_the_signed_bytes() -> None:
    """Whoever writes a verifier needs them."""
    key = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"  # RFC 8032, section 7.1
    text = "0800000000000000" + ROOTS[8] + "01" * 32 + "02" * 32
    expected = b"flora-secure receipt 1\0" + bytes.fromhex(key + "01" + "5e" * 16 + text) + b"2026-01-31T09:00:00Z"
    assert HEAD.signed == expected


@pytest.mark.parametrize(
    "change",
    [
        {"key": "00" * 32},  # of small order: any signature fits
        {"key": "ff" * 32},
        {"key": SIGNER.public.upper()},
        {"root": "5d"},
        {"session": ""},
        {"size": 0},
        {"size": 1 << 40},
        {"time": "2026-02-31T09:00:00Z"},
        {"time": "2026-1-31T09:00:00Z"},
        {"time": "٢٠26-01-31T09:00:00Z"},
        {"time": "yesterday"},
    ],
    ids=str,
)
def test_heads_that_cannot_be_are_refused(change: dict) -> None:
    with pytest.raises(PlainError):
        dataclasses.replace(HEAD, **change)


def test_contradictions_are_of_one_key_and_one_run() -> None:
    assert not HEAD.contradicts(HEAD)
    assert not HEAD.contradicts(dataclasses.replace(HEAD, time="2026-01-31T10:00:00Z"))
    for change in ({"size": 7}, {"root": ROOTS[7]}, {"report": "03" * 32}, {"adapter": "03" * 32}):
        other = dataclasses.replace(HEAD, **change)
        assert HEAD.contradicts(other)
        assert not HEAD.contradicts(dataclasses.replace(other, session="5f" * 16))
        assert not HEAD.contradicts(dataclasses.replace(other, key=Signer(bytes(32), lasting=True).public))


def receipt() -> Receipt:
    leaves = [leaf.hex() for leaf in LEAVES]
    return Receipt(head=HEAD, signature=SIGNER.sign(HEAD), salt=SIGNER.salt(bytes(16)).hex(), leaves=leaves)


def test_clients_have_the_rounds_that_they_were_in_and_no_line_can_be_guessed() -> None:
    cohorts = [{0, 1}, {1}, {0}, set(), {0, 1}, {0}, {0}]
    documents = client_receipts(receipt(), cohorts, [0, 1, 5])
    for client, rounds in ((0, [1, 3, 5, 6, 7]), (1, [1, 2, 5]), (5, [])):
        read = client_receipt_of(documents[client], "it")
        assert read.to_json() == documents[client]
        assert (read.client, [proof.round for proof in read.rounds]) == (client, rounds)
        assert read.astray == read.lacking == read.told == []
        assert receipt().salt not in documents[client]
    salts = {Signer(bytes([n]) * 32, lasting=True).salt(bytes([m]) * 16) for n in range(3) for m in range(3)}
    assert len(salts) == 9
    entries = {blinded(salt, place, b"line") for salt in salts for place in range(3)}
    assert len(entries) == 27


def changed(path: tuple, value: object) -> str:
    table = json.loads(client_receipts(receipt(), [{0}] * 7, [0])[0])
    inner = table
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return json.dumps(table)


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("schema",), "flora-secure/client-receipt/2", "schema must be 'flora-secure/client-receipt/1'"),
        (("signature",), "00", "signature must have 128 hex digits"),
        (("more",), 1, "unknown key 'more'"),
        (("rounds", 0, "path"), ["00" * 32] * 33, "path has 33 hashes, and 32 are the most"),
        (("rounds", 0, "leaf"), "zz" * 32, "leaf must have 64 hex digits"),
        (("rounds", 1, "round"), 1, "rounds must have rounds from 1, in ascending order"),
        (("rounds", 0, "round"), 0, "rounds must have rounds from 1, in ascending order"),
        (("rounds", 0, "round"), True, "rounds[0].round must be of type int"),
        (("head", "size"), 8.0, "head.size must be of type int"),
        (("head", "key"), "01" + "00" * 31, "key is no Ed25519 public key"),
        (("head",), [], "head"),
    ],
)
def test_documents_of_others_are_read_strictly(tmp_path, path: tuple, value: object, says: str) -> None:
    file = tmp_path / "theirs.json"
    file.write_text(changed(path, value))
    with pytest.raises(RunFolderError) as error:
        read_client_receipt(file)
    assert str(error.value).startswith(f"{file}: ")
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_receipt_that_is_no_regular_file_is_refused(tmp_path) -> None:
    (tmp_path / "receipt.json").mkdir()
    with pytest.raises(RunFolderError, match=r"receipt.json cannot be read: it is a folder"):
        read_receipt(tmp_path)
