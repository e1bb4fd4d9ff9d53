"""What would break a session of prepared slots, played to the end: a slot used twice, an upload that comes after its
opener, two stories in a slot, rosters told twice, openers tried elsewhere, blobs and commitments that lie."""

from pathlib import Path

import numpy as np
import pytest
from attacker import body_of, reframed
from cohorts import IDENTITIES, LEAST, MODEL, Cohort, duplicate, hybrid, malicious, plain_sum, semi_honest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from faulty import Faulty

from flora_protocols import (
    ClientEncapsulate,
    ClientReady,
    ClientShare,
    ClientUnmask,
    Code,
    MisuseError,
    PeerError,
    RoundAborted,
    RoundParams,
    TooFewSurvivors,
    Trip,
    UnsoundShares,
    answer,
    keys,
    load_position,
    round_messages,
    shamir,
)
from flora_protocols.dealing import ClientCollect
from flora_protocols.keystream import masked_tiles
from flora_protocols.ring import from_lanes, lane
from flora_protocols.setup_messages import decode_shares
from flora_protocols.slots import blob_stream

kinds = pytest.mark.parametrize("make", [semi_honest, malicious, hybrid])
SPEC = (Path(__file__).parents[2] / "protocols/SPEC.md").read_text(encoding="utf-8")
profiles = pytest.mark.parametrize("make", [semi_honest, malicious])


def ready(params, floors=LEAST):
    """A session that is set up, its first round begun, nobody moved. `inboxes`: what goes with each START."""
    cohort = Cohort(params, floors)
    while cohort.prepared is None:
        cohort.trip()
    cohort.inboxes = cohort.mail
    return cohort


def next_sum(cohort):
    """The survivors of another round, in which nobody drops out; its sum is right."""
    cohort.again().mail |= cohort.inboxes
    return cohort.finish().survivors


def identity_of(params, index):
    return IDENTITIES[index] if params.malicious else None


def reconstructed(shares, threshold):
    """The secret of 16 bytes that shares, by holder, give."""
    chosen = sorted(shares)[:threshold]
    raw = np.frombuffer(b"".join(shares[holder] for holder in chosen), np.uint8).reshape(1, 1, threshold, shamir.SHARE)
    secret, sound = shamir.combine(np.array([chosen], np.int64) + 1, raw, threshold)
    assert sound.all()
    return secret.tobytes()


# A slot used twice


@kinds
def test_a_slot_is_not_retried_under_another_round(make):
    """The attack: of a peer that survived one round of a slot and dropped out of another, a holder would tell its share
    of the seed and of the opener. So the slot stays used when its round is over, was left, or waits in a dump."""
    params = make(slots=2)
    cohort = ready(params)
    again = RoundParams(slot=0, round=9, model_hash=bytes(32), invited=cohort.start.invited)
    cohort.trip()
    uploaded = duplicate(cohort.clients[0])
    cohort.finish()
    over = cohort.clients[0]
    left = uploaded.leave()
    loaded = load_position(params, duplicate(over).dump(), identity=identity_of(params, 0))
    for position in (over, left, loaded):
        assert type(position) is ClientReady
        with pytest.raises(PeerError, match="slot 0 was used, or passed over: slots from 1 on are left") as caught:
            position.mask(again, cohort.vectors[0])
        assert (caught.value.culprit, caught.value.code) == ("server", Code.SECOND_MESSAGE)
        assert not position.spent


