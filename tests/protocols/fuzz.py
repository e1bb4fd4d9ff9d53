"""Fuzzes every decoder of both sides: messages, frames, dumps. Run by hand; pytest replays what it found.

    python tests/protocols/fuzz.py --minutes 60

It is guided by coverage if atheris is installed (`pip install atheris`), and by new outcomes otherwise. An outcome is
a decoder, and the error's text without its numbers, or that the message was taken. The shortest input that leads to
each outcome goes to `fuzz_corpus.json`, beside this file, which `test_fuzz_corpus.py` replays. What must hold for
every input is in `decoders.py`; memory is measured one time in 64.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path

CORPUS = Path(__file__).with_name("fuzz_corpus.json")
SECONDS_BETWEEN_WRITES = 20


class Collector:
    """Runs inputs; keeps the shortest one for each outcome."""

    def __init__(self, decoders):
        self.decoders, self.runs, self.found, self.worst = decoders, 0, {}, 0
        self.started = self.written = time.monotonic()

    def one(self, data):
        """Whether the outcome is new, or the input shorter than those before."""
        if len(data) < 2:
            return False
        self.runs += 1
        try:
            outcome, peak = self.decoders.run(data, measure=self.runs % 64 == 0)
        except BaseException:
            print(f"found with the input {bytes(data).hex()}", file=sys.stderr, flush=True)
            raise
        self.worst = max(self.worst, peak)
        better = outcome not in self.found or len(data) < len(self.found[outcome])
        if better:
            self.found[outcome] = bytes(data)
            if time.monotonic() - self.written > SECONDS_BETWEEN_WRITES:
                self.write()
        return better

    def minutes(self):
        return (time.monotonic() - self.started) / 60

    def write(self):
        self.written = time.monotonic()
        cases = {outcome: data.hex() for outcome, data in sorted(self.found.items())}
        CORPUS.write_text(json.dumps(cases, indent=0) + "\n", encoding="utf-8")

    def report(self):
        self.write()
        print(
            f"{self.runs} executions in {self.minutes():.1f} minutes, {len(self.found)} outcomes, "
            f"at most {self.worst} bytes allocated to refuse a message",
            flush=True,
        )


def mutated(data, rng):
    """One step away: a byte changed, a piece cut, repeated or made up."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at, kind = rng.randrange(len(out) + 1), rng.randrange(5)
        if kind == 0 and at < len(out):
            out[at] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
        elif kind == 1:
            del out[at : at + rng.choice((1, 2, 3, 16, 17, 32, 50, 64))]
        elif kind == 2:
            out[at:at] = rng.randbytes(rng.choice((1, 2, 3, 6, 32)))
        elif kind == 3:
            out[at:at] = out[at : at + rng.choice((3, 17, 32, 50, 64))]
        elif at < len(out):
            out[at] ^= 1 << rng.randrange(8)
    return bytes(out)


def by_outcome(collector, pool, minutes, seed):
    """Mutates inputs that led to something new."""
    rng = random.Random(seed)
    while collector.minutes() < minutes:
        data = mutated(rng.choice(pool), rng)
        if collector.one(data):
            pool.append(data)
    collector.report()


def by_coverage(atheris, collector, pool, minutes):
    """Does not return: the engine ends the process."""

    def one(data):
        collector.one(data)
        if collector.minutes() > minutes:
            collector.report()
            os._exit(0)

    with tempfile.TemporaryDirectory() as folder:
        for data in pool:
            Path(folder, hashlib.sha256(data).hexdigest()).write_bytes(data)
        atheris.Setup([sys.argv[0], "-max_len=2000", "-timeout=20", folder], one)
        atheris.Fuzz()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--plain", action="store_true", help="do without atheris")
    parser.add_argument("--seed", type=int, default=0, help="of the engine without atheris")
    given = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parents[2] / "protocols"))
    try:
        import atheris
    except ImportError:
        given.plain = True
    if given.plain:
        from decoders import Decoders
    else:
        with atheris.instrument_imports(include=["flora_protocols"]):
            from decoders import Decoders

    collector = Collector(Decoders())
    known = json.loads(CORPUS.read_text(encoding="utf-8")) if CORPUS.exists() else {}
    pool = [*collector.decoders.seeds(), *map(bytes.fromhex, known.values())]
    for data in pool:
        collector.one(data)
    if given.plain:
        by_outcome(collector, pool, given.minutes, given.seed)
    else:
        by_coverage(atheris, collector, pool, given.minutes)


if __name__ == "__main__":
    main()
