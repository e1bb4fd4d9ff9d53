"""What fuzzing found: one input for each outcome of each decoder, each with the same outcome again.

After a change of layouts or of errors' texts, `fuzz.py` writes the corpus again, from the old one.
"""

import json
from pathlib import Path

import pytest
from decoders import Decoders

CORPUS = json.loads(Path(__file__).with_name("fuzz_corpus.json").read_text(encoding="utf-8"))
DECODERS = Decoders()


def test_every_true_message_is_taken():
    """In every mode, unchanged; only the large targets have none."""
    outcomes = [DECODERS.run(data)[0] for data in DECODERS.seeds()]
    assert {outcome for outcome in outcomes if not outcome.startswith("large")} == {
        f"{target.name}: taken" for target in DECODERS.targets if not target.name.startswith("large")
    }


@pytest.mark.parametrize("name", sorted({outcome.partition(": ")[0] for outcome in CORPUS}))
def test_corpus(name):
    """Outcome by outcome; memory and state are checked inside."""
    cases = {outcome: bytes.fromhex(data) for outcome, data in CORPUS.items() if outcome.startswith(f"{name}: ")}
    for data in cases.values():
        DECODERS.run(data)  # what is cached belongs to no message
    assert {DECODERS.run(data, measure=True)[0] for data in cases.values()} == set(cases)


def test_the_corpus_is_not_idle():
    assert len(CORPUS) > 500
    for kind in ("PeerError", "TooFewSurvivors", "MisuseError", "taken"):
        assert any(kind in outcome for outcome in CORPUS)


def test_a_decoder_that_breaks_is_found(monkeypatch):
    """The harness itself: an exception of another kind, a changed state and a large allocation are noticed."""
    name = "complete: ServerMask"
    at = next(number for number, target in enumerate(DECODERS.targets) if target.name == name)
    target = DECODERS.targets[at]
    bad = bytes((at, 1)) + b"short"
    with monkeypatch.context() as patched:
        patched.setattr("flora_protocols.round_messages.decode_upload", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            DECODERS.run(bad)
    truth = type(target.position)._take

    def early(self, client, message):
        self._heard.add(client)
        truth(self, client, message)

    def greedy(self, client, message):
        bytearray(1 << 20)
        truth(self, client, message)

    def credulous(self, client, message):
        self._deposits.uploaded(client, frozenset({0}))
        truth(self, client, message)

    changed = "has changed the server"
    for broken, text in ((early, changed), (credulous, changed), (greedy, "bytes to refuse")):
        with monkeypatch.context() as patched:
            patched.setattr(type(target.position), "_take", broken)
            with pytest.raises(AssertionError, match=text):
                DECODERS.run(bad, measure=True)