@profiles
def test_nor_through_answer(make):
    """Whatever round it is said to be; only another slot, with a higher round, is another round."""
    params = make(slots=3)
    kept = dict.fromkeys(range(4), b"")

    def ask(index, request, kept):
        mine = {"floors": LEAST, "identity": identity_of(params, index), "vector": lambda _: np.zeros(5, np.uint32)}
        return answer(params, index, request, kept, **mine)

    cohort = Cohort(params)
    for _ in range(2):
        for index in range(4):
            kept[index], message, _ = ask(index, cohort.mail[index], kept[index])
            cohort.server.receive(index, message)
        cohort.server, cohort.mail = cohort.server.close()
    prepared = cohort.server
    start = prepared.next_round(4, MODEL)
    frame = start.to_bytes(params, prepared.session)
    kept[0], upload, _ = ask(0, frame + cohort.mail[0], kept[0])
    assert upload[4] == 8
    for number in (3, 4, 5, 1000):
        for slot in (0, 1):
            other = RoundParams(slot=slot, round=number, model_hash=MODEL, invited=start.invited)
            request = other.to_bytes(params, prepared.session)
            if slot == 1 and number > 4:
                assert ask(0, request, kept[0]).reply[4] == 8
            else:
                with pytest.raises(PeerError) as caught:
                    ask(0, request, kept[0])
                assert caught.value.code is Code.SECOND_MESSAGE
    assert ask(0, frame + cohort.mail[0], kept[0]).reply == upload  # the same bytes, and no others


def test_what_is_put_back_answers_twice():
    """Why dumps must never be set back (SPEC.md, 14): a position that is loaded twice tells two stories, and three such
    holders both secrets. No check can see it; a test says so, that nobody may think it otherwise."""
    cohort = ready(semi_honest()).trip()
    seeds, openers = {}, {}
    for index in (0, 1, 2):
        dump = duplicate(cohort.clients[index]).dump()
        for survivors, told in (((0, 1, 2, 3), seeds), ((0, 1, 2), openers)):
            position = load_position(cohort.params, dump)
            message = round_messages.encode_survivors(cohort.params, position._uploaded.scope, survivors)
            told[index] = body_of(position.unmask(message)[1])[3 * 17 : 4 * 17]
    seed = reconstructed(seeds, 3)
    assert keys.commitment(seed, cohort.prepared.session, 3, 0) == commitment(cohort, 3, 0)
    opened = cohort.prepared._deposits.of(3).blobs[0] ^ blob_stream(
        reconstructed(openers, 3), cohort.prepared.session, 3, 0, 3
    )
    tags = [keys.pair_tag(keys.pair_mask(opened[i].tobytes(), scope_of(cohort), 3, i)) for i in (0, 1, 2)]
    assert tags == [cohort.clients[3]._uploaded.tags[i] for i in (0, 1, 2)]


def scope_of(cohort):
    return cohort.start.id(cohort.params, cohort.prepared.session)


def commitment(cohort, index, slot):
    return cohort.prepared._deposits.of(index).commitments[slot].tobytes()


# An upload that comes too late


@kinds
def test_an_upload_after_its_opener_was_revealed(make):
    """The attack: the server lets client 3's upload wait until the others have revealed its opener, which opens its
    blob. All pairwise masks are known then; the vector stays under the self mask, whose seed nobody tells any more."""
    cohort = ready(make(slots=2))
    true_seed = dealt_seed(cohort, 3)
    late = cohort.move_again(3)
    cohort.trip(dropping={3})
    while cohort.server.trip is not Trip.UNMASK:
        cohort.trip()
    cohort.send()
    opener = reconstructed({i: body_of(cohort.sent[i])[3 * 17 : 4 * 17] for i in (0, 1, 2)}, 3)
    prepared, params, scope = cohort.prepared, cohort.params, cohort.server._state.scope
    deposit = prepared._deposits.of(3)
    opened = deposit.blobs[0] ^ blob_stream(opener, prepared.session, 3, 0, 3)
    with pytest.raises(PeerError, match="dropped before"):
        cohort.server.receive(3, late)
    values, _ = round_messages.decode_upload(params, scope, late, 3)
    pairs = [keys.pair_mask(opened[peer].tobytes(), scope, 3, peer) for peer in (0, 1, 2)]
    (bare,) = masked_tiles(values, lane(params.bits), pairs, [])  # client 3 has subtracted them
    self_mask = keys.derive(true_seed, keys.SELF_MASK, scope, 3, 3)
    assert (from_lanes(bare, params.bits) != cohort.vectors[3]).any()
    (naked,) = masked_tiles(from_lanes(bare, params.bits), lane(params.bits), [], [self_mask])
    assert (from_lanes(naked, params.bits) == cohort.vectors[3]).all()  # with the seed it would be bare
    assert all(type(cohort.clients[i]) is ClientReady for i in (0, 1, 2))  # which tell nothing of the slot any more
    result = cohort.result()
    assert (result.survivors, result.recovered) == ((0, 1, 2), (3,))
    assert next_sum(cohort) == (0, 1, 2, 3)


