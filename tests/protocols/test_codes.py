"""Every error has a code from the fixed list; every code is documented, and is what happens."""

import ast
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from attacker import at, body_of, reframed
from cohorts import IDENTITIES, LEAST, Cohort, hybrid, malicious, semi_honest

from flora_protocols import (
    ClientAdvertise,
    ClientShare,
    Code,
    MisuseError,
    ParameterError,
    ProtocolError,
    ServerAdvertise,
    SessionParams,
    TooFewSurvivors,
    Trip,
    load_position,
    run_round,
)
from flora_protocols.codec import encode_subset

ROOT = Path(__file__).parents[2]
SPEC = (ROOT / "protocols/SPEC.md").read_text(encoding="utf-8")
SECTION = SPEC[SPEC.index("## 18. Error codes") :]
CALLS = [
    (path.stem, node)
    for path in sorted((ROOT / "protocols/flora_protocols").glob("*.py"))
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    if isinstance(node, ast.Call | ast.Raise)
]
# Whose type says the code, unless another is given.
OWN = {"MisuseError": 1, "ParameterError": 1, "TooFewSurvivors": 3, "refusal": 1}
FORWARD = {"member", "codec"}  # `refuse` and `Reader.refusal` pass on the code that they are given
MADE_ELSEWHERE = {"_blame", "RoundAborted", "UnsoundShares", "NotImplementedError"}


def called(node):
    return getattr(node.func, "id", getattr(node.func, "attr", "")) if isinstance(node, ast.Call) else ""


def is_code(node):
    return isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "Code" and hasattr(Code, node.attr)


def forwards(stem, given):
    return stem in FORWARD and [getattr(one, "id", "") for one in given] == ["code"]


def test_every_place_that_raises_gives_a_code():
    made = [(stem, node) for stem, node in CALLS if called(node) == "PeerError"]
    assert len(made) > 35
    for stem, node in made:
        assert len(node.args) == 3, f"{stem}:{node.lineno}"
        assert is_code(node.args[2]) or forwards(stem, node.args[2:]), f"{stem}:{node.lineno}"
    for stem, node in CALLS:
        more = node.args[OWN[called(node)] :] if called(node) in OWN else []
        assert all(map(is_code, more)) or forwards(stem, more), f"{stem}:{node.lineno}"


def test_nothing_else_is_raised():
    known = {"PeerError", "revealed", *OWN, *MADE_ELSEWHERE}  # UnsoundShares.revealed
    for stem, node in CALLS:
        if isinstance(node, ast.Raise) and node.exc is not None:
            name = called(node.exc) or getattr(node.exc, "id", "")
            assert name in known, f"{stem}:{node.lineno}"


def test_every_code_is_documented():
    assert re.findall(r"^\| `([a-z-]+)` \|", SECTION, re.MULTILINE) == [code.value for code in Code]


def test_every_check_that_ends_in_an_error_has_a_code():
    """But those that end in none: complaints, what a client never does, and what loops do instead."""
    told = set(re.findall(r"C-\d\d", SECTION))
    for first, last in re.findall(r"C-(\d\d) to C-(\d\d)", SECTION):
        told |= {f"C-{number:02}" for number in range(int(first), int(last) + 1)}
    defined = set(re.findall(r"^- \*\*(C-\d\d)\*\*", SPEC, re.MULTILINE))
    assert defined - told == {"C-36", "C-37", "C-52", "C-53", "C-85", "C-86", "C-88", "C-90", "C-93"}
    assert told <= defined


def test_a_type_has_its_code():
    assert MisuseError("x").code is Code.MISUSE
    assert ParameterError("x").code is Code.PARAMETERS
    assert TooFewSurvivors("x", 1, 2).code is Code.TOO_FEW_SURVIVORS
    assert len({code.value for code in Code}) == len(Code)


def before(trip, make=semi_honest, **more):
    """A cohort whose clients wait for the server's message of that trip."""
    return at(Cohort(make(**more)), trip)


