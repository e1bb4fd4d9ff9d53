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


def run_script(federation, script):
    """Start a run of these words and patiences; gives the file of its results."""
    results = federation.folder / "results.jsonl"
    federation.start_run(ECHO, {"results": str(results), "script": json.dumps(script).replace('"', "'")})
    return results


def read(results):
    """The replies to each word, and what the server logged."""
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    assert {"clients": [0, 1, 2]} in lines
    replies = {line["word"]: line["replies"] for line in lines if "word" in line}
    return replies, [line["log"] for line in lines if "log" in line]


def test_sites_that_raise_come_late_or_are_killed_cost_nobody_else_a_reply(federation) -> None:
    script = [["one", 90], ["raise", 90], ["late", 15], ["two", 90], ["wait", 15]]
    results = run_script(federation, script)
    federation.until_logged("site2", "site 2 waits", 240)
    federation.kill("site2")
    streamed = federation.finish_run(120)
    replies, logged = read(results)
    assert replies == {
        "one": ["0:one", "1:one", "2:one"],
        "raise": ["0:raise", "2:raise"],
        "late": ["1:late", "2:late"],
        "two": ["0:two", "1:two", "2:two"],
        "wait": ["0:wait", "1:wait"],
    }
    assert logged[0] == "client 1: no answer, its site failed; the site's own log says why"
    assert logged[1] == "client 0: no answer within 15 s"
    assert {line.partition(":")[0] for line in logged[2:]} == {"client 2"}
    assert "RuntimeError" in federation.log("site1")  # its own people can read it
    assert "words that stay at the site" in federation.log("site1")
    for seen in (streamed, federation.log("server"), results.read_text()):
        assert "words that stay" not in seen
        assert "RuntimeError" not in seen


@pytest.mark.slow
def test_a_site_that_was_killed_comes_back_as_the_same_client(federation) -> None:
    results = run_script(federation, [["one", 90], ["wait", 20], ["rest", 100], ["back", 60]])
    federation.until_logged("site2", "site 2 waits", 120)
    federation.kill("site2")
    federation.restart_site(2, 90)
    federation.finish_run(240)
    replies, logged = read(results)
    assert replies == {
        "one": ["0:one", "1:one", "2:one"],
        "wait": ["0:wait", "1:wait"],
        "back": ["0:back", "1:back", "2:back"],
    }
    assert logged == ["client 2: no answer within 20 s"]


@pytest.mark.slow
def test_a_process_that_is_killed_while_it_answers_is_an_error_of_flower(federation) -> None:
    results = run_script(federation, [["wait", 120], ["after", 90]])
    federation.until_logged("site2", "site 2 waits", 120)
    assert federation.kill_answering(2) == 1
    federation.finish_run(240)
    replies, logged = read(results)
    assert replies == {"wait": ["0:wait", "1:wait"], "after": ["0:after", "1:after", "2:after"]}
    assert logged == ["client 2: no answer, error 8 of Flower"]
