import dataclasses
import json

import pytest

from flora_secure.errors import PlainError
from flora_secure.plain import from_plain
from flora_secure.privacy.events import RoundEvent
from flora_secure.records.record import SCHEMA, RoundRecord


@dataclasses.dataclass(frozen=True)
class Inner:
    names: list[str]


@dataclasses.dataclass(frozen=True)
class Outer:
    inner: Inner
    table: dict[str, float]
    count: int | None


RECORD = RoundRecord(
    round=2,
    mechanism="rounded-gaussian",
    unit="example",
    clients=9,
    participants=[0, 2, 5, 8],
    exhausted=[1],
    survivors=[0, 2, 8],
    dropped=[5],
    recovered=1,
    aborted=None,
    model_hash="00",
    noise_multiplier=5.0 * 2**0.5 / 12.0,
    sigma_local=5.0,
    scale=24.0,
    clip_norm=0.5,
    dimension=16,
    values=13,
    rotated=True,
    bits=12,
    colluders=1,
    honest_minimum=2,
    sampling_rate=0.25,
    population=9,
    count_scale=0.0,
    neighbours=3,
    threshold=2,
    target_epsilon=4.0,
    epsilon=1.5,
    delta=1e-5,
    accuracy=0.5,
    contributions=20,
    clipped=3,
    overflowed=0,
    upload_bytes=1000,
    download_bytes=2000,
    payload_bytes=500,
    broadcast_bytes=300,
    noise_ratio=1.002,
    server_step=0.8,
    divisor=4.0,
    released_count=None,
    sum_hash=None,
    transcript_hash=None,
    seconds={"training": 0.1},
)


def test_a_record_survives_json() -> None:
    table = json.loads(json.dumps(RECORD.to_dict()))
    assert next(iter(table)) == "schema"
    assert RoundRecord.from_dict(table) == RECORD


def test_the_event_is_all_that_the_budget_depends_on() -> None:
    assert RECORD.event() == RoundEvent(
        round=2,
        survivors=3,
        colluders=1,
        sigma_local=5.0,
        scale=24.0,
        clip_norm=0.5,
        dimension=16,
        participants=frozenset({0, 2, 5, 8}),
        sampling_rate=0.25,
        population=9,
        count_scale=0.0,
    )
    assert RECORD.event().noise_multiplier == pytest.approx(RECORD.noise_multiplier)
    everybody = dataclasses.replace(RECORD, participants=list(range(9)))
    assert everybody.event().participants is None
    counted = dataclasses.replace(RECORD, count_scale=1.0)
    assert counted.event().count_scale == 1.0


def test_an_aborted_round_is_no_event() -> None:
    with pytest.raises(ValueError, match="round 2 was aborted"):
        dataclasses.replace(RECORD, aborted="too few", survivors=[]).event()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sigma": 1.0}, "unknown key 'sigma'"),
        ({"survivors": None}, "survivors must be of type list, got None"),
        ({"survivors": [1, True]}, "survivors[1] must be of type int, got True"),
        ({"clients": 9.0}, "clients must be of type int, got 9.0"),
        ({"delta": "1e-5"}, "delta must be of type float, got '1e-5'"),
        ({"seconds": {"training": "long"}}, "seconds.training must be of type float"),
        ({"schema": "flora-secure/round/0"}, f"schema must be '{SCHEMA}', got 'flora-secure/round/0'"),
    ],
)
def test_anything_else_than_what_was_written_is_refused(change, says) -> None:
    with pytest.raises(PlainError) as caught:
        RoundRecord.from_dict({**RECORD.to_dict(), **change})
    assert says in str(caught.value)


@pytest.mark.parametrize("key", ["schema", *(field.name for field in dataclasses.fields(RoundRecord))])
def test_every_key_is_needed(key) -> None:
    table = RECORD.to_dict()
    del table[key]
    with pytest.raises(PlainError, match=key):
        RoundRecord.from_dict(table)


def test_plain_data_nests() -> None:
    value = Outer(Inner(["a", "b"]), {"x": 1.0}, None)
    assert from_plain(Outer, json.loads(json.dumps(dataclasses.asdict(value)))) == value
    assert from_plain(Outer, {"inner": {"names": []}, "table": {"x": 2}, "count": 3}).table == {"x": 2.0}
    for table, says in (
        ([], "the document must be an object"),
        ({"inner": 1, "table": {}, "count": 1}, "inner must be an object, got 1"),
        ({"inner": {"names": ["a"], "more": 1}, "table": {}, "count": 1}, "unknown key 'inner.more'"),
        ({"inner": {}, "table": {}, "count": 1}, "key 'inner.names' is missing"),
    ):
        with pytest.raises(PlainError, match=says):
            from_plain(Outer, table)
