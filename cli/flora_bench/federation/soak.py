"""A federation of three sites over TLS whose processes are killed, whose messages are spoiled, and that must hold.

    python -m flora_bench.federation.soak --rounds 50 --seed 0

Every process dies by kill -9 at a write, a message, an exchange or at any time, and is started again; a site answers
rubbish, an earlier answer or too late; strangers connect. Whatever happens: every round ends in the right sum or says
why it has none, what is in a sum is counted at both sides (a site counts before its upload leaves, and so may count
more), nothing waits beyond its patience, and the server's
memory does not grow. What a run is hit by follows from the seed, its moments from the machine. Exits 1 at a violation.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from flora_bench.federation.parties import DEAD, HOST, SITES, Life
from flora_secure.client.ledger import ClientLedger
from flora_secure.engine.deployed.keys.certificates import Authority
from flora_secure.engine.deployed.keys.credentials import make_federation
from flora_secure.records.durable import PRIVATE
from flora_secure.records.reading import read_unverified

_TRIPS, _SET_UP = 3, 3  # of a round in the malicious-server profile, and of a session's set-up
_START = 30.0  # seconds for a process to start, on a busy machine
_GROWTH = 32 << 20  # bytes that the server may have more in its last round than in a first one
_WRITES = {"site": 5, "server": 9}  # of a round, at each of which a process dies in turn
_MESSAGES = {"site": 7, "server": 8}
_SPOILS = ("die before", "die after", "garbage", "flipped", "earlier", "slow")


@dataclass
class Soaked:
    """What a soak has seen. `violations` is empty where the federation held."""

    rounds: int = 0
    sums: int = 0
    aborted: int = 0
    lost: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    memory: int = 0
    hit: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """What was seen, in lines for people."""
        met = ", ".join(f"{count} × {what}" for what, count in sorted(self.hit.items()))
        return [
            f"{self.rounds} rounds in {self.seconds:.0f} s, the longest {self.slowest:.1f} s: {self.sums} right sums, "
            f"{self.aborted} aborted by name, {self.lost} lost and charged",
            f"hit by {met}",
            f"server's memory at most {self.memory / 1e6:.0f} MB",
            *(f"VIOLATION: {line}" for line in self.violations),
        ]


class _Process:
    """A party over its lives."""

    def __init__(self, soak: Soak, role: str, number: int) -> None:
        self._soak, self.role, self.number = soak, role, number
        self._lives = 0
        self.again = 0.0
        self.over = False
        self._start()

    def _start(self) -> None:
        soak, life = self._soak, self._next()
        self._lives += 1
        log = (soak.folder / f"{self.role}{self.number}.log").open("a")
        command = [sys.executable, "-m", "flora_bench.federation.parties", json.dumps(asdict(life))]
        self.process = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: S603  (this interpreter)
        log.close()
        mean = soak.mean_life * (3 if self.role == "server" else 1)
        self.killed_at = time.monotonic() + soak.dice.expovariate(1 / mean) if soak.may_hit(self.role) else float("inf")

    def _next(self) -> Life:
        """The next life: how it ends goes through writes, messages and times in turn."""
        soak = self._soak
        given: dict[str, Any] = {}
        turn = self._lives + self.number
        if soak.may_hit(self.role):
            kind, place = turn % 3, turn // 3
            if kind == 0:
                given = {"write": 1 + soak.dice.randrange(3 * _WRITES[self.role])}
                soak.found.hit[f"{self.role} dies at a write"] += 1
            elif kind == 1:
                given = {"message": 2 + soak.dice.randrange(3 * _MESSAGES[self.role])}
                what = "dies inside an exchange"
                if self.role == "site":
                    given["spoil"] = what = _SPOILS[place % len(_SPOILS)]
                soak.found.hit[f"{self.role}: {what}"] += 1
        return Life(
            role=self.role,
            number=self.number,
            folder=str(soak.folder),
            port=soak.port,
            rounds=soak.rounds,
            dimension=soak.dimension,
            training=soak.training,
            trip=soak.trip,
            **given,
        )

    def look(self, now: float) -> None:
        """Start it again where it is dead, and kill it where its time has come."""
        code = self.process.poll()
        if code is None:
            if now > self.killed_at:
                self.process.kill()
                self._soak.found.hit[f"{self.role} killed at any time"] += 1
                self.killed_at = float("inf")
        elif code == 0:
            self.over = True
        elif code < 0 or code == DEAD:
            if not self.again:
                self.again = now + self._soak.dice.uniform(0.0, 0.5)
            elif now > self.again:
                self.again = 0.0
                self._start()
        else:
            self._soak.found.violations.append(f"{self.role}{self.number} ended with code {code}: see its log")
            self.over = True


class Soak:
    """One soak in a folder that is empty.

    Args:
        folder: where keys, run, logs and vectors go; secrets of the sites are among them.
        rounds: of the run.
        seed: of what the processes are hit by.
        mean_life: seconds that a process lives on average before it is killed at any time.
        hits: how many lives may end early; None for any number.
    """

    def __init__(
        self, folder: Path, *, rounds: int, seed: int, mean_life: float = 15.0, hits: int | None = None
    ) -> None:
        self.folder, self.rounds, self.mean_life = folder, rounds, mean_life
        self.dimension, self.training, self.trip = 1_000, 4.0, 3.0
        self.dice, self.found = random.Random(seed), Soaked()  # noqa: S311  (what it hits is no secret)
        self._left = hits
        with socket.create_server((HOST, 0)) as listener:
            self.port: int = listener.getsockname()[1]
        make_federation(folder, SITES)
        (folder / "vectors").mkdir()
        self._stranger = _stranger(folder)

    def may_hit(self, role: str) -> bool:
        """Whether one more life may end early."""
        if self._left is None:
            return True
        self._left -= 1
        return self._left >= 0

    @property
    def _bound(self) -> float:
        """Seconds in which a round ends whatever happens, a restart of the server and a new session included."""
        trips = self.training * (2 + 2 * 2) + self.trip * (_SET_UP + _TRIPS)
        return 2 * _START + 2 * trips

    def run(self) -> Soaked:
        """Until the server has ended, or a violation."""
        began = last = time.monotonic()
        processes = [_Process(self, "server", 0), *(_Process(self, "site", number) for number in range(SITES))]
        done, strangers = 0, began
        try:
            while not processes[0].over and not self.found.violations:
                time.sleep(0.05)
                now = time.monotonic()
                for process in processes:
                    process.look(now)
                if now > strangers:
                    self._strange()
                    strangers = now + self.dice.uniform(0.5, 2.0)
                if (count := len(_lines(self.folder / "run" / "rounds.jsonl"))) > done:
                    done, last = count, now
                if now - last > self._bound:
                    self.found.violations.append(f"no round ended for {self._bound:.0f} s after round {done}")
            self.found.seconds = time.monotonic() - began
            end = time.monotonic() + _START
            while time.monotonic() < end and not all(process.over for process in processes):
                time.sleep(0.05)
                for process in processes[1:]:
                    process.look(time.monotonic())
        finally:
            for process in processes:
                with suppress(ProcessLookupError):
                    process.process.kill()
                process.process.wait()
        self._verify()
        return self.found

    def _strange(self) -> None:
        """Somebody connects who is nobody here."""
        kind = self.dice.choice(("noise", "no certificate", "unknown certificate"))
        with suppress(OSError), socket.create_connection((HOST, self.port), 1.0) as plain:
            self.found.hit[f"stranger with {kind}"] += 1
            if kind == "noise":
                plain.sendall(self.dice.randbytes(500))
                return
            context = ssl.create_default_context(cafile=self.folder / "certs" / "ca.crt")
            if kind == "unknown certificate":
                context.load_cert_chain(*self._stranger)
            with context.wrap_socket(plain, server_hostname=HOST) as secured:
                secured.sendall(b"flora-tls\0\1" + self.dice.randbytes(300))

    def _verify(self) -> None:
        """Every promise, from what is on disk."""
        found, wrong = self.found, self.found.violations
        run, breaks = read_unverified(self.folder / "run")
        wrong += [f"{one.where}: {one.what}" for one in breaks]
        records = {record.round: record for record in run.records}
        found.rounds, found.aborted = len(records), sum(record.aborted is not None for record in run.records)
        found.lost = sum(record.lost for record in run.records)
        if sorted(records) != list(range(1, self.rounds + 1)):
            wrong.append(f"{len(records)} of {self.rounds} rounds are in the log")
        ledgers = [
            {given.event.round for given in ClientLedger(self.folder / f"sites/site{number}/state/ledger.jsonl").given}
            for number in range(SITES)
        ]
        for table in _lines(self.folder / "sums"):
            number, survivors = table["round"], table["survivors"]
            found.sums += table["right"]
            if not table["right"]:
                wrong.append(f"round {number}: the sum is not that of {survivors}")
            if number in records and not records[number].released:
                wrong.append(f"round {number} has a sum, and the log counts no release")
            wrong += [
                f"round {number}: site{one}'s own ledger lacks it" for one in survivors if number not in ledgers[one]
            ]
        summed = {table["round"] for table in _lines(self.folder / "sums")}
        for record in run.records:
            if record.round not in summed and record.aborted is None and not record.lost:
                wrong.append(f"round {record.round} has neither sum nor reason")
        noted = _lines(self.folder / "rounds")
        if noted:
            found.slowest, found.memory = max(one["seconds"] for one in noted), max(one["memory"] for one in noted)
            if found.memory > noted[0]["memory"] + _GROWTH:
                wrong.append(f"the server's memory went from {noted[0]['memory']:,} to {found.memory:,} bytes")


def _stranger(folder: Path) -> tuple[Path, Path]:
    """Certificate and key of a client that nobody enrolled, of the federation's own authority."""
    certificate, key = ((folder / "certs" / f"ca.{end}").read_bytes() for end in ("crt", "key"))
    authority = Authority.read(certificate, key)
    pair = authority.client(SITES + 5)
    files = folder / "stranger.pem", folder / "stranger.key"
    files[0].write_bytes(pair.public)
    files[1].touch(PRIVATE)
    files[1].write_bytes(pair.secret)
    return files


def _lines(path: Path) -> list[dict[str, Any]]:
    """Whole lines of JSON; none where there is no file."""
    if not path.exists():
        return []
    whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
    return [json.loads(line) for line in whole.splitlines()]


def main() -> None:
    """Soak as the command line says; exits 1 at a violation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a new folder for logs and all; without it none is kept")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="flora-soak-") as scratch:
        folder = given.keep or Path(scratch) / "soak"
        os.makedirs(folder, mode=0o700)
        found = Soak(folder, rounds=given.rounds, seed=given.seed).run()
    print("\n".join(found.lines()))
    sys.exit(bool(found.violations))


if __name__ == "__main__":
    main()
