import dataclasses
import json
import math
from pathlib import Path

import jsonschema
import pytest

from flora_secure.plain import finite_or_none, from_plain
from flora_secure.records.report import (
    SCHEMA,
    Accuracy,
    Aggregation,
    AggregationSeconds,
    Alone,
    Choice,
    Choices,
    Communication,
    Competitors,
    Data,
    Forgetting,
    Privacy,
    Provenance,
    RecallAt,
    Report,
    Retrieval,
    SkippedData,
    Timing,
    TimingSeconds,
    TopOne,
    json_schema,
)
from flora_secure.records.report_table import markdown, rows

PUBLISHED = Path(__file__).parents[2] / "docs" / "report.schema.json"


@pytest.fixture
def report() -> Report:
    return example_report()


def example_report() -> Report:
    return Report(
        masking="run",
        accuracy=Accuracy(
            measures="top-1",
            zero_shot=0.6,
            warm_start=0.7,
            final=0.85,
            interval=[0.8386, 0.8607],
            best=0.86,
            per_round=[0.8, 0.86, 0.85],
            classes=["a", "b"],
            per_class=[0.8, 0.9],
            client_mean=0.84,
            client_worst_decile=0.8,
            test_examples=4000,
        ),
        competitors=Competitors(public=0.79, central=None, local=None, no_noise=None, left_out={}),
        retrieval=None,
        forgetting=None,
        choices=Choices(
            warm_start=Choice(
                value="labels",
                by="public data",
                reason=None,
                images=900,
                held_out={"none": 0.4, "images": 0.35, "labels": 0.61},
            ),
            control_variate=Choice(value="0.5", by="user", reason=None, images=0, held_out={}),
        ),
        data=Data(
            dataset="folder",
            test="default",
            partition="natural",
            private_images=900,
            public_images=0,
            test_images=4000,
            private_captions=None,
            client_minimum=1,
            client_median=8.5,
            client_maximum=70,
            mean_classes=1.5,
            mean_label_distance=0.4,
            skipped=[SkippedData(reason="empty file", count=3, used=False)],
        ),
        privacy=Privacy(
            target_epsilon=4.0,
            epsilon=3.9,
            delta=1e-5,
            mu=0.9,
            unit="client",
            adjacency="zero-out",
            view="server",
            epsilon_outsider=3.9,
            epsilon_local=81.0,
            noise_multiplier=5.9,
            noise_released=[6.1, 6.2],
            clip_norm=2.0,
            rounds=3,
            participations=3,
            exhausted=0,
            sampling_rate=1.0,
            honest_minimum=90,
            accountant={"name": "closed form", "version": "1"},
            cross_check={"PLD": 3.9},
            cross_check_outsiders={},
            aliasing_slack=1e-10,
            clip_rate=0.9,
            overflow_rate=0.0,
            statement="It holds.",
        ),
        communication=Communication(
            upload_bytes=1e4,
            download_bytes=2e4,
            payload_bytes=8e3,
            broadcast_bytes=4e3,
            masking_bytes=2.2e4,
            invitation_bytes=110.0,
            full_model_bytes=6_000_000,
            reduction=400.0,
            reduction_upload=600.0,
            parameters=2560,
            upload_values=2560,
            parameter_ratio=585.9,
            bits=9,
        ),
        aggregation=Aggregation(
            profile="semi-honest",
            clients=100,
            participation=1.0,
            sampling=None,
            min_separation=1,
            cohort=[100, 100, 100],
            neighbours=99,
            threshold=51,
            slots=22,
            suite="x25519-mlkem768",
            dropped=[0, 20, 20],
            recovered=[0, 20, 20],
            aborted=[],
            lost=[],
            announced=[],
            seconds=AggregationSeconds(client_mean=0.01, server_total=0.1),
        ),
        timing=Timing(
            seconds=TimingSeconds(
                total=30.0,
                loading=3.0,
                features=2.0,
                training=1.0,
                noise=1.0,
                masking=20.0,
                evaluation=1.0,
                comparison=0.0,
                report=1.5,
                other=0.5,
            ),
            clients_per_second=12.0,
            peak_memory_bytes=10**9,
        ),
        warnings=["the labels are numbers"],
        provenance=Provenance(
            versions={"flora-secure": "0.1.0"},
            config_hash="0",
            model_hash="1",
            rounds_hash="3",
            adapter_hash="4",
            seed=0,
            secret_noise=True,
        ),
    )


def without_noise(report: Report) -> Report:
    return dataclasses.replace(
        report,
        privacy=dataclasses.replace(report.privacy, epsilon=None, target_epsilon=None, mu=None, epsilon_local=None),
    )


def with_competitors(report: Report, images: str = "own") -> Report:
    """All of them, each client alone on such test images."""
    alone = Alone(
        images=images, clients=97, mean=0.64, federated=0.745, best=0.701 if images == "all" else None, largest=15,
        mean_of_largest=0.72, federated_of_largest=0.78, fitted_on=0.86, fitted_on_of_largest=0.87,
    )  # fmt: skip
    found = Competitors(public=0.79, central=0.9, local=alone, no_noise=0.88, left_out={})
    return dataclasses.replace(report, competitors=found)


