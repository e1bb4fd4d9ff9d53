"""Runs a vector's script (protocols/SPEC.md, section 13) against any implementation, step by step.

An implementation gives `client(vector, index)` and `server(vector)`: objects with `step(do, *arguments)`, in
which arguments are what the specification says: a message, a vector, a source of randomness, a KEM. They raise
`Refused`.
"""

from __future__ import annotations

from aggregator import Server
from parties import Client
from secagg import Refused


class Source:
    """Gives the randomness of one step, and knows whether all of it was drawn."""

    def __init__(self, raw):
        self.raw = raw

    def __call__(self, size):
        assert size <= len(self.raw), "more randomness is drawn than the vector says"
        part, self.raw = self.raw[:size], self.raw[size:]
        return part


class Kem:
    """Gives what the KEM gave, one key after another."""

    def __init__(self, made):
        self.raw = [(bytes.fromhex(one["secret"]), bytes.fromhex(one["ciphertext"])) for one in made]

    def __call__(self, key):
        assert self.raw, "more ciphertexts are made than the vector says"
        return self.raw.pop(0)


class Reference:
    """The plain implementation."""

    def client(self, vector, index):
        identity = bytes.fromhex(vector["identity_keys"][index]) if vector["identity_keys"] else None
        return Client(vector["params"], index, vector["floors"], identity)

    def server(self, vector):
        return Server(vector["params"])


def replay(vector, implementation, checks=True):
    """Assert that every step gives what the vector says; with `checks`, also the numbers of failed checks."""
    parties = {"server": implementation.server(vector)}
    for index in range(vector["params"]["clients"]):
        parties[index] = implementation.client(vector, index)
    for at, step in enumerate(vector["script"]):
        source = Source(bytes.fromhex(step.get("randomness", "")))
        if step["do"] == "encapsulate":
            source = Kem(step.get("kem", ()))
        arguments = [step["client"]] if step["do"] == "receive" else []
        if "message" in step:
            arguments.append(bytes.fromhex(step["message"]))
        if step["do"] == "mask":
            arguments.append(step["vector"])
        if step["do"] in ("advertise", "encapsulate"):
            arguments.append(source)
        where = f"{vector['name']}, step {at}: {step['do']} at {step['at']}"
        try:
            result = parties[step["at"]].step(step["do"], *arguments)
        except Refused as refused:
            found = {"check": refused.check, "error": refused.error, "culprit": refused.culprit}
            wanted = {"culprit": None} | step.get("refused", {})
            if not checks:
                found["check"] = wanted.get("check")
            assert found == wanted, where
        else:
            assert "refused" not in step, f"{where}: not refused"
            assert in_json(result) == step.get("gives"), where
            assert not source.raw, f"{where}: less randomness is drawn than the vector says"


def in_json(result):
    if isinstance(result, bytes):
        return result.hex()
    if isinstance(result, dict):
        return {str(key): in_json(value) for key, value in result.items()}
    return list(result) if isinstance(result, tuple) else result
