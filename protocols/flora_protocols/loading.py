"""A client's position from a dump, whichever it is."""

from __future__ import annotations

from flora_protocols.client import ClientAdvertise, ClientMask, ClientShare
from flora_protocols.errors import Code
from flora_protocols.member import opened, position_code, refuse
from flora_protocols.params import SessionParams, require_params
from flora_protocols.reveal import ClientAgree, ClientDone, ClientUnmask

Client = ClientAdvertise | ClientShare | ClientMask | ClientAgree | ClientUnmask | ClientDone
"""Any position of a client's."""

_ALL: tuple[type[Client], ...] = (ClientAdvertise, ClientShare, ClientMask, ClientAgree, ClientUnmask, ClientDone)
_CLASSES = {cls._CODE: cls for cls in _ALL}


def load_position(params: SessionParams, dump: bytes, *, identity: bytes | None = None) -> Client:
    """The position that `dump` wrote, of the class that wrote it; its `trip` says what comes next.

    Arguments and errors as of `ClientPosition.load`.
    """
    code = position_code(opened(None, require_params(params), dump))
    cls = _CLASSES.get(code)
    if cls is not None:
        return cls.load(params, dump, identity=identity)
    return refuse(None, f"it holds position {code}, which there is not", Code.OTHER_KIND)
