"""Attacks that need two sessions, a dishonest dealer, or bytes made up from nothing."""

import contextlib
from dataclasses import replace

import numpy as np
import pytest
from attacker import body_of, reframed
from cohorts import LEAST, Cohort, malicious, plain_sum, semi_honest, vectors_for
from hypothesis import given, settings
from hypothesis import strategies as st

from flora_protocols import (
    ClientAdvertise,
    ParameterError,
    PeerError,
    Profile,
    ProtocolError,
    SessionParams,
    TooFewSurvivors,
    Trip,
    corrupt_holders,
    find_parameters,
    identity_public,
    messages,
    run_round,
    shamir,
)
from flora_protocols.codec import CHECKSUM, HEADER, Bitmap, Kind, encode_frame, encode_subset


def test_clients_with_different_models_never_share_a_sum():
    """The server gives clients 2 and 3 another model, and forges every header so that nobody notices by the id.

    Masks and channels are bound to the model: the halves cannot open one another's shares, and without them each half
    is below t. Nothing was uploaded.
    """
    halves = {i: semi_honest(model_hash=bytes([i // 2]) * 32) for i in range(4)}
    moved = {i: ClientAdvertise(halves[i], i, floors=LEAST).advertise() for i in range(4)}
    template = {i: message for i, (_, message) in moved.items()}
    joined = b"\x0f" + b"".join(body_of(message) for _, message in moved.values())
    rosters = {i: encode_frame(Kind.ROSTER, halves[i].setup_id, joined) for i in range(4)}
    shared = {i: moved[i][0].share(rosters[i]) for i in range(4)}
    assert template[0][5:HEADER] != template[2][5:HEADER]
    boxes = {i: body_of(message) for i, (_, message) in shared.items()}
    size = messages.SEALED
    for_zero = b"\x0f" + b"".join(boxes[i][:size] for i in (1, 2, 3))
    position, own = shared[0]
    vector = np.zeros(5, np.uint32)
    forged = reframed(own[:4] + bytes([Kind.INBOX]) + own[5:], for_zero)
    with pytest.raises(PeerError, match="client 2: sealed shares do not open at client 0"):
        position.mask(forged, vector)
    with pytest.raises(TooFewSurvivors, match="holders that shared: 2 left, 3 needed"):
        position.mask(reframed(forged, b"\x03" + for_zero[1 : 1 + size]), vector)


def test_old_survivors_are_refused():
    """Survivors of an earlier attempt: another id in the header."""
    old = Cohort(semi_honest()).trip().trip().trip(dropping={3}).mail[0]
    cohort = Cohort(semi_honest()).trip().trip().trip()
    with pytest.raises(PeerError, match="another session"):
        cohort.clients[0].unmask(old)
    cohort.finish()


def test_old_agreement_is_refused_whatever_its_header():
    """The signatures of an earlier attempt, whose survivors were the same, under a forged header."""
    old = Cohort(malicious()).trip().trip().trip().trip().mail[0]
    cohort = Cohort(malicious()).trip().trip().trip().trip()
    with pytest.raises(PeerError, match="another session"):
        cohort.clients[0].unmask(old)
    with pytest.raises(PeerError, match="signature does not verify"):
        cohort.clients[0].unmask(reframed(cohort.mail[0], body_of(old)))
    cohort.finish()


def test_threshold_lowered_by_the_server():
    """Openly, below the client's floor; or behind its back, where the client goes on to insist on its own."""
    with pytest.raises(ParameterError, match="threshold is 2, below this client's floor of 3"):
        ClientAdvertise(semi_honest(threshold=2), 0, floors=replace(LEAST, threshold=3))
    cohort, low = Cohort(semi_honest(threshold=3)), Cohort(semi_honest(threshold=2))
    with pytest.raises(PeerError, match="another session"):
        low.server.receive(0, cohort.move_again(0))
    cohort.trip().trip().trip()
    pair = reframed(cohort.mail[0], encode_subset(range(4), (0, 1)))
    with pytest.raises(TooFewSurvivors, match="surviving holders: 2 left, 3 needed"):
        cohort.clients[0].unmask(pair)
    cohort.finish()


def test_a_dealt_share_that_is_not_canonical_is_refused_by_its_recipient(cohort):
    """Client 3 would make client 0 reveal bytes that the server must refuse, with client 0 to blame."""
    cohort.trip().trip()
    truth = cohort.mail[0]
    channel = cohort.clients[0]._channels[3]
    honest = body_of(truth)[-messages.SEALED :]
    for at in (0, shamir.SHARE):
        pair = bytearray(channel.open(honest, 3, 0))
        pair[at], pair[at + 16] = 1, pair[at + 16] | 1
        bad = body_of(truth)[: -messages.SEALED] + channel.seal(bytes(pair), 3, 0)
        with pytest.raises(PeerError, match="not canonically encoded") as caught:
            cohort.clients[0].mask(reframed(truth, bad), cohort.vectors[0])
        assert caught.value.culprit == 3
    cohort.finish()


def test_missing_and_surplus_shares(cohort):
    cohort.trip().trip().trip()
    _, good = cohort.move(0)
    for bad in (body_of(good)[: -shamir.SHARE], body_of(good)[:-1], body_of(good) + bytes(shamir.SHARE), b""):
        with pytest.raises(PeerError) as caught:
            cohort.server.receive(0, reframed(good, bad))
        assert caught.value.culprit == 0
    cohort.server.receive(0, good)


def test_shares_from_a_dropped_client(cohort):
    """It uploads nothing, then comes back to reveal."""
    cohort.trip().trip().trip(dropping={3})
    answer = cohort.move_again(0)
    with pytest.raises(PeerError, match="client 3: is not in trip UNMASK"):
        cohort.server.receive(3, answer)
    cohort.finish()


def test_agreement_is_needed_before_anything_is_revealed():
    """Malicious-server profile: the survivors themselves, in place of an agreement, reveal nothing."""
    cohort = Cohort(malicious()).trip().trip().trip()
    told = cohort.mail[0]
    cohort.trip()
    for bad in (told, encode_frame(Kind.AGREEMENT, cohort.clients[0]._uploaded.session, b"\0")):
        with pytest.raises(ProtocolError):
            cohort.clients[0].unmask(bad)
    cohort.finish()


def secrets_of(position):
    held = vars(position)
    found = [held[name] for name in ("_seed", "_identity") if isinstance(held.get(name), bytes)]
    found += [held["_own"].mask_secret] if "_own" in held else []
    uploaded = held.get("_uploaded")
    found += [*(uploaded.held if uploaded else held.get("_held", {})).values()]
    found += [*(uploaded.pair_keys if uploaded else {}).values()]
    found += [channel.key for channel in held.get("_channels", {}).values()]
    return found


@pytest.mark.parametrize("make", [semi_honest, malicious])
def test_no_secret_in_any_error(make):
    """Every byte of every message that a client takes is flipped, checksum right; what is raised tells no secret."""
    cohort, seen = Cohort(make()), 0
    while type(cohort.server).__name__ != "ServerUnmask":
        cohort.trip()
        truth, secrets = cohort.mail[1], secrets_of(cohort.clients[1])
        for at in range(HEADER, len(truth) - CHECKSUM):
            bad = bytearray(body_of(truth))
            bad[at - HEADER] ^= 1
            cohort.mail = dict(cohort.mail) | {1: reframed(truth, bytes(bad))}
            try:
                cohort.move_again(1)
            except ProtocolError as error:
                seen += 1
                told = f"{error} {error!r} {error.__cause__!r}"
                for secret in secrets:
                    pieces = [secret[i : i + 4] for i in range(0, len(secret), 4)]
                    assert not any(piece.hex() in told or repr(piece)[2:-1] in told for piece in pieces)
        cohort.mail[1] = truth
    assert seen > 200
    cohort.finish()


@settings(max_examples=400)
@given(st.sampled_from(list(Kind)), st.binary(max_size=600), st.sampled_from([semi_honest, malicious]), st.booleans())
def test_every_decoder_takes_anything(kind, body, make, framed):
    """Made-up bodies in right frames, and made-up frames: a ProtocolError or a value, and nothing else is raised."""
    params, ident = make(), bytes(range(32))
    own = messages.Advertisement(bytes(32), bytes(32), b"")
    params_id = kind in (Kind.ADVERTISEMENT, Kind.ROSTER)
    message = encode_frame(kind, params.setup_id if params_id else ident, body) if framed else body
    decode = {
        Kind.ADVERTISEMENT: lambda: messages.decode_advertisement(params, message, 1),
        Kind.ROSTER: lambda: messages.decode_roster(params, message, 1, own),
        Kind.SHARES: lambda: messages.decode_shares(ident, message, 1, 3),
        Kind.INBOX: lambda: messages.decode_inbox(ident, message, 1, range(4)),
        Kind.UPLOAD: lambda: messages.decode_upload(params, ident, message, 1),
        Kind.SURVIVORS: lambda: messages.decode_survivors(params, ident, message),
        Kind.ENDORSEMENT: lambda: (
            params.malicious and messages.decode_endorsement(params, ident, message, 1, b"survivors")
        ),
        Kind.AGREEMENT: lambda: (
            params.malicious and messages.decode_agreement(params, ident, message, 1, Bitmap(b"\x0f"))
        ),
        Kind.REVEAL: lambda: messages.decode_reveal(ident, message, 1, 3, (0, 2) * params.malicious),
    }
    with contextlib.suppress(PeerError):
        decode[kind]()


def test_nothing_is_allocated_for_what_a_message_only_claims():
    """A vector of 2^30 elements is expected (4 GiB), a short message comes: refused by its length."""
    params = semi_honest(bits=32, dimension=2**30)
    message = encode_frame(Kind.UPLOAD, bytes(32), bytes(100))
    with pytest.raises(PeerError, match="truncated: 4294967296 bytes expected, 100 left"):
        messages.decode_upload(params, bytes(32), message, 2)


@pytest.mark.parametrize("profile", Profile)
def test_found_parameters_carry_a_round_with_dropouts(profile):
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