def dealt_seed(cohort, index, slot=0):
    """A client's own seed of a slot, which nobody else knows."""
    client = cohort.clients[index]
    if isinstance(client, ClientCollect):
        return client._seeds[16 * slot : 16 * (slot + 1)]
    return client._slots.seeds[slot - client._slots.first].tobytes()


# Two stories in a slot


def stories(params, parts, corrupt, victim):
    """What comes out where a server tells the honest clients of two `parts` two rounds under one slot, and the
    `corrupt` both: of the victim's seed and of its opener the shares that it gets, by holder. The victim, in the first
    part, survives the first round; in the second it is said to have dropped out."""
    cohort = ready(params)
    rounds = [
        RoundParams(slot=0, round=number, model_hash=bytes((number,)) * 32, invited=cohort.start.invited)
        for number in (1, 2)
    ]
    told = {True: {}, False: {}}
    for client in corrupt:
        position = cohort.clients[client].collect(cohort.mail[client])
        pairs = position._slots.take(0)[0].held.get(victim, b"")
        told[True][client], told[False][client] = pairs[:17], pairs[17:]
        cohort.clients[client] = position
    for story, part in zip(rounds, parts, strict=True):
        heard = sorted({*part, *corrupt})
        alive = story is rounds[0]
        survivors = heard if alive else [client for client in heard if client != victim]
        scope = story.id(params, cohort.prepared.session)
        positions = {}
        for client in part:
            position = cohort.clients[client]
            if isinstance(position, ClientCollect):
                position = position.collect(cohort.mail[client])
            positions[client], _ = position.mask(story, cohort.vectors[client])
        for client, shares in revealed(params, scope, positions, survivors, corrupt, victim).items():
            told[alive][client] = shares
    return told[True], told[False]


def revealed(params, scope, positions, survivors, corrupt, victim):
    """The victim's shares that clients in these positions tell, by holder, if told these survivors."""
    frame = round_messages.encode_survivors(params, scope, survivors)
    text, signatures, out = round_messages.endorsed_text(params, scope, survivors), {}, {}
    if params.malicious:
        for client in corrupt:
            signatures[client] = keys.sign(IDENTITIES[client], keys.SURVIVORS, text)
        for client, position in positions.items():
            try:
                positions[client], message = position.agree(frame)
            except REFUSALS:
                continue
            signatures[client] = body_of(message)
    for client, position in positions.items():
        message = frame
        if not isinstance(position, ClientUnmask):
            continue
        if params.malicious:
            others = {signer: sign for signer, sign in signatures.items() if signer != client}
            message = round_messages.encode_agreement(params, scope, params.graph.members(client), others)
        owners = sorted(position._uploaded.held)
        try:
            _, message = position.unmask(message)
        except REFUSALS:
            continue
        out[client] = body_of(message)[17 * owners.index(victim) :][:17]
    return out


REFUSALS = (PeerError, TooFewSurvivors, MisuseError)


def halves(honest, victim):
    """All ways to part them, the victim in the first part."""
    others = [client for client in honest if client != victim]
    for mask in range(1 << len(others)):
        first = {victim} | {client for at, client in enumerate(others) if mask >> at & 1}
        yield first, set(honest) - first


def test_two_stories_lay_open_no_two_secrets():
    """Malicious server, two corrupt holders of seven, t = 5, so that 2t > holders + corrupt: however it parts the
    others, it never has t shares of both secrets of the victim. With t below that bound the parameters are refused."""
    params = malicious(7, threshold=5, corrupt=2)
    found = [stories(params, parts, {5, 6}, 0) for parts in halves(range(5), 0)]
    assert all(min(len(seeds), len(openers)) < 5 for seeds, openers in found)
    assert {len(seeds) >= 5 for seeds, _ in found} == {len(openers) >= 5 for _, openers in found} == {True, False}
    with pytest.raises(MisuseError, match="two stories"):
        malicious(7, threshold=4, corrupt=2)