def sends(cohort, index, mail):
    cohort.mail = dict(cohort.mail) | {index: mail}
    cohort.move(index)


def flipped(message, place):
    """A bit of the head changed, its checksum mended."""
    return reframed(message[:place] + bytes((message[place] ^ 1,)) + message[place + 1 :], body_of(message))


def changed(message, place, value=1):
    body = bytearray(body_of(message))
    body[place] ^= value
    return reframed(message, bytes(body))


def roster_without_me():
    cohort = before(Trip.SHARE)
    body = body_of(cohort.mail[0])
    sends(cohort, 0, reframed(cohort.mail[0], encode_subset(range(4), (1, 2, 3)) + body[33:]))


def spent():
    client = ClientAdvertise(semi_honest(), 0, floors=LEAST)
    client.advertise()
    client.advertise()


def twice(index):
    cohort = before(Trip.SHARE, clients=5)
    cohort.clients[4], late = cohort.move(4)
    cohort.trip(dropping={4}).send()
    cohort.server.receive(index, late if index == 4 else cohort.sent[0])


def endorsed_by_another():
    cohort = before(Trip.AGREE, malicious)
    cohort.server.receive(0, cohort.move(1)[1])


def small_key():
    cohort = before(Trip.ADVERTISE)
    cohort.server.receive(0, reframed(cohort.move(0)[1], bytes(32)))


def shares_of_nobody_knows_what():
    cohort = before(Trip.UNMASK).send()
    cohort.server._shares[1] = cohort.server._shares[2]
    cohort.server.close()


def share_of_another():
    cohort = before(Trip.UNMASK, clients=7, threshold=3).send()
    cohort.server._shares[1] = cohort.server._shares[2]
    cohort.server.close()


def stolen_slot():
    cohort = before(Trip.MASK, slots=2)
    client, _ = cohort.move(0)
    client.leave().check(cohort.start)


SCENARIOS = {
    Code.MISUSE: lambda: ServerAdvertise(None),
    Code.PARAMETERS: lambda: semi_honest(threshold=9),
    Code.SPENT: spent,
    Code.BELOW_FLOOR: lambda: ClientAdvertise(semi_honest(), 0, floors=replace(LEAST, clients=5)),
    Code.TOO_FEW_SURVIVORS: lambda: before(Trip.SHARE).server.close(),
    Code.ABORTED: lambda: run_round(
        semi_honest(), [np.zeros(5, np.uint32)] * 4, floors=LEAST, dropouts={Trip.MASK: {0, 1}}
    ),
    Code.NOT_A_MESSAGE: lambda: sends(before(Trip.SHARE), 0, b"rubbish"),
    Code.OTHER_VERSION: lambda: sends(cohort := before(Trip.SHARE), 0, flipped(cohort.mail[0], 2)),
    Code.OTHER_SUITE: lambda: sends(cohort := before(Trip.SHARE), 0, flipped(cohort.mail[0], 3)),
    Code.OTHER_KIND: lambda: sends(cohort := before(Trip.SHARE), 0, flipped(cohort.mail[0], 4)),
    Code.OTHER_SESSION: lambda: sends(cohort := before(Trip.SHARE), 0, flipped(cohort.mail[0], 5)),
    Code.BAD_BODY: lambda: sends(
        cohort := before(Trip.SHARE), 0, reframed(cohort.mail[0], body_of(cohort.mail[0])[:-1])
    ),
    Code.BAD_KEY: small_key,
    Code.BAD_SIGNATURE: endorsed_by_another,
    Code.BAD_ROSTER: roster_without_me,
    Code.BAD_INBOX: lambda: sends(
        cohort := before(Trip.MASK), 0, reframed(cohort.mail[0], b"\x0e" + body_of(cohort.mail[0])[1:])
    ),
    Code.BAD_SHARE: share_of_another,
    Code.UNSOUND_SHARES: shares_of_nobody_knows_what,
    Code.BAD_SURVIVORS: lambda: sends(cohort := before(Trip.UNMASK), 0, changed(cohort.mail[0], 0)),
    Code.BAD_DUMP: lambda: ClientShare.load(semi_honest(), bytes(200)),
    Code.SECOND_MESSAGE: lambda: twice(0),
    Code.STRANGER: lambda: twice(4),
}
MORE = [  # the same code where another check ends in it
    (Code.OTHER_SUITE, lambda: sends(cohort := before(Trip.ENCAPSULATE, hybrid), 0, flipped(cohort.mail[0], 3))),
    (Code.BAD_KEY, lambda: sends(cohort := before(Trip.ENCAPSULATE, hybrid), 0, changed(cohort.mail[0], -1))),
    (Code.BAD_INBOX, lambda: sends(cohort := before(Trip.SHARE, hybrid), 0, changed(cohort.mail[0], 0))),
    (Code.SECOND_MESSAGE, stolen_slot),
    (Code.SPENT, lambda: before(Trip.MASK).prepared.next_round(2, bytes(32))),
]


