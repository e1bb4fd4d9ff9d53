"""flora_protocols, as `replay` wants an implementation. A step that was made before is tried on the position that made
it."""

from __future__ import annotations

import numpy as np
from secagg import Refused

import flora_protocols as ours


class Library:
    def client(self, vector, index):
        return LibraryClient(vector, index)

    def server(self, vector):
        return LibraryServer(vector)


def params_of(vector):
    fields = dict(vector["params"])
    fields["profile"] = ours.Profile(fields["profile"])
    fields["suite"] = ours.Suite(fields["suite"])
    fields["identities"] = tuple(bytes.fromhex(key) for key in fields["identities"])
    return ours.SessionParams(**fields)


def translated(act):
    try:
        return act()
    except ours.PeerError as error:
        raise Refused(None, "peer", error.culprit) from None
    except ours.TooFewSurvivors:
        raise Refused(None, "too few") from None
    except ours.UnsoundShares:
        raise Refused(None, "unsound") from None
    except ours.ParameterError:
        raise Refused(None, "parameters") from None
    except ours.MisuseError:
        raise Refused(None, "misuse") from None


class LibraryClient:
    def __init__(self, vector, index):
        identity = bytes.fromhex(vector["identity_keys"][index]) if vector["identity_keys"] else None
        floors = ours.Floors(**vector["floors"] | {"suite": ours.Suite(vector["floors"]["suite"])})
        self.params = params_of(vector)
        first = translated(lambda: ours.ClientAdvertise(self.params, index, floors=floors, identity=identity))
        self.positions, self.session = [first], b""

    def step(self, do, *arguments):
        return translated(lambda: self._step(do, *arguments))

    def _step(self, do, *arguments):
        position = next((position for position in reversed(self.positions) if hasattr(position, do)), None)
        if position is None:
            raise Refused(None, "misuse")
        if do == "mask":
            start = ours.RoundParams.from_bytes(self.params, self.session, arguments[0])
            arguments = (start, np.array(arguments[1], np.uint32))
        after = getattr(position, do)(*arguments)
        after, message = after if isinstance(after, tuple) else (after, None)
        self.positions.append(after)
        if isinstance(after, ours.ClientCollect):
            self.session = after.session
        return message


class LibraryServer:
    def __init__(self, vector):
        self.position = translated(lambda: ours.ServerAdvertise(params_of(vector)))

    def step(self, do, *arguments):
        return translated(lambda: getattr(self, do)(*arguments))

    def begin(self, message):
        params, session = self.prepared.params, self.prepared.session
        self.position = self.prepared.begin(ours.RoundParams.from_bytes(params, session, message))

    def receive(self, client, message):
        self.position.receive(client, message)

    def close(self):
        result = self.position.close()
        if isinstance(result, ours.RoundResult):
            assert not result.refused  # a matter of `conduct`, which is no part of the vectors
            assert not result.left
            told = {name: getattr(result, name) for name in ("survivors", "dropped", "recovered")}
            return told | {"sum": result.sum.tolist()}
        self.position, outbox = result
        if isinstance(self.position, ours.ServerPrepared):
            self.prepared = self.position
        return outbox
