"""What happens in each good test vector, and the list of all. The bad ones are in `vector_attacks` and
`vector_dealers`."""

from __future__ import annotations

from collections.abc import Callable

from flora_protocols.testing import vector_attacks, vector_dealers, vector_rounds
from flora_protocols.testing.recorder import Recorder


def _complete(name: str) -> Recorder:
    return Recorder(name, "everybody stays", clients=4, threshold=3).set_up().finish()


def _complete_dropouts(name: str) -> Recorder:
    says = "one client drops in every trip; the ring has 20 bits in lanes of 4 bytes"
    r = Recorder(name, says, clients=7, threshold=3, bits=20)
    r.trip({6}).trip({5}).trip({1}).trip({0})
    r.close()
    return r


def _harary(name: str) -> Recorder:
    says = "Harary graph, nobody drops; the ring has 8 bits"
    return Recorder(name, says, clients=6, neighbours=4, threshold=2, bits=8).set_up().finish()


def _harary_dropouts(name: str) -> Recorder:
    says = "Harary graph; one client drops in every trip, 3 are recovered or not needed"
    r = Recorder(name, says, clients=11, neighbours=6, threshold=2, bits=16)
    r.trip({2}).trip({5}).trip({9}).trip({0})
    r.close()
    return r


def _slots(name: str) -> Recorder:
    says = "four slots: one is passed over; who drops in MASK, in UNMASK or is not invited comes back in the next round"
    r = Recorder(name, says, clients=5, threshold=3, slots=4, dimension=3).set_up()
    r.trip({1}).trip({2})
    r.close()
    r.begin(round=4, invited={0, 1, 2, 3}).trip().finish()
    return r.begin(slot=3, round=9).trip({0, 3}).finish()


def _harary_slots(name: str) -> Recorder:
    says = "Harary graph, two slots: two drop in the first round, one of them in the next, too; one was never there"
    r = Recorder(name, says, clients=8, neighbours=6, threshold=3, slots=2, dimension=3).trip({7}).trip()
    r.trip({1, 4}).finish()
    return r.begin(round=4).trip({4}).finish()


def _malicious(name: str) -> Recorder:
    says = "signed profile, complete graph, one client drops in MASK, AGREE and UNMASK; the ring has 32 bits"
    r = Recorder(name, says, clients=7, threshold=4, bits=32, malicious=True)
    r.trip().trip().trip({2}).trip({3}).trip({4})
    r.close()
    return r


def _malicious_harary(name: str) -> Recorder:
    says = "signed profile, Harary graph, two slots: one drops in SHARE, one in MASK, one in AGREE, and is back"
    r = Recorder(name, says, clients=9, neighbours=6, threshold=4, malicious=True, corrupt=1, slots=2, dimension=3)
    r.trip().trip({7}).trip().trip({1}).finish()
    return r.begin(round=4).trip({8}).finish()


def _hybrid(name: str) -> Recorder:
    says = "suite 2, complete graph: one drops in ENCAPSULATE, so that fewer deal; one in MASK"
    r = Recorder(name, says, clients=4, threshold=2, hybrid=True).trip().trip({3}).trip()
    return r.trip({1}).finish()


def _hybrid_harary(name: str) -> Recorder:
    return Recorder(name, "suite 2, Harary graph", clients=5, neighbours=2, threshold=2, hybrid=True).set_up().finish()


def _hybrid_malicious(name: str) -> Recorder:
    says = "suite 2, signed profile, complete graph, two slots: one drops in the first round"
    r = Recorder(name, says, clients=3, threshold=2, hybrid=True, malicious=True, slots=2).set_up()
    return r.trip({2}).finish().begin(round=4).finish()


def _hybrid_malicious_harary(name: str) -> Recorder:
    says = "suite 2, signed profile, Harary graph"
    r = Recorder(name, says, clients=4, neighbours=2, threshold=2, hybrid=True, malicious=True)
    return r.set_up().finish()


SCRIPTS: dict[str, Callable[[str], Recorder]] = {
    "good-complete": _complete,
    "good-complete-dropouts": _complete_dropouts,
    "good-harary": _harary,
    "good-harary-dropouts": _harary_dropouts,
    "good-slots": _slots,
    "good-slots-harary": _harary_slots,
    "good-malicious": _malicious,
    "good-malicious-harary": _malicious_harary,
    "good-hybrid": _hybrid,
    "good-hybrid-harary": _hybrid_harary,
    "good-hybrid-malicious": _hybrid_malicious,
    "good-hybrid-malicious-harary": _hybrid_malicious_harary,
    "good-complaint": vector_dealers.good_complaint,
    "bad-frames": vector_attacks.bad_frames,
    "bad-roster": vector_attacks.bad_roster,
    "bad-signed-roster": vector_attacks.bad_signed_roster,
    "bad-kem-keys": vector_attacks.bad_kem_keys,
    "bad-delivery": vector_attacks.bad_delivery,
    "bad-inbox": vector_attacks.bad_inbox,
    "bad-clients": vector_attacks.bad_clients,
    "bad-harary": vector_rounds.bad_harary,
    "bad-start": vector_rounds.bad_start,
    "bad-survivors": vector_rounds.bad_survivors,
    "bad-agreement": vector_rounds.bad_agreement,
    "bad-slots": vector_rounds.bad_slots,
    "bad-holders": vector_rounds.bad_holders,
    "bad-share-of-a-holder": vector_dealers.bad_share_of_a_holder,
    "bad-share-of-somebody": vector_dealers.bad_share_of_somebody,
    "bad-forged-blame": vector_dealers.bad_forged_blame,
    "bad-seed": vector_dealers.bad_seed,
    "bad-blob": vector_dealers.bad_blob,
    "bad-dealer": vector_dealers.bad_dealer,
    "bad-channel": vector_dealers.bad_channel,
}
"""File name without its ending -> what happens."""
