"""Attacks that need two rounds or sessions, a dishonest dealer, or bytes made up from nothing."""

import contextlib
from dataclasses import replace

import numpy as np
import pytest
from attacker import at, body_of, boxes_of, collected, inbox, reframed, secrets_of, under
from cohorts import LEAST, Cohort, hybrid, malicious, plain_sum, semi_honest, vectors_for
from hypothesis import given, settings
from hypothesis import strategies as st

from flora_protocols import (
    ClientAdvertise,
    ParameterError,
    PeerError,
    Profile,
    ProtocolError,
    RoundParams,
    SessionParams,
    Suite,
    TooFewSurvivors,
    Trip,
    corrupt_holders,
    find_parameters,
    identity_public,
    keys,
    ring,
    round_messages,
    run_round,
    setup_messages,
    shamir,
)
from flora_protocols.codec import CHECKSUM, HEADER, Bitmap, Kind, encode_frame, encode_subset
from flora_protocols.keystream import apply_masks


def signed_hybrid(clients=4, **more):
    return malicious(clients, suite=Suite.X25519_MLKEM768, **more)


makes = pytest.mark.parametrize("make", [semi_honest, malicious, hybrid, signed_hybrid])


def test_clients_with_different_models_never_share_a_sum():
    """The server starts clients 2 and 3 with another model, forges every header, and tells all four that all survived.

    So it learns the seeds of all; what it then has of either half, and of both, is noise: the masks are bound to the
    round, and do not cancel between the halves.
    """
    params = semi_honest(6, threshold=3, bits=16, dimension=400)
    cohort = at(Cohort(params), Trip.MASK)
    starts = {i: replace(cohort.start, model_hash=bytes([i // 3]) * 32) for i in range(6)}
    session = cohort.prepared.session
    scopes = {i: start.id(params, session) for i, start in starts.items()}
    masked, seeds = {}, {}
    for index in range(6):
        client = collected(cohort, index)
        seeds[index] = client._slots.take(0)[0].seed
        cohort.clients[index], upload = client.mask(starts[index], cohort.vectors[index])
        if index > 2:
            with pytest.raises(PeerError, match="another session or round"):
                round_messages.decode_upload(params, scopes[0], upload, index)
        masked[index], _ = round_messages.decode_upload(params, scopes[index], upload, index)
        everybody = round_messages.encode_survivors(params, scopes[index], range(6))
        assert cohort.clients[index].unmask(everybody)[1]
    for part in ((0, 1, 2), (3, 4, 5), range(6)):
        total = sum(masked[i] for i in part).astype(np.uint16)
        apply_masks(total, [], [keys.derive(seeds[i], keys.SELF_MASK, scopes[i], i, i) for i in part])
        off = ring.from_lanes(total, 16) - plain_sum(params, cohort.vectors, part)
        assert len(np.unique(off)) > 350  # noise all over
    alone = Cohort(params)  # the same with one model is the sum
    assert at(alone, Trip.MASK).finish()


def test_old_survivors_are_refused():
    """Survivors of another session, and of an earlier round of this one: another id in the header."""
    old = at(Cohort(semi_honest()), Trip.UNMASK, dropping={3}).mail[0]
    cohort = at(Cohort(semi_honest(slots=2)), Trip.MASK)
    collected(cohort, 3)  # it has its inbox, and does not upload
    earlier = at(cohort, Trip.UNMASK, dropping={3}).mail[0]
    cohort.finish()
    at(cohort.again(), Trip.UNMASK)
    for message in (old, earlier):
        with pytest.raises(PeerError, match="another session or round"):
            cohort.clients[0].unmask(message)
    cohort.finish()


@pytest.mark.parametrize("make", [malicious, signed_hybrid])
def test_old_agreement_is_refused_whatever_its_header(make):
    """The signatures of another session or of the round before, of the same survivors, under a forged header."""
    old = at(Cohort(make()), Trip.UNMASK).mail[0]
    cohort = at(Cohort(make(slots=2)), Trip.UNMASK)
    earlier = cohort.mail[0]
    cohort.finish()
    at(cohort.again(), Trip.UNMASK)
    for message in (old, earlier):
        with pytest.raises(PeerError, match="another session"):
            cohort.clients[0].unmask(message)
        with pytest.raises(PeerError, match="signature does not verify"):
            cohort.clients[0].unmask(under(message, cohort.mail[0]))
    cohort.finish()


def test_threshold_lowered_by_the_server():
    """Openly, below the client's floor; or behind its back, where the client goes on to insist on its own."""
    with pytest.raises(ParameterError, match="threshold is 2, below this client's floor of 3"):
        ClientAdvertise(semi_honest(threshold=2), 0, floors=replace(LEAST, threshold=3))
    cohort, low = Cohort(semi_honest(threshold=3)), Cohort(semi_honest(threshold=2))
    with pytest.raises(PeerError, match="another session"):
        low.server.receive(0, cohort.move_again(0))
    at(cohort, Trip.UNMASK)
    pair = reframed(cohort.mail[0], encode_subset(range(4), (0, 1)))
    with pytest.raises(TooFewSurvivors, match="surviving holders: 2 left, 3 needed"):
        cohort.clients[0].unmask(pair)
    cohort.finish()


@pytest.mark.parametrize("make", [semi_honest, hybrid])
@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_a_dealt_share_that_is_not_canonical_is_complained_of(make, place):
    """Client 2 would make client 3 reveal bytes that the server must refuse, with client 3 to blame. So with the shares
    of every slot, of seeds and of openers."""
    cohort = at(Cohort(make(slots=2)), Trip.MASK)
    boxes, box = boxes_of(cohort, 3), keys.Box(cohort.clients[3]._box_keys[2], cohort.prepared.session)
    pairs = bytearray(box.open(boxes[2], 2, 3))
    first = shamir.SHARE * place
    pairs[first : first + 2], pairs[first + 16] = b"\1\0", pairs[first + 16] | 1  # limb 0 would be 65537
    spoilt = boxes | {2: box.seal(bytes(pairs), 2, 3)}
    cohort.mail = dict(cohort.mail) | {3: inbox(cohort, 3, spoilt.values())}
    assert collected(cohort, 3).unopened == {2}
    at(cohort, Trip.UNMASK)
    assert 2 not in cohort.clients[3]._uploaded.held
    assert len(body_of(cohort.move_again(3))) == 3 * shamir.SHARE
    cohort.finish()
    assert cohort.prepared.complaints == {3: {2}}


def test_missing_and_surplus_shares(cohort):
    at(cohort, Trip.UNMASK)
    _, good = cohort.move(0)
    for bad in (body_of(good)[: -shamir.SHARE], body_of(good)[:-1], body_of(good) + bytes(shamir.SHARE), b""):
        with pytest.raises(PeerError) as caught:
            cohort.server.receive(0, reframed(good, bad))
        assert caught.value.culprit == 0
    cohort.server.receive(0, good)


def test_shares_from_a_dropped_client(cohort):
    """It uploads nothing, then comes back to reveal."""
    at(cohort, Trip.UNMASK, dropping={3})
    answer = cohort.move_again(0)
    with pytest.raises(PeerError, match="client 3: is not in trip UNMASK"):
        cohort.server.receive(3, answer)
    cohort.finish()


@pytest.mark.parametrize("make", [malicious, signed_hybrid])
def test_agreement_is_needed_before_anything_is_revealed(make):
    """Malicious-server profile: the survivors themselves, in place of an agreement, reveal nothing."""
    cohort = at(Cohort(make()), Trip.AGREE)
    told, scope = cohort.mail[0], cohort.clients[0]._uploaded.scope
    at(cohort, Trip.UNMASK)
    for bad in (told, encode_frame(Kind.AGREEMENT, cohort.params.suite, scope, b"\0")):
        with pytest.raises(ProtocolError):
            cohort.clients[0].unmask(bad)
    cohort.finish()


@makes
def test_no_secret_in_any_error(make):
    """Bits of every message that a client takes are flipped, checksum right; what is raised tells no secret."""
    cohort, seen = Cohort(make(threshold=4, slots=2)), 0  # any box that stays closed is one too many
    while type(cohort.server).__name__ != "ServerUnmask":
        cohort.trip()
        truth, secrets = cohort.mail[1], secrets_of(cohort.clients[1])
        told = set()
        places = len(truth) - CHECKSUM - HEADER
        for place in range(0, places, 1 + places // 300):
            bad = bytearray(body_of(truth))
            bad[place] ^= 1
            cohort.mail = dict(cohort.mail) | {1: reframed(truth, bytes(bad))}
            try:
                cohort.move_again(1)
            except ProtocolError as error:
                seen += 1
                told.add(f"{error} {error!r} {error.__cause__!r}")
        cohort.mail[1] = truth
        for secret in secrets:
            pieces = [secret[i : i + 4] for i in range(0, len(secret), 4)]
            for text in told:
                assert not any(piece.hex() in text or repr(piece)[2:-1] in text for piece in pieces)
    assert seen > 60
    cohort.finish()


DECODERS = {
    Kind.ADVERTISEMENT: lambda params, ident, message: setup_messages.decode_advertisement(params, message, 1),
    Kind.ROSTER: lambda params, ident, message: setup_messages.decode_roster(
        params, message, 1, setup_messages.Advertisement(bytes(32), b"", b"")
    ),
    Kind.CIPHERTEXTS: lambda params, ident, message: setup_messages.decode_ciphertexts(params, ident, message, 1, 2),
    Kind.DELIVERY: lambda params, ident, message: setup_messages.decode_delivery(params, ident, message, 1),
    Kind.SHARES: lambda params, ident, message: setup_messages.decode_shares(params, ident, message, 1, 3, 2),
    Kind.INBOX: lambda params, ident, message: setup_messages.decode_inbox(params, ident, message, 1),
    Kind.START: lambda params, ident, message: RoundParams.from_bytes(params, ident, message),
    Kind.UPLOAD: lambda params, ident, message: round_messages.decode_upload(params, ident, message, 1),
    Kind.SURVIVORS: lambda params, ident, message: round_messages.decode_survivors(params, ident, message),
    Kind.ENDORSEMENT: lambda params, ident, message: (
        params.malicious and round_messages.decode_endorsement(params, ident, message, 1, b"survivors")
    ),
    Kind.AGREEMENT: lambda params, ident, message: (
        params.malicious and round_messages.decode_agreement(params, ident, message, 1, Bitmap(b"\x0f"))
    ),
    Kind.REVEAL: lambda params, ident, message: round_messages.decode_reveal(params, ident, message, 1, 3, 2),
}


@settings(max_examples=400)
@given(st.sampled_from(list(Kind)), st.binary(max_size=600), st.data())
def test_every_decoder_takes_anything(kind, body, data):
    """Made-up bodies in right frames, and made-up frames: a PeerError or a value, and nothing else is raised."""
    params = data.draw(st.sampled_from([semi_honest, malicious, hybrid, signed_hybrid]))(slots=2)
    ident = params.setup_id if kind in (Kind.ADVERTISEMENT, Kind.ROSTER) else bytes(range(32))
    message = encode_frame(kind, params.suite, ident, body) if data.draw(st.booleans()) else body
    with contextlib.suppress(PeerError):
        DECODERS[kind](params, ident, message)


def test_every_kind_has_a_decoder_here():
    assert list(DECODERS) == list(Kind)


def test_nothing_is_allocated_for_what_a_message_only_claims():
    """A vector of 2^30 elements is expected (4 GiB), a short message comes: refused by its length."""
    params = semi_honest(bits=32, dimension=2**30)
    message = encode_frame(Kind.UPLOAD, params.suite, bytes(32), bytes(100))
    with pytest.raises(PeerError, match="truncated: 4294967296 bytes expected, 100 left"):
        round_messages.decode_upload(params, bytes(32), message, 2)


@pytest.mark.parametrize("suite", Suite)
@pytest.mark.parametrize("profile", Profile)
def test_found_parameters_carry_a_round_with_dropouts(profile, suite):
    """n = 40 at 5 % corrupt, 10 % dropouts: as many as planned for, spread over two trips."""
    clients = 40
    k, t = find_parameters(clients, 0.05, 0.1, profile)
    assert k < clients - 1
    identities = [bytes([index]) * 32 for index in range(clients)]
    params = SessionParams(
        clients=clients,
        neighbours=k,
        threshold=t,
        bits=12,
        dimension=3,
        profile=profile,
        suite=suite,
        corrupt=corrupt_holders(clients, k, 0.05),
        identities=tuple(map(identity_public, identities)) if profile is Profile.MALICIOUS_SERVER else (),
    )
    vectors = vectors_for(params)
    result = run_round(
        params,
        vectors,
        floors=LEAST,
        dropouts={Trip.MASK: {3, 17}, Trip.UNMASK: {8, 30}},
        identities=identities if params.malicious else None,
    )
    assert result.recovered == (3, 17)
    assert (result.sum == plain_sum(params, vectors, result.survivors)).all()