def captioned(report: Report) -> Report:
    return dataclasses.replace(
        report,
        competitors=dataclasses.replace(
            report.competitors, public=None, left_out={"public": "captions have no labels"}
        ),
        accuracy=dataclasses.replace(
            report.accuracy,
            measures="recall@1 image to text",
            warm_start=report.accuracy.zero_shot,
            classes=[],
            per_class=[],
            client_mean=None,
            client_worst_decile=None,
        ),
        retrieval=Retrieval(
            images=4000,
            captions=20_000,
            final=[
                RecallAt(k=1, image_to_text=0.85, text_to_image=0.7),
                RecallAt(k=5, image_to_text=0.95, text_to_image=0.9),
            ],
            zero_shot=[
                RecallAt(k=1, image_to_text=0.6, text_to_image=0.4),
                RecallAt(k=5, image_to_text=0.8, text_to_image=0.7),
            ],
        ),
        data=dataclasses.replace(
            report.data, partition="iid", private_captions=4500, mean_classes=None, mean_label_distance=None
        ),
    )


def with_unseen_classes(report: Report) -> Report:
    top = TopOne(zero_shot=0.9, final=0.85, interval=[0.79, 0.9])
    classes = [f"unseen {i}" for i in range(4)]
    return dataclasses.replace(
        report,
        forgetting=Forgetting(
            classes=classes,
            test_examples=200,
            among_unseen=top,
            unseen_among_all=dataclasses.replace(top, final=0.5),
            among_all=dataclasses.replace(top, final=0.8),
        ),
    )


def test_json_follows_the_published_schema(report: Report) -> None:
    schema = json.loads(PUBLISHED.read_text())
    assert schema == json_schema(), "run: python -m flora_secure.records.report > docs/report.schema.json"
    jsonschema.Draft202012Validator.check_schema(schema)
    shapes = (without_noise, captioned, with_unseen_classes, with_competitors)
    for document in (report, *(shape(report) for shape in shapes)):
        jsonschema.validate(json.loads(document.to_json()), schema)


