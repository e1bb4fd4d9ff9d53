"""Secure aggregation: a server learns the sum of its clients' vectors over Z_{2^b}, and nothing else about them.

Bonawitz et al. CCS'17 (SecAgg) and Bell et al. CCS'20 (SecAgg+), without I/O: positions take bytes and give bytes.
`run_round` shows a whole round; `client`, `reveal` and `server` hold the positions.
"""

from flora_protocols.answering import Answer, answer
from flora_protocols.client import ClientAdvertise, ClientMask, ClientShare
from flora_protocols.codec import Kind
from flora_protocols.conduct import Exchange, Replies, conduct, drive
from flora_protocols.errors import (
    Code,
    Culprit,
    MisuseError,
    ParameterError,
    PeerError,
    ProtocolError,
    RoundAborted,
    TooFewSurvivors,
    UnsoundShares,
)
from flora_protocols.keys import Randomness, identity_public
from flora_protocols.loading import Client, load_position
from flora_protocols.params import Floors, Profile, SessionParams, check_identities
from flora_protocols.planning import corrupt_holders, find_parameters
from flora_protocols.recovery import WrongShares
from flora_protocols.reveal import ClientAgree, ClientDone, ClientUnmask
from flora_protocols.ring import from_lanes, lane, pack, packed_bytes, require_headroom, to_lanes, unpack
from flora_protocols.run import Carry, Direction, run_round
from flora_protocols.server import (
    Outbox,
    RoundResult,
    ServerAdvertise,
    ServerAgree,
    ServerMask,
    ServerShare,
    ServerUnmask,
)
from flora_protocols.sizes import message_bytes
from flora_protocols.trips import Trip

__all__ = [
    "Answer",
    "Carry",
    "Client",
    "ClientAdvertise",
    "ClientAgree",
    "ClientDone",
    "ClientMask",
    "ClientShare",
    "ClientUnmask",
    "Code",
    "Culprit",
    "Direction",
    "Exchange",
    "Floors",
    "Kind",
    "MisuseError",
    "Outbox",
    "ParameterError",
    "PeerError",
    "Profile",
    "ProtocolError",
    "Randomness",
    "Replies",
    "RoundAborted",
    "RoundResult",
    "ServerAdvertise",
    "ServerAgree",
    "ServerMask",
    "ServerShare",
    "ServerUnmask",
    "SessionParams",
    "TooFewSurvivors",
    "Trip",
    "UnsoundShares",
    "WrongShares",
    "answer",
    "check_identities",
    "conduct",
    "corrupt_holders",
    "drive",
    "find_parameters",
    "from_lanes",
    "identity_public",
    "lane",
    "load_position",
    "message_bytes",
    "pack",
    "packed_bytes",
    "require_headroom",
    "run_round",
    "to_lanes",
    "unpack",
]