def test_a_lying_server_breaks_the_semi_honest_profile_which_says_so():
    """The same, played there: two stories lay open both secrets, and with them the victim's vector. That is what the
    other profile is for (SPEC.md, 14)."""
    params = semi_honest(7, threshold=3)
    seeds, openers = stories(params, ({0, 1, 2}, {3, 4, 5, 6}), set(), 0)
    assert (len(seeds), len(openers)) == (3, 4)
    assert reconstructed(seeds, 3) != reconstructed(openers, 3)
    assert "It can break privacy by lying" in SPEC


# Openers and seeds open nothing else


@kinds
def test_an_opener_opens_its_own_slot_only(make):
    """Client 3 drops out of slot 1 of four; server and t - 1 holders pool what they have: its opener of slot 1, and two
    shares of everything. No other blob of it opens, and no other slot's secret is among what they can make."""
    cohort = ready(make(slots=4))
    secrets = cohort.clients[3]
    slot_keys = {peer: secrets._pair_keys[peer] for peer in (0, 1, 2)}
    cohort.begin(slot=1)
    cohort.trip(dropping={3})
    while cohort.server.trip is not Trip.UNMASK:
        cohort.trip()
    cohort.send()
    opener = reconstructed({i: body_of(cohort.sent[i])[3 * 17 : 4 * 17] for i in (0, 1, 2)}, 3)
    prepared, deposit = cohort.prepared, cohort.prepared._deposits.of(3)
    for slot in range(4):
        true = b"".join(slot_keys[peer][16 * slot : 16 * slot + 16] for peer in (0, 1, 2))
        for said in range(4):
            for index in range(4):
                opened = (deposit.blobs[slot] ^ blob_stream(opener, prepared.session, index, said, 3)).tobytes()
                right = (slot, said, index) == (1, 1, 3)
                assert (opened == true) == right
                assert right or not any(opened[at : at + 16] in true for at in (0, 16, 32))
        committed = deposit.commitments[slot].tobytes()
        assert keys.commitment(opener, prepared.session, 3, slot) != committed
    held = {index: cohort.clients[index]._slots.held for index in (0, 1)}  # two of t = 3, of slots 2 and 3
    for at, slot in enumerate((2, 3)):
        for which in (0, 17):
            two = {index: held[index][at, 3, which : which + 17].tobytes() for index in (0, 1)}
            for other in (0, 17):
                forged = {**two, 2: held[0][1 - at, 3, other : other + 17].tobytes()}
                try:
                    guess = reconstructed(forged, 3)
                except AssertionError:  # a limb of 2^16: no secret at all
                    continue
                assert keys.commitment(guess, prepared.session, 3, slot) != deposit.commitments[slot].tobytes()
    cohort.result()
    assert next_sum(cohort) == (0, 1, 2, 3)


def test_what_clients_prepare_never_repeats():
    """Seeds, openers, slot keys, commitments, blobs and their streams: of all clients and slots no two are equal."""
    cohort = ready(semi_honest(slots=8))
    seen = []
    for index, client in cohort.clients.items():
        position = client.collect(cohort.mail[index])
        slots = position._slots
        seen += [seed.tobytes() for seed in slots.seeds]
        deposit = cohort.prepared._deposits.of(index)
        seen += [row.tobytes() for row in deposit.commitments]
        seen += [key.tobytes() for blob in deposit.blobs for key in blob]
        seen += [
            key.tobytes()
            for of_slot in slots.pair_keys
            for peer, key in zip(slots.peers, of_slot, strict=True)
            if peer > index
        ]
    assert len(set(seen)) == len(seen) == 4 * 8 * 2 + 4 * 3 * 8 + 6 * 8


# A roster told twice


HARARY = {"clients": 6, "neighbours": 4, "threshold": 3}


def shared_twice(change):
    """A Harary cohort that has advertised, and what one client shares if it is told its roster, and one that `change`
    has made of it; the client's dump was loaded twice."""
    cohort = Cohort(semi_honest(**HARARY, slots=3)).trip()
    dump = duplicate(cohort.clients[0]).dump()
    told = []
    for roster in (cohort.mail[0], change(cohort, cohort.mail[0])):
        position = ClientShare.load(cohort.params, dump)
        told.append(position.share(roster))
    return cohort.params, told


