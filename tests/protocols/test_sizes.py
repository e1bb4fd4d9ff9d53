"""The sizes that are promised are the sizes that are sent."""

from collections import defaultdict

import numpy as np
import pytest
from cohorts import IDENTITIES, LEAST

from flora_protocols import Direction, Kind, Profile, SessionParams, Trip, identity_public, message_bytes, run_round
from flora_protocols.codec import OVERHEAD

KINDS = {
    (Trip.ADVERTISE, Direction.UP): Kind.ADVERTISEMENT,
    (Trip.ADVERTISE, Direction.DOWN): Kind.ROSTER,
    (Trip.SHARE, Direction.UP): Kind.SHARES,
    (Trip.SHARE, Direction.DOWN): Kind.INBOX,
    (Trip.MASK, Direction.UP): Kind.UPLOAD,
    (Trip.MASK, Direction.DOWN): Kind.SURVIVORS,
    (Trip.AGREE, Direction.UP): Kind.ENDORSEMENT,
    (Trip.AGREE, Direction.DOWN): Kind.AGREEMENT,
    (Trip.UNMASK, Direction.UP): Kind.REVEAL,
}


@pytest.mark.parametrize("neighbours", [4, 8])
@pytest.mark.parametrize("profile", list(Profile))
@pytest.mark.parametrize("direct", [False, True])
def test_sizes_are_those_of_a_real_round(neighbours, profile, direct) -> None:
    clients, dropped = 9, (2,)
    malicious = profile is Profile.MALICIOUS_SERVER
    identities = IDENTITIES[:clients] if malicious else ()
    params = SessionParams(
        clients=clients,
        neighbours=neighbours,
        threshold=5 if neighbours == 8 else 3,
        bits=9,
        dimension=21,
        profile=profile,
        direct_reveal=direct,
        identities=tuple(identity_public(key) for key in identities),
    )
    sent = defaultdict(list)
    run_round(
        params,
        [np.zeros(21, np.uint32)] * clients,
        floors=LEAST,
        dropouts={Trip.MASK: dropped},
        identities=identities or None,
        carry=lambda trip, client, direction, message: sent[KINDS[trip, direction]].append(len(message)),
    )
    near = sum(2 in params.graph.members(i) for i in range(clients) if i != 2)
    expected = message_bytes(params, near / (clients - 1))
    assert sent.keys() == expected.keys()
    for kind, sizes in sent.items():
        assert np.mean(sizes) == pytest.approx(expected[kind])
        assert min(sizes) >= OVERHEAD
