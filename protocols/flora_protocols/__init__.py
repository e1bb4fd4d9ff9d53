"""Secure aggregation: a server learns the sum of its clients' vectors over Z_{2^b}, and nothing else about them.

Bonawitz et al. CCS'17 (SecAgg) and Bell et al. CCS'20 (SecAgg+), without I/O: positions take bytes and give bytes.
``run_round`` shows a whole round; ``client``, ``reveal`` and ``server`` hold the positions.
"""

from .client import ClientAdvertise, ClientMask, ClientShare
from .codec import Kind
from .errors import Culprit, MisuseError, ParameterError, PeerError, ProtocolError, TooFewSurvivors
from .keys import Randomness, identity_public
from .params import Floors, Profile, SessionParams, Trip
from .planning import corrupt_holders, find_parameters
from .reveal import ClientAgree, ClientDone, ClientUnmask
from .ring import from_lanes, lane, pack, packed_bytes, require_headroom, to_lanes, unpack
from .run import Carry, Direction, run_round
from .server import (
    Outbox,
    RoundResult,
    ServerAdvertise,
    ServerAgree,
    ServerMask,
    ServerShare,
    ServerUnmask,
)
from .sizes import message_bytes

__all__ = [
    "Carry",
    "ClientAdvertise",
    "ClientAgree",
    "ClientDone",
    "ClientMask",
    "ClientShare",
    "ClientUnmask",
    "Culprit",
    "Direction",
    "Floors",
    "Kind",
    "MisuseError",
    "Outbox",
    "ParameterError",
    "PeerError",
    "Profile",
    "ProtocolError",
    "Randomness",
    "RoundResult",
    "ServerAdvertise",
    "ServerAgree",
    "ServerMask",
    "ServerShare",
    "ServerUnmask",
    "SessionParams",
    "TooFewSurvivors",
    "Trip",
    "corrupt_holders",
    "find_parameters",
    "from_lanes",
    "identity_public",
    "lane",
    "message_bytes",
    "pack",
    "packed_bytes",
    "require_headroom",
    "run_round",
    "to_lanes",
    "unpack",
]