def test_the_same_roster_twice_gives_the_same_bytes():
    """As after a crash: nothing is told twice in two ways."""
    _, ((first, one), (second, two)) = shared_twice(lambda cohort, roster: roster)
    assert one == two
    assert duplicate(first).dump() == duplicate(second).dump()


@pytest.mark.parametrize("place", range(1, 5))
def test_another_roster_under_the_same_claimed_hash_repeats_nothing(place):
    """The attack: the server tells another key of one neighbour, and claims the same hash of all entries, so that the
    session id stays. Seeds, openers and the streams of blobs are others altogether; what is sealed for those whose keys
    stayed shows no more than that it differs."""

    def change(cohort, roster):
        body, own = body_of(roster), cohort.clients[0]._advertisement.channel
        entries = [body[33 + 32 * at : 65 + 32 * at] for at in range(5)]
        wrong = [at for at, entry in enumerate(entries) if entry != own][place - 1]
        entries[wrong] = OTHER
        return reframed(roster, body[:33] + b"".join(entries))

    params, ((first, one), (second, two)) = shared_twice(change)
    assert first.session == second.session
    peers = [peer for peer in params.graph.members(0) if peer != 0]
    derivers, victim = params.graph.derivers(0, 3), peers[place - 1]
    parsed = [decode_shares(params, first.session, message, 0, 4, 4 - len(derivers)) for message in (one, two)]
    assert not (parsed[0].commitments == parsed[1].commitments).all(-1).any()
    difference = parsed[0].blobs ^ parsed[1].blobs
    for at, peer in enumerate(peers):
        assert difference[:, at].any(-1).all()  # the keys of all but the victim are equal: so the streams differ
        if peer in derivers:
            assert (parsed[0].tags[at] == parsed[1].tags[at]).all() == (peer != victim)
        else:
            assert (parsed[0].tags[at] != parsed[1].tags[at]).any()
    assert (parsed[0].sealed != parsed[1].sealed).any(-1).all()
    seeds = [position._seeds for position in (first, second)]
    assert not {seeds[0][at : at + 16] for at in range(0, 48, 16)} & {seeds[1][at : at + 16] for at in range(0, 48, 16)}


def test_ciphertexts_made_twice_give_other_secrets_altogether():
    """Hybrid: a dump that was loaded twice makes other ciphertexts each time, so other slot keys. With one roster and
    one delivery told to both, their blobs must not be masked with one stream: the server could add them."""
    cohort = Cohort(hybrid(slots=3)).trip()
    dump = duplicate(cohort.clients[0]).dump()
    made = [ClientEncapsulate.load(cohort.params, dump).encapsulate(cohort.mail[0])[0] for _ in range(2)]
    cohort.trip()
    dealt = [position.share(cohort.mail[0]) for position in made]
    seeds = [{after._seeds[at : at + 16] for at in (0, 16, 32)} for after, _ in dealt]
    assert not seeds[0] & seeds[1]
    blobs = [decode_shares(cohort.params, after.session, message, 0, 3, 1).blobs for after, message in dealt]
    keys_of = [
        np.frombuffer(b"".join(after._pair_keys.values()), np.uint8).reshape(3, 3, 16).swapaxes(0, 1)
        for after, _ in dealt
    ]
    streams = [blob ^ of for blob, of in zip(blobs, keys_of, strict=True)]
    assert (streams[0] != streams[1]).any(-1).all()


OTHER = X25519PrivateKey.from_private_bytes(bytes(range(32))).public_key().public_bytes_raw()


# Blobs and commitments that lie


