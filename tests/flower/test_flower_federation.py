"""Flower's own programs over TLS on loopback, with sites that fail."""

import json

import pytest

pytest.importorskip("flwr")

from pathlib import Path

from flower_loopback import Federation

ECHO = Path(__file__).parent / "echo_app.py"


@pytest.fixture
def federation(tmp_path):
    with Federation(tmp_path) as federation:
        federation.start_server()
        for site in range(3):
            federation.enrol(site)
        for site in range(3):
            federation.start_site(site)
        for site in range(3):
            federation.connected(site)
        yield federation


def test_sites_that_raise_come_late_or_are_killed_cost_nobody_else_a_reply(federation) -> None:
    results = federation.folder / "results.jsonl"
    script = [["one", 90], ["raise", 90], ["late", 6], ["two", 90], ["wait", 12], ["three", 8]]
    federation.start_run(ECHO, {"results": str(results), "script": json.dumps(script).replace('"', "'")})
    federation.until_logged("site2", "site 2 waits", 240)
    federation.kill("site2")
    streamed = federation.finish_run(120)
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    replies = {line["word"]: line["replies"] for line in lines if "word" in line}
    logged = "\n".join(line["log"] for line in lines if "log" in line)
    assert {"clients": [0, 1, 2]} in lines
    assert replies == {
        "one": ["0:one", "1:one", "2:one"],
        "raise": ["0:raise", "2:raise"],
        "late": ["1:late", "2:late"],
        "two": ["0:two", "1:two", "2:two"],
        "wait": ["0:wait", "1:wait"],
        "three": ["0:three", "1:three"],
    }
    assert "client 1: no answer, its site failed" in logged
    assert "RuntimeError" in federation.log("site1")  # its own people can read it
    assert "words that stay at the site" in federation.log("site1")
    for seen in (streamed, federation.log("server"), results.read_text()):
        assert "words that stay" not in seen
        assert "RuntimeError" not in seen
