"""What a client has used it has forgotten: whoever takes it over later learns nothing of the rounds that are over."""

import pytest
from attacker import at, collected
from cohorts import IDENTITIES, Cohort, duplicate
from test_dumps import COHORTS, cohorts

from flora_protocols import Bitmap, ClientDone, ClientReady, Trip, keys
from flora_protocols.shamir import SHARE

SLOTS = 3


def secrets_of_slots(ready):
    """By slot, all secrets that a client has prepared for it: seed, slot keys, shares of seeds and of openers."""
    found, slots = [], ready._slots
    for number in range(SLOTS):
        slot, slots = slots.take(number)
        seeds, openers = ([pair[part] for pair in slot.held.values()] for part in (slice(SHARE), slice(SHARE, None)))
        found.append({"seed": [slot.seed], "keys": [*slot.pair_keys.values()], "seeds": seeds, "openers": openers})
    return found


def is_in(dump, secrets):
    """Whether any, and whether all of these are in a dump; of a share its 16 bytes."""
    there = [secret[:16] in dump for secret in secrets]
    return any(there), all(there)


def dumped(cohort, index):
    return duplicate(cohort.clients[index]).dump()


@cohorts
@pytest.mark.parametrize("how", ["answers", "leaves after MASK", "is not asked", "is silent"])
def test_a_dump_holds_nothing_of_the_slots_that_are_over(make, how):
    """After every move of every round: nothing of the slots before; of the slot under way, once the vector is masked,
    the shares and no more; all of the slots to come. So it does for who leaves the round or is not invited."""
    cohort = at(Cohort(make(slots=SLOTS)), Trip.MASK)
    for index in cohort.clients:
        collected(cohort, index)
    secrets, everybody = secrets_of_slots(cohort.clients[0]), range(cohort.params.clients)

    def check(first, using=None):
        dump = dumped(cohort, 0)
        for number, kinds in enumerate(secrets):
            for kind, some in kinds.items():
                holds = number >= first or (number == using and kind in ("seeds", "openers"))
                assert is_in(dump, some) == (holds, holds), (number, kind)

    check(0)
    for slot in range(SLOTS):
        away = how != "answers" and slot == 1
        if slot:
            invited = set(everybody) - ({0} if away and how == "is not asked" else set())
            cohort.again(invited=Bitmap.of(len(everybody), invited))
        if away and how in ("is not asked", "is silent"):
            cohort.mail.pop(0)
            cohort.finish()
            check(1)  # it never heard of the slot, so it keeps it until the next one
            continue
        cohort.trip()
        check(slot + 1, slot)
        if away:
            cohort.clients[0] = cohort.clients[0].leave()
            check(slot + 1)
            cohort.mail.pop(0)
        while cohort.server.trip is not Trip.UNMASK:
            cohort.trip()
            if not away:
                check(slot + 1, slot)
        cohort.finish()
        if slot < SLOTS - 1:
            check(slot + 1)
    assert type(cohort.clients[0]) is ClientDone
    assert is_in(dumped(cohort, 0), [some for kinds in secrets for part in kinds.values() for some in part])[0] is False


@cohorts
def test_a_slot_that_is_passed_over_is_forgotten_too(make):
    cohort = at(Cohort(make(slots=SLOTS)), Trip.MASK)
    for index in cohort.clients:
        collected(cohort, index)
    secrets = secrets_of_slots(cohort.clients[0])
    cohort.again(slot=2, round=9)
    cohort.trip()
    dump = dumped(cohort, 0)
    for number in range(2):
        for some in secrets[number].values():
            assert not is_in(dump, some)[0]
    assert is_in(dump, secrets[2]["seeds"])[1]


@cohorts
def test_what_a_session_grows_from_is_forgotten(make):
    """Channel secret, KEM seed and own secret when all is dealt; box keys and derived keys when the inbox is opened."""
    cohort = Cohort(make(slots=SLOTS)).trip()
    own = cohort.clients[0]._own
    assert is_in(dumped(cohort, 0), [part for part in own if part]) == (True, True)
    at(cohort, Trip.MASK)
    dump = dumped(cohort, 0)
    assert not any(part in dump for part in own if part)
    channels = [*cohort.clients[0]._box_keys.values(), *cohort.clients[0]._derived.values()]
    assert is_in(dump, channels)[1]
    ready = collected(cohort, 0)
    assert not is_in(dumped(cohort, 0), channels)[0]
    assert type(ready) is ClientReady


def test_what_is_left_is_no_view_of_what_is_gone():
    """A view of an array keeps the whole of it in memory."""
    cohort = at(Cohort(COHORTS["semi-honest complete"](slots=SLOTS)), Trip.MASK)
    slot, left = collected(cohort, 0)._slots.take(0)
    for part in (left.seeds, left.pair_keys, left.held):
        assert part.base is None
        assert len(part) == SLOTS - 1
    assert all(type(secret) is bytes for secret in (slot.seed, *slot.pair_keys.values(), *slot.held.values()))


@pytest.mark.parametrize("make", [COHORTS["malicious complete"], COHORTS["hybrid malicious Harary"]])
def test_an_identity_is_in_no_dump(make):
    cohort = Cohort(make(slots=2))
    while True:
        dump = dumped(cohort, 0)
        assert IDENTITIES[0] not in dump
        assert keys.sign(IDENTITIES[0], keys.SURVIVORS, b"") not in dump
        if cohort.server.trip is Trip.UNMASK:
            return
        cohort.trip()
