"""Secure aggregation: a server learns the sum of its clients' vectors over Z_{2^b}, and nothing else about them.

Bonawitz et al. CCS'17 (SecAgg) and Bell et al. CCS'20 (SecAgg+), in sessions that prepare many rounds at once, without
I/O: positions take bytes and give bytes. `LocalSession` shows whole rounds; `client`, `client_round`, `server`,
`prepared` and `server_round` hold the positions.
"""

from flora_protocols.answering import Answer, answer
from flora_protocols.client import (
    ClientAdvertise,
    ClientDecapsulate,
    ClientEncapsulate,
    ClientShare,
)
from flora_protocols.client_round import ClientAgree, ClientDone, ClientReady, ClientUnmask
from flora_protocols.codec import Bitmap, Kind
from flora_protocols.conduct import Exchange, Replies, conduct, drive, set_up
from flora_protocols.dealing import ClientCollect
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
from flora_protocols.prepared import ServerPrepared
from flora_protocols.recovery import WrongShares
from flora_protocols.ring import from_lanes, lane, pack, packed_bytes, require_headroom, to_lanes, unpack
from flora_protocols.round_params import RoundParams
from flora_protocols.run import Carry, Direction, LocalSession, run_round
from flora_protocols.server import ServerAdvertise, ServerEncapsulate, ServerShare
from flora_protocols.server_position import Outbox
from flora_protocols.server_round import RoundResult, ServerAgree, ServerMask, ServerUnmask
from flora_protocols.sizes import most_bytes, round_bytes, setup_bytes
from flora_protocols.suites import Suite
from flora_protocols.trips import Trip

__all__ = [
    "Answer",
    "Bitmap",
    "Carry",
    "Client",
    "ClientAdvertise",
    "ClientAgree",
    "ClientCollect",
    "ClientDecapsulate",
    "ClientDone",
    "ClientEncapsulate",
    "ClientReady",
    "ClientShare",
    "ClientUnmask",
    "Code",
    "Culprit",
    "Direction",
    "Exchange",
    "Floors",
    "Kind",
    "LocalSession",
    "MisuseError",
    "Outbox",
    "ParameterError",
    "PeerError",
    "Profile",
    "ProtocolError",
    "Randomness",
    "Replies",
    "RoundAborted",
    "RoundParams",
    "RoundResult",
    "ServerAdvertise",
    "ServerAgree",
    "ServerEncapsulate",
    "ServerMask",
    "ServerPrepared",
    "ServerShare",
    "ServerUnmask",
    "SessionParams",
    "Suite",
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
    "most_bytes",
    "pack",
    "packed_bytes",
    "require_headroom",
    "round_bytes",
    "run_round",
    "set_up",
    "setup_bytes",
    "to_lanes",
    "unpack",
]
