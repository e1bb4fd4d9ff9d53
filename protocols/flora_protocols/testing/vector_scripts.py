"""What happens in each good test vector, and the list of all. The bad ones are in `vector_attacks`."""

from __future__ import annotations

from collections.abc import Callable

from flora_protocols.testing import vector_attacks
from flora_protocols.testing.recorder import Recorder
from flora_protocols.testing.vector_attacks import around


def _complete(name: str) -> Recorder:
    return Recorder(name, "everybody stays", clients=4, threshold=3).finish()


def _complete_dropouts(name: str) -> Recorder:
    says = "one client drops in every trip; the ring has 20 bits in lanes of 4 bytes"
    r = Recorder(name, says, clients=7, threshold=3, bits=20)
    r.trip({6}).trip({5}).trip({1}).trip({0})
    r.close()
    return r


def _harary(name: str) -> Recorder:
    r = Recorder(name, "Harary graph, nobody drops; the ring has 8 bits", clients=6, neighbours=4, threshold=2, bits=8)
    return r.finish()


def _harary_dropouts(name: str) -> Recorder:
    says = "Harary graph; one client drops in every trip, 3 are recovered or not needed"
    r = Recorder(name, says, clients=11, neighbours=6, threshold=2, bits=16)
    r.trip({2}).trip({5}).trip({9}).trip({0})
    r.close()
    return r


def _malicious(name: str) -> Recorder:
    says = "signed profile, complete graph, one client drops in MASK, AGREE and UNMASK; the ring has 32 bits"
    r = Recorder(name, says, clients=7, threshold=4, bits=32, malicious=True)
    r.trip().trip().trip({2}).trip({3}).trip({4})
    r.close()
    return r


def _malicious_harary(name: str) -> Recorder:
    says = "signed profile, Harary graph, one client drops in SHARE, one in MASK"
    r = Recorder(name, says, clients=10, neighbours=8, threshold=5, malicious=True, corrupt=1)
    r.trip().trip({7}).trip({1})
    return r.finish()


def _direct(name: str) -> Recorder:
    says = "direct reveal, complete graph; two drop in MASK and one in UNMASK, whose pair keys follow from mask secrets"
    r = Recorder(name, says, clients=7, threshold=3, direct_reveal=True)
    r.trip().trip({6}).trip({1, 4}).trip({3})
    r.close()
    return r


def _direct_harary(name: str) -> Recorder:
    says = "direct reveal, signed profile, Harary graph; one drops in MASK, one in AGREE and one in UNMASK"
    r = Recorder(name, says, clients=10, neighbours=8, threshold=5, malicious=True, corrupt=1, direct_reveal=True)
    r.trip().trip().trip({1}).trip({8}).trip({2})
    r.close()
    return r


def _direct_few(name: str) -> Recorder:
    says = "direct reveal: too few hold shares of a dropped client, but its surviving neighbours tell all pair keys"
    r = Recorder(name, says, clients=12, neighbours=6, threshold=3, direct_reveal=True).trip().trip()
    return r.trip(around(r)).finish()


SCRIPTS: dict[str, Callable[[str], Recorder]] = {
    "good-complete": _complete,
    "good-complete-dropouts": _complete_dropouts,
    "good-harary": _harary,
    "good-harary-dropouts": _harary_dropouts,
    "good-malicious": _malicious,
    "good-malicious-harary": _malicious_harary,
    "good-direct-reveal": _direct,
    "good-direct-reveal-malicious-harary": _direct_harary,
    "good-direct-reveal-few-holders": _direct_few,
    "bad-frames": vector_attacks.bad_frames,
    "bad-roster": vector_attacks.bad_roster,
    "bad-signed-roster": vector_attacks.bad_signed_roster,
    "bad-inbox": vector_attacks.bad_inbox,
    "bad-survivors": vector_attacks.bad_survivors,
    "bad-harary": vector_attacks.bad_harary,
    "bad-agreement": vector_attacks.bad_agreement,
    "bad-clients": vector_attacks.bad_clients,
    "bad-holders": vector_attacks.bad_holders,
    "bad-direct-reveal": vector_attacks.bad_direct,
    "bad-share-of-a-holder": vector_attacks.bad_share_of_a_holder,
    "bad-share-of-somebody": vector_attacks.bad_share_of_somebody,
    "bad-forged-blame": vector_attacks.bad_forged_blame,
    "bad-mask-secret": vector_attacks.bad_mask_secret,
    "bad-mask-secret-of-somebody": vector_attacks.bad_mask_secret_of_somebody,
}
"""File name without its ending -> what happens."""