def test_a_blob_that_is_wrong_for_few_names_nobody():
    """Who knows whether the owner left another key, or the neighbour tells a wrong tag? The round ends, and the text
    says of which pair. Where the owner stays, its blob is not needed."""
    for corrupt, wrong, named in ((0, 1, False), (0, 2, True), (2, 2, False), (2, 3, True)):
        faulty = Faulty(semi_honest(9, threshold=5, corrupt=corrupt, slots=3), {5: (Trip.SHARE, "other blobs")})
        faulty.wrong_blobs = wrong
        faulty.prepare()
        assert faulty.round({}).survivors == tuple(range(9))
        with pytest.raises(RoundAborted) as caught:
            faulty.round({5: (Trip.MASK, "silence")})
        cause = caught.value.cause
        assert caught.value.announced
        assert caught.value.refused == {}
        if named:
            assert (type(cause), cause.culprit, cause.code) == (PeerError, 5, Code.BAD_SHARE)
            continue
        assert isinstance(cause, UnsoundShares)
        assert cause.owner == 5
        assert "without the key of the mask with client 0, or so that one says" in str(cause)


@kinds
def test_a_wrong_tag_of_one_survivor_names_nobody(make):
    """Nor is the sum given out: whether it is right nobody can say."""
    cohort = ready(make(6, threshold=4, slots=2))
    cohort.trip(dropping={2})
    while cohort.server.trip is not Trip.UNMASK:
        cohort.trip()
    for index in (0, 1, 3, 4, 5):
        cohort.clients[index], message = cohort.move(index)
        if index == 4:
            body = body_of(message)
            message = reframed(message, body[:-1] + bytes((body[-1] ^ 1,)))
        cohort.server.receive(index, message)
    with pytest.raises(UnsoundShares, match="without the key of the mask with client 4") as caught:
        cohort.server.close()
    assert caught.value.owner == 2
    cohort.server.set_aside(4)  # if the application has another reason not to believe it
    assert cohort.result().recovered == (2,)
    assert next_sum(cohort) == tuple(range(6))


@profiles
@pytest.mark.parametrize(("silent", "corrupt", "named"), [(0, 0, True), (3, 0, True), (4, 0, False), (2, 3, False)])
def test_a_seed_that_is_not_the_one_of_the_commitment(make, silent, corrupt, named):
    """The owner is named only where holders cannot have forged the seed. In no case a wrong sum; and in another slot,
    of which it told the truth, it is in the sum."""
    params = make(9, threshold=5, corrupt=corrupt, slots=2) if make is semi_honest or corrupt == 0 else None
    if params is None:
        params = make(9, threshold=7, corrupt=2, slots=2)
        silent, named = 1, False
    cohort = Cohort(params).trip()
    moved = {index: cohort.move(index) for index in cohort.clients}
    for index, (cohort.clients[index], message) in moved.items():
        if index == 3:
            body = bytearray(body_of(message))
            body[-17] ^= 1  # of the commitment of slot 0, before that of slot 1
            message = reframed(message, bytes(body))
        cohort.server.receive(index, message)
    cohort.server, cohort.mail = cohort.server.close()
    cohort.prepared = cohort.server
    cohort.begin()
    while cohort.server.trip is not Trip.UNMASK:
        cohort.trip()
    cohort.send(dropping=range(9 - silent, 9))
    with pytest.raises(PeerError if named else UnsoundShares, match="client 3") as caught:
        cohort.server.close()
    if named:
        assert (caught.value.culprit, caught.value.code) == (3, Code.BAD_SHARE)
    assert cohort.again().finish().survivors == tuple(range(9))


# Rounds that end


@kinds
def test_a_round_that_ends_after_its_survivors_were_announced(make):
    """It counts as released, with them in it; its slot is used, and the session goes on with all of them."""
    faulty = Faulty(make(9, threshold=5, slots=3)).prepare()
    with pytest.raises(RoundAborted) as caught:
        faulty.round(dict.fromkeys(range(5), (Trip.UNMASK, "silence")) | {8: (Trip.MASK, "silence")})
    assert caught.value.announced
    assert caught.value.survivors == tuple(range(8))
    assert faulty.prepared.next_slot == 1
    with pytest.raises(RoundAborted) as caught:
        faulty.round(dict.fromkeys(range(5), (Trip.MASK, "silence")))
    assert (caught.value.announced, caught.value.survivors) == (False, ())
    assert faulty.prepared.next_slot == 2
    result = faulty.round({})
    assert result.survivors == tuple(range(9))
    assert (result.sum == plain_sum(faulty.params, faulty.vectors, range(9))).all()
