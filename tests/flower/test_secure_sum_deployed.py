"""Secure sums over Flower's own programs: TLS, authenticated nodes, a process a message, a node that is killed."""

import json

import pytest

pytest.importorskip("flwr")

from pathlib import Path

from flower_loopback import Federation
from secure_sum_app import EPSILON, ROUNDS, SITES

from flora_secure.client.ledger import ClientLedger
from flora_secure.engine.deployed.keys.credentials import make_federation
from flora_secure.flower import write_policy

APP = Path(__file__).parent / "secure_sum_app.py"


@pytest.mark.slow
def test_two_rounds_of_which_one_site_misses_the_second(tmp_path, monkeypatch):
    pilot = tmp_path / "pilot"
    make_federation(pilot, clients=SITES)
    write_policy(pilot, epsilon=EPSILON, rounds=ROUNDS, clients=SITES, dropout_tolerance=0.34, corrupt=0)
    monkeypatch.setenv("PILOT", str(pilot))
    place = tmp_path / "flower"
    place.mkdir()
    with Federation(place) as federation:
        federation.start_server()
        for site in range(SITES):
            federation.enrol(site)
        for site in range(SITES):
            federation.start_site(site)
        for site in range(SITES):
            federation.connected(site)
        federation.start_run(APP)
        federation.until_logged("run", "secure sum, round 1 of 2", 240)
        federation.kill("site2")
        streamed = federation.finish_run(300)
        seen = streamed + federation.log("server")
    assert "SUM 2 (100,)" in streamed
    assert "secret-metric" not in seen
    assert "12345" not in seen
    lines = [json.loads(line) for line in (pilot / "run/sums.jsonl").read_text().splitlines()[1:]]
    ended = {line["round"]: line["survivors"] for line in lines if line["event"] == "ended"}
    assert ended == {1: [0, 1, 2], 2: [0, 1]}
    for site, rounds in ((0, [1, 2]), (1, [1, 2]), (2, [1])):
        given = ClientLedger(pilot / f"sites/site{site}/state/ledger.jsonl").given
        assert [one.event.round for one in given] == rounds