def test_the_schema_refuses_surplus_and_missing_keys(report: Report) -> None:
    for change in ({"extra": 1}, {"schema": SCHEMA + "x"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**report.to_dict(), **change}, json_schema())
    short = report.to_dict()
    del short["privacy"]["epsilon"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(short, json_schema())


def test_what_public_data_could_not_decide_says_why_and_what_was_not_asked_says_nothing(report: Report) -> None:
    silent = Choice(value="images", by="default", reason="there are no labels", images=0, held_out={})
    other = dataclasses.replace(report, choices=Choices(warm_start=silent, control_variate=None))
    text = dict(rows(other))
    assert text["  warm start"] == "images, not decided: there are no labels"
    assert "  control variate" not in text
    jsonschema.validate(json.loads(other.to_json()), json_schema())


def test_infinity_and_nan_never_reach_the_json(report: Report) -> None:
    assert finite_or_none(math.inf) is None
    assert finite_or_none(2.0) == 2.0
    with pytest.raises(ValueError, match="NaN"):
        finite_or_none(math.nan)
    broken = dataclasses.replace(report, privacy=dataclasses.replace(report.privacy, mu=math.inf))
    with pytest.raises(ValueError):
        broken.to_json()


def test_the_table_shows_accuracy_privacy_and_communication_together(report: Report) -> None:
    text = dict(rows(report))
    assert text["accuracy"].startswith("85.00%")
    assert "ε = 3.900 of 4 allowed" in text["privacy"]
    assert text["communication"].startswith("400 × less")
    assert "40 dropped, 40 recovered" in text["aggregation"]
    tried = "none 40.0%, images 35.0%, labels 61.0%"
    assert text["  warm start"] == f"labels (right on 900 held-out public images: {tried})"
    assert text["  control variate"] == "0.5, as set"
    assert text["warning"] == "the labels are numbers"
    assert "warning" not in dict(rows(dataclasses.replace(report, warnings=[])))
    assert "1 / 8 / 70 a client" in text["data"]
    assert text["  skipped"] == "3: empty file"


def test_rounds_without_a_sum_have_a_line_only_where_there_are_some(report: Report) -> None:
    assert not {"  aborted rounds", "  lost rounds"} & dict(rows(report)).keys()
    told = dataclasses.replace(report.aggregation, aborted=[2, 5], lost=list(range(3, 15)))
    text = dict(rows(dataclasses.replace(report, aggregation=told)))
    assert text["  aborted rounds"] == "2, 5: no sum was released"
    assert text["  lost rounds"] == (
        "3, 4, 5, 6, 7, 8, 9, 10, 11, 12, … (12): in flight when the run was killed; they count in the budget"
    )
    assert "2 rounds aborted" in text["aggregation"]


def test_the_table_of_a_captioned_run_says_what_its_accuracy_is(report: Report) -> None:
    text = dict(rows(captioned(report)))
    assert text["accuracy"] == "recall@1 image to text 85.00% on 4,000 test images"
    assert text["  before"] == "zero-shot 60.00%"  # captions have no warm start
    assert dict(rows(report))["  before"] == "zero-shot 60.00%, warm start 70.00%"
    assert text["  spread"] == "95 % confidence 83.86% to 86.07%"
    assert text["  image to text"] == "recall@1/5 85.0% / 95.0% among 20,000 captions (zero-shot 60.0% / 80.0%)"
    assert text["  text to image"] == "recall@1/5 70.0% / 90.0% among 4,000 images (zero-shot 40.0% / 70.0%)"
    assert text["data"] == "folder, 900 images with 4,500 captions dealt iid: 1 / 8 / 70 a client (min, median, max)"
    assert not {"  image to text", "  text to image"} & dict(rows(report)).keys()


def test_unseen_classes_stand_in_the_table_and_only_some_by_name(report: Report) -> None:
    assert dict(rows(with_unseen_classes(report)))["  unseen classes"] == (
        "4 (unseen 0, unseen 1, unseen 2, …), zero-shot → final 90.0% → 85.0% among themselves, 90.0% → 50.0% among "
        "all; images of all classes 90.0% → 80.0%"
    )
    assert "  unseen classes" not in dict(rows(report))


def test_competitors_stand_below_the_accuracy_with_what_they_have_more(report: Report) -> None:
    text = dict(rows(with_competitors(report)))
    assert [*text][:10] == [
        "accuracy", "  before", "  spread", "  public labels alone", "  one client alone", "  all data in one place",
        "  without noise", "  warm start", "  control variate", "privacy",
    ]  # fmt: skip
    assert text["  public labels alone"] == "79.00% (-6.00 points)"
    assert text["  all data in one place"] == "90.00% (+5.00 points)"
    assert text["  without noise"] == "88.00% (+3.00 points)"
    assert text["  one client alone"] == (
        "64.00% on its own test images (federated 74.50%, fitted on at home 86.00%); the 15 largest 72.00% (federated "
        "78.00%, fitted on 87.00%)"
    )
    away = dict(rows(with_competitors(report, "all")))["  one client alone"]
    assert away.startswith("64.00% on all test images, none of which is a client's, the best one 70.10% (federated")
    mixed = dict(rows(with_competitors(report, "mixed")))["  one client alone"]
    assert mixed.startswith("64.00% on test images mixed like its own labels (federated")
    assert [*dict(rows(report))][3:5] == ["  public labels alone", "  warm start"]
    assert dict(rows(captioned(report)))["  public labels alone"] == "not known: captions have no labels"


def test_test_images_that_are_not_the_usual_ones_stand_in_the_table(report: Report) -> None:
    assert "  test images" not in dict(rows(report))
    away = dataclasses.replace(report, data=dataclasses.replace(report.data, test="unseen-clients"))
    assert dict(rows(away))["  test images"] == "unseen-clients: 4,000"


def test_a_captioned_report_survives_its_file(report: Report) -> None:
    for document in (report, captioned(report), with_competitors(report)):
        table = json.loads(document.to_json())
        table.pop("schema")
        assert from_plain(Report, table) == document


def test_missing_privacy_is_said_loudly(report: Report) -> None:
    assert dict(rows(without_noise(report)))["privacy"].startswith("NONE")


def test_noise_that_is_not_secret_is_said(report: Report) -> None:
    open_noise = dataclasses.replace(report, provenance=dataclasses.replace(report.provenance, secret_noise=False))
    assert "NOT secret" in dict(rows(open_noise))["warning"]


def test_markdown_holds_the_statement(report: Report) -> None:
    assert "It holds." in markdown(report)


def test_seconds_that_are_shown_add_up_and_none_are_below_zero(report: Report) -> None:
    seconds = report.timing.seconds
    parts = {field.name: 0.05 for field in dataclasses.fields(seconds) if field.name not in ("total", "loading")}
    parts = parts | {"loading": 3.0, "total": 3.0 + sum(parts.values())}
    for nudge in (0.001, -0.001):
        moved = {name: value + nudge if value == 0.05 else value for name, value in parts.items()}
        moved["total"] = sum(value for name, value in moved.items() if name != "total")
        timing = dataclasses.replace(report.timing, seconds=dataclasses.replace(seconds, **moved))
        line = dict(rows(dataclasses.replace(report, timing=timing)))["time"]
        total, shown = line.partition(" s (")[0], line.partition("(")[2].partition(")")[0]
        figures = [float(one.rsplit(" ", 1)[1]) for one in shown.split(", ")]
        assert min(figures) > 0
        assert round(sum(figures), 1) == float(total)
