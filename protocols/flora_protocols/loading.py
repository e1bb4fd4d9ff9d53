"""A client's position from a dump, whichever it is."""

from __future__ import annotations

from typing import get_args

from flora_protocols.client import (
    ClientAdvertise,
    ClientDecapsulate,
    ClientEncapsulate,
    ClientShare,
)
from flora_protocols.client_round import ClientAgree, ClientDone, ClientReady, ClientUnmask
from flora_protocols.dealing import ClientCollect
from flora_protocols.errors import Code
from flora_protocols.member import opened, position_code, refuse
from flora_protocols.params import SessionParams, require_params

Client = (
    ClientAdvertise
    | ClientShare
    | ClientEncapsulate
    | ClientDecapsulate
    | ClientCollect
    | ClientReady
    | ClientAgree
    | ClientUnmask
    | ClientDone
)
"""Any position of a client's."""

_CLASSES: dict[int, type[Client]] = {cls._CODE: cls for cls in get_args(Client)}


def load_position(params: SessionParams, dump: bytes, *, identity: bytes | None = None) -> Client:
    """The position that `dump` wrote, of the class that wrote it; its `trip` says what comes next.

    Arguments and errors as of `ClientPosition.load`.
    """
    code = position_code(opened(None, require_params(params), dump))
    cls = _CLASSES.get(code)
    if cls is not None:
        return cls.load(params, dump, identity=identity)
    return refuse(None, f"it holds position {code}, which there is not", Code.OTHER_KIND)
