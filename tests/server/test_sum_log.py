"""The durable count of sums: what it takes, and what it makes of a crash."""

import json

import pytest

from flora_secure.errors import RunFolderError
from flora_secure.server.sum_log import SumLog, SumRecord

TERMS = {"epsilon": "4", "rounds": "20"}


def ended(number: int, **more: object) -> SumRecord:
    parts = {"round": number, "survivors": [0, 1], "summed": True, "exposed": False, "lost": False, "aborted": None}
    return SumRecord(**{**parts, "upload": 10, "download": 20, **more})


@pytest.fixture
def folder(tmp_path):
    log = SumLog(tmp_path / "run", TERMS)
    log.announce(1)
    log.end(ended(1))
    log.close()
    return tmp_path / "run"


def test_what_was_written_is_read_again(folder):
    first = SumLog(folder, TERMS)
    session, seed = first.session, first.seed
    first.close()
    again = SumLog(folder, TERMS)
    assert (again.session, again.seed, again.in_flight) == (session, seed, None)
    assert again.records == [ended(1)]
    assert (folder / "sums.jsonl").stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_round_in_flight_is_known_and_lost_once(folder):
    log = SumLog(folder, TERMS)
    log.announce(2)
    log.close()
    log = SumLog(folder, TERMS)
    assert log.in_flight == 2
    record = log.lose()
    assert (record.round, record.lost, record.released, record.summed) == (2, True, True, False)
    with pytest.raises(RunFolderError, match="in flight"):
        log.lose()
    log.close()
    assert SumLog(folder, TERMS).records == [ended(1), record]


@pytest.mark.parametrize("cut", [1, 5, 30])
def test_a_line_that_was_cut_off_goes(folder, cut):
    path = folder / "sums.jsonl"
    log = SumLog(folder, TERMS)
    log.announce(2)
    announced = path.read_bytes()
    log.end(ended(2))
    log.close()
    path.write_bytes(path.read_bytes()[:-cut])
    assert SumLog(folder, TERMS).in_flight == 2  # its end is cut off: it counts as in flight
    path.write_bytes(announced[:-cut])
    log = SumLog(folder, TERMS)
    assert (log.in_flight, log.records) == (None, [ended(1)])  # nothing had been sent
    log.announce(2)
    log.close()
    assert path.read_bytes() == announced


@pytest.mark.parametrize(
    "spoil",
    [
        lambda lines: lines[:1] + lines[2:],  # an end without its announcement
        lambda lines: lines + lines[1:],  # a round twice
        lambda lines: lines[1:],
        lambda lines: [*lines, b"not JSON"],
        lambda lines: [*lines, b'{"event": "announced", "round": 4}'],
        lambda lines: [lines[0].replace(b"sums/1", b"sums/9"), *lines[1:]],
    ],
)
def test_what_no_server_wrote_is_refused(folder, spoil):
    path = folder / "sums.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in spoil(path.read_bytes().splitlines())))
    with pytest.raises(RunFolderError, match="is not what a server wrote"):
        SumLog(folder, TERMS)


@pytest.mark.parametrize("terms", [{**TERMS, "epsilon": "8"}, {"epsilon": "4"}, {**TERMS, "weights": "1"}])
def test_another_budget_does_not_go_on_in_the_folder(folder, terms):
    with pytest.raises(RunFolderError, match=r"was begun with \w+ .*choose a new folder"):
        SumLog(folder, terms)
    assert json.loads((folder / "sums.jsonl").read_text().splitlines()[0])["terms"] == TERMS