def test_every_code_has_a_scenario():
    assert list(SCENARIOS) == list(Code)


@pytest.mark.parametrize("code", Code, ids=lambda code: code.value)
def test_codes_as_they_happen(code):
    with pytest.raises(ProtocolError) as caught:
        SCENARIOS[code]()
    assert caught.value.code is code


@pytest.mark.parametrize(("code", "scenario"), MORE, ids=[str(number) for number in range(len(MORE))])
def test_codes_of_other_checks(code, scenario):
    with pytest.raises(ProtocolError) as caught:
        scenario()
    assert caught.value.code is code


@pytest.mark.parametrize("trip", [Trip.SHARE, Trip.UNMASK])
def test_a_clients_floors_have_a_code_of_their_own(trip):
    """A cohort or a sum that is too small for one client may be large enough for the others."""
    cohort = Cohort(
        semi_honest(5, threshold=3), floors=replace(LEAST, clients=5 if trip is Trip.SHARE else 2, survivors=5)
    )
    if trip is Trip.UNMASK:
        at(cohort, Trip.MASK)
    cohort.trip(dropping={4})
    with pytest.raises(TooFewSurvivors, match="4 left, 5 needed") as caught:
        cohort.move(0)
    assert caught.value.code is Code.BELOW_FLOOR


def test_codes_of_dumps():
    """Which of a dump's faults it is; a program that was upgraded in the middle of a round sees OTHER_VERSION."""
    params = semi_honest()
    dump = ClientAdvertise(params, 0, floors=LEAST).dump()
    found = {
        Code.OTHER_VERSION: dump[:2] + b"\1" + dump[3:],
        Code.OTHER_SUITE: dump[:3] + b"\2" + dump[4:],
        Code.BAD_DUMP: dump[:-1] + bytes((dump[-1] ^ 1,)),
        Code.MISUSE: None,
    }
    for code, bad in found.items():
        with pytest.raises(MisuseError) as caught:
            load_position(params, bad)
        assert caught.value.code is code
    for load, code in (
        (lambda: ClientShare.load(params, dump), Code.OTHER_KIND),
        (lambda: load_position(semi_honest(number=1), dump), Code.OTHER_SESSION),
    ):
        with pytest.raises(MisuseError) as caught:
            load()
        assert caught.value.code is code


@pytest.mark.parametrize("make", [semi_honest, malicious, hybrid])
def test_texts_and_codes_hold_no_secrets(make):
    """What is told of boxes that do not open, or of shares that are wrong: neither the share nor the place."""
    cohort = before(Trip.MASK, make, threshold=4)
    with pytest.raises(ProtocolError) as opened:
        sends(cohort, 0, changed(cohort.mail[0], -1))
    with pytest.raises(ProtocolError) as wrong:
        share_of_another()
    for caught in (opened, wrong):
        assert not re.search("[0-9a-f]{6}", str(caught.value))
    assert SessionParams.from_bytes(make().to_bytes(), make().identities).clients == len(IDENTITIES[:4])
