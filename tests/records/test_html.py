"""The page of a run: whole, by itself, the same bytes again, inert whatever its folder holds, and true to the log."""

import dataclasses
import itertools
import json
import math
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import pytest
from command import ENVIRONMENT, flora_here
from test_record import RECORD
from test_report import example_report, with_competitors, without_noise
from test_run_folder import written

import flora_secure
from flora_secure.errors import PlotError, RunFolderError
from flora_secure.privacy.accounting import epsilon_for, epsilon_of
from flora_secure.privacy.events import RoundEvent
from flora_secure.records import html
from flora_secure.records.html.facts import comparison, differences
from flora_secure.records.html.page import page, write
from flora_secure.records.html.shown import MOST_ROWS, Shown, Table, read
from flora_secure.records.html.verdict import what_would_change, worst_events
from flora_secure.records.report import Report

VOID = {"meta", "br", "hr", "img", "input", "link"}
HOSTILE = ("<script>alert(1)</script>", '" onload="x', "</svg><b>", "$\\frac{$", "{{ 7*7 }}", "\u202eevil", "--><i>")


class Seen(HTMLParser):
    """What a page holds. Fails where an element is not closed in its order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, key, value or "") for key, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, key, value or "") for key, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, key: str) -> list[str]:
        return [value for _, name, value in self.attributes if name == key]


def changed(report: Report, **parts: dict[str, object]) -> Report:
    return dataclasses.replace(report, **{k: dataclasses.replace(getattr(report, k), **v) for k, v in parts.items()})


def everybody(rounds: int = 4, **more: object) -> Shown:
    """A run of unit `client` in which all nine take part."""
    record = dataclasses.replace(
        RECORD, unit="client", participants=list(range(9)), survivors=list(range(9)), dropped=[], sampling_rate=1.0,
        population=None, colluders=2, honest_minimum=5, sigma_local=30.0, **more,
    )  # fmt: skip
    records = [dataclasses.replace(record, round=number + 1) for number in range(rounds)]
    spent = epsilon_of([record.event() for record in records], 1e-5)
    report = changed(example_report(), privacy={"epsilon": spent, "target_epsilon": spent * 1.01, "rounds": rounds})
    return Shown("run", report, records)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return written(tmp_path_factory.mktemp("runs") / "one").path


def cells(table: Table) -> dict[str, str]:
    return {row[0]: row[2] for row in table.rows}


@pytest.mark.parametrize("count", [1, 2])
def test_a_page_is_whole_and_needs_nothing_else(folder: Path, count: int) -> None:
    text = page([read(folder)] * count)
    seen = Seen(text)
    ids = seen.values("id")
    assert len(ids) == len(set(ids))
    assert not {"script", "link", "iframe", "object", "embed", "img", "base", "form"} & set(seen.tags)
    assert not seen.values("src")
    for target in [*seen.values("href"), *seen.values("xlink:href")]:
        assert target[:1] == "#"
        assert target[1:] in ids
    assert all(place[:1] == "#" and place[1:] in ids for place in re.findall(r"url\(([^)]*)\)", text))
    assert "@import" not in text
    assert set(re.findall(r"https?://[^\s\"'<]*", text)) == {"http://www.w3.org/1999/xlink"}  # a name, not a place
    assert "default-src 'none'" in text
    assert ("html", "lang", "en") in seen.attributes
    assert seen.tags.count("h1") == seen.tags.count("main") == 1
    # what is drawn is told in words, and stands in a table beside it
    drawn = seen.tags.count("svg")
    assert drawn >= 5
    assert seen.tags.count("figure") == seen.tags.count("figcaption") == drawn
    assert len([value for tag, key, value in seen.attributes if (tag, key) == ("svg", "aria-label") and value]) == drawn
    levels = [int(tag[1]) for tag in seen.tags if re.fullmatch(r"h\d", tag)]
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_the_same_run_is_the_same_file_wherever_it_lies(folder: Path, tmp_path: Path) -> None:
    first = flora_secure.report(folder, out=tmp_path / "first.html").read_bytes()
    copy = shutil.copytree(folder, tmp_path / "elsewhere")
    with matplotlib.rc_context({"font.size": 30, "lines.linewidth": 9, "svg.fonttype": "path"}):
        assert flora_secure.report(copy) == copy / "report.html"
    assert (copy / "report.html").read_bytes() == first
    program = f"import flora_secure; flora_secure.report({str(folder)!r}, out={str(tmp_path / 'again.html')!r})"
    environment = {**ENVIRONMENT, "PYTHONHASHSEED": "7", "LC_ALL": "C", "TZ": "Asia/Tokyo"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, timeout=120)
    assert (tmp_path / "again.html").read_bytes() == first


def test_names_from_outside_are_inert(folder: Path) -> None:
    run = read(folder)
    report = changed(
        run.report,
        accuracy={"classes": list(HOSTILE), "per_class": [0.5] * len(HOSTILE), "measures": HOSTILE[0]},
        data={"dataset": HOSTILE[0], "partition": HOSTILE[1]},
        privacy={"statement": "\n\n".join(HOSTILE), "unit": HOSTILE[0], "cross_check": {HOSTILE[0]: 1.0}},
        provenance={"versions": dict.fromkeys(HOSTILE, HOSTILE[0])},
        aggregation={"profile": HOSTILE[0]},
    )
    report = dataclasses.replace(report, warnings=list(HOSTILE))
    bad = dataclasses.replace(run, name=HOSTILE[0], report=report, breaks=HOSTILE)
    text = page([bad, bad])
    seen = Seen(text)
    assert not {"script", "b", "i"} & set(seen.tags)
    assert not [key for _, key, _ in seen.attributes if key.startswith("on")]
    assert "\u202e" not in text
    assert "49" not in re.findall(r">\s*(49)\s*<", text)
    assert seen.text.count(HOSTILE[3]) >= 4  # in charts, too, as it is
    assert HOSTILE[0] in seen.text


def test_letters_can_be_read_in_light_and_in_dark() -> None:
    """WCAG 2.1 AA: contrast of at least 4.5 for text, 3 for what is drawn."""
    style = (Path(html.__file__).parent / "style.css").read_text(encoding="utf-8")

    def light(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    themes = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    assert len(themes) == 2
    for theme in themes:
        values = dict(re.findall(r"--([\w-]+): (#\w{6})", theme))
        pairs = [(text, "ground", 4.5) for text in ("ink", "soft", "link")]
        pairs += [("ink", "card", 4.5), ("warn", "warn-ground", 4.5)]
        pairs += [(f"series-{number}", "ground", 3.0) for number in (1, 2, 3, 4)]
        for name, ground, least in pairs:
            low, high = sorted((light(values[name]), light(values[ground])))
            assert (high + 0.05) / (low + 0.05) >= least, (name, ground)


def test_what_would_change_the_verdict_is_counted_from_the_log() -> None:
    run = everybody()
    colluding, dropping, deltas, rounds = what_would_change(run)
    z = run.records[0].event().noise_multiplier
    spent = f"{run.report.privacy.epsilon:.2f}"
    assert cells(colluding)["2 (assumed)"] == cells(dropping)["9 (as it was)"] == spent
    assert cells(deltas)["1e-05 (as it was)"] == cells(rounds)["4 (as it was)"] == spent
    assert cells(rounds)["8"] == f"{epsilon_for(z, 1e-5, 8):.2f}"
    assert cells(deltas)["1e-07"] == f"{epsilon_for(z, 1e-7, 4):.2f}"
    # 7 of 9 shares were counted: with 7 of the 9 colluding 2 are left, and z falls by the root
    assert cells(colluding)["7"] == f"{epsilon_for(z * math.sqrt(2 / 7), 1e-5, 4):.2f}"
    assert cells(colluding)["all others"] == "81.0"
    assert cells(dropping)["7"] == f"{epsilon_for(z * math.sqrt(5 / 7), 1e-5, 4):.2f}"
    assert "fewer than 7 survivors" in dropping.note
    assert [row[3] for row in rounds.rows][-3:] == ["above"] * 3
    assert [row[3] for row in rounds.rows][:2] == ["within"] * 2


def test_the_verdict_is_that_of_the_worst_client() -> None:
    """Client 8 was in both rounds of a sampled run, the others in one."""
    run = everybody(2)
    first = dataclasses.replace(run.records[0], participants=[0, 1, 2, 8], survivors=[0, 1, 2, 8])
    second = dataclasses.replace(run.records[1], participants=[4, 5, 6, 8], survivors=[4, 5, 6, 8])
    third = dataclasses.replace(first, round=3, participants=[4, 5, 6, 7], survivors=[], aborted="too few")
    z = first.event().noise_multiplier
    found = what_would_change(dataclasses.replace(run, records=[first, second, third]))
    assert cells(found[3])["2 (as it was)"] == f"{epsilon_for(z, 1e-5, 2):.2f}"
    told = dataclasses.replace(third, participants=[4, 5, 6, 8], survivors=[4, 5, 6, 8])
    found = what_would_change(dataclasses.replace(run, records=[first, second, told]))
    assert cells(found[3])["3 (as it was)"] == f"{epsilon_for(z, 1e-5, 3):.2f}"


def test_the_slack_of_rounding_makes_a_worst_client_too() -> None:
    coarse = RoundEvent(1, 100, 0, 1.0, 7.6, 1.3, 5, frozenset(range(1, 101)))
    loud = RoundEvent(2, 1, 0, 40.0, 40.0 / (coarse.noise_multiplier * 0.9999), 1.0, 5, frozenset({0}))
    assert epsilon_of([loud], 1e-5) < epsilon_of([coarse], 1e-5)
    assert worst_events([coarse, loud], 1e-5) == [coarse]
    everybody = dataclasses.replace(loud, round=3, participants=None)
    assert worst_events([coarse, everybody, loud], 1e-5) == [coarse, everybody]
    assert worst_events([everybody], 1e-5) == [everybody]


def test_competitors_stand_beside_the_federation_and_whose_figures_they_are_is_said(folder: Path) -> None:
    run = read(folder)
    plain = Seen(page([run])).text
    assert "public labels alone" in plain
    assert [words for words in ("in one place", "one client alone", "simulation's owner") if words in plain] == []
    rich = dataclasses.replace(run, report=with_competitors(run.report, "all"))
    shown = Seen(page([rich]))
    (words,) = [value for value in shown.values("aria-label") if value.startswith("Accuracy: ")]
    for what in ("public labels alone 79.00%", "all data in one place 90.00%", "without noise 88.00%"):
        assert what in words
    assert "it is for the simulation's owner" in shown.text
    assert "where the federated adapter has 74.5%" in shown.text
    assert "one client alone, the best" in shown.text
    table = comparison([run, rich])
    sides = {row[0]: row[1:] for row in table.rows}
    assert sides["public labels alone"] == ("79.00%", "79.00%")
    assert sides["all data in one place"] == ("–", "90.00%")
    assert sides["one client alone"] == ("–", "64.00%, federated 74.50%")


def test_without_noise_nothing_is_promised(folder: Path) -> None:
    run = read(folder)
    report = without_noise(run.report)
    bare = dataclasses.replace(run, report=changed(report, aggregation={"profile": "off"}))
    assert what_would_change(bare) == []
    seen = Seen(page([bare]))
    assert "there is NO differential privacy" in seen.text
    assert "the server saw every upload singly" in seen.text
    assert "What would change" not in seen.text


def test_masking_that_was_counted_and_not_run_stands_above_all_figures(folder: Path) -> None:
    shown = read(folder)
    counted = dataclasses.replace(shown, report=dataclasses.replace(shown.report, masking="counted"))
    text = Seen(page([counted])).text
    said = "masking was COUNTED AND NOT RUN (--masking counted): uploads were added up in the clear"
    assert counted.warnings[0].startswith(said)
    assert text.index("masking counted and not run") < text.index(said) < text.index("confidence")
    assert "semi-honest, counted" in text
    assert "COUNTED" not in Seen(page([shown])).text
    assert differences([shown, counted]) == ["the masking differs: counted, run"]


def test_many_classes_and_rounds_stay_a_page(folder: Path) -> None:
    run = everybody(2000)
    many = {"classes": [f"a class {i}" for i in range(1000)], "per_class": [i / 1000 for i in range(1000)]}
    text = page([dataclasses.replace(run, report=changed(run.report, accuracy=many))])
    assert len(text.encode()) < 1_000_000
    assert f"Every {2000 // MOST_ROWS}th of 2,000 rows" in text
    assert "The 30 worst of 1,000 are drawn." in text


def test_runs_that_measure_different_things_say_so(folder: Path) -> None:
    run = read(folder)
    other = changed(run.report, data={"dataset": "digits"}, privacy={"delta": 1e-6})
    found = differences([run, dataclasses.replace(run, report=other)])
    assert found == ["data differ: digits, folder", "δ differs: 1e-05, 1e-06"]
    assert differences([run, run]) == []


def test_a_broken_chain_is_shown_and_said(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "run")
    log = copy / "rounds.jsonl"
    log.write_text(log.read_text().replace('"accuracy": 0.5', '"accuracy": 0.6', 1))
    text = Seen(flora_secure.report(copy).read_text()).text
    assert "rounds.jsonl, line 2 does not follow line 1" in text
    assert str(tmp_path) not in text


def edited(change) -> object:
    def edit(path: Path) -> None:
        table = json.loads((path / "report.json").read_text())
        change(table)
        (path / "report.json").write_text(json.dumps(table))

    return edit


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda path: shutil.rmtree(path), "there is no such folder"),
        (lambda path: (path / "config.toml").unlink(), "config.toml"),
        (lambda path: (path / "report.json").unlink(), "was interrupted after 4 of"),
        (lambda path: (path / "rounds.jsonl").unlink(), "no complete round"),
        (edited(lambda t: t.update(schema="flora-secure/report/0")), "schema must be"),
        (edited(lambda t: t["accuracy"].update(per_class=[0.1])), "figures that no run can have"),
        (edited(lambda t: t["accuracy"].update(interval=[])), "figures that no run can have"),
        (edited(lambda t: t["accuracy"].update(final=1e308, zero_shot=-1e308)), ""),
        (edited(lambda t: t["privacy"].update(noise_released=[1.0])), "figures that no run can have"),
        (edited(lambda t: t["privacy"].update(delta=2.0)), "figures that no run can have"),
    ],
)
def test_what_cannot_be_shown_is_said_in_a_line(folder: Path, tmp_path: Path, spoil, says: str) -> None:
    good, bad = (shutil.copytree(folder, tmp_path / name) for name in ("good", "bad"))
    spoil(bad)
    done = flora_here("report", "bad", cwd=tmp_path)
    if not says:  # nonsense that can be drawn
        assert done.returncode in (0, 2)
        return
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    if "figures" not in says:
        both = flora_here("report", good, "bad", "--out", "both.html", "--json", cwd=tmp_path)
        assert both.returncode == 0
        told = json.loads(both.stdout)
        assert (told["file"], told["runs"]) == ("both.html", 1)
        assert says in told["left_out"][0]
        assert says in both.stderr
        neither = flora_here("report", "bad", "nowhere", "--out", "both.html", cwd=tmp_path)
        assert (neither.returncode, neither.stderr.count("\n")) == (2, 2)
        assert says in neither.stderr


def test_the_command_writes_where_it_is_told(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "run")
    done = flora_here("report", "run", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "run/report.html\n", "")
    done = flora_here("report", "run", copy, cwd=tmp_path)
    assert done.returncode == 2
    assert "give its name with --out" in done.stderr
    done = flora_here("report", "run", "--out", "nowhere/page.html", cwd=tmp_path)
    assert done.returncode == 2
    assert "nowhere/page.html cannot be written: No such file" in done.stderr


def test_a_trap_in_the_folder_is_not_written_through(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "run")
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (copy / ".report.html.tmp").symlink_to(victim)
    (copy / "report.html").symlink_to(victim)
    with pytest.raises(PlotError, match="cannot be written"):
        flora_secure.report(copy)
    (copy / ".report.html.tmp").unlink()
    os.mkfifo(copy / ".report.html.tmp")
    with pytest.raises(PlotError, match="cannot be written"):
        flora_secure.report(copy)
    (copy / ".report.html.tmp").unlink()
    flora_secure.report(copy)
    assert victim.read_text() == "mine"


def test_missing_libraries_are_named(folder: Path, monkeypatch) -> None:
    for name in [name for name in sys.modules if name.startswith("flora_secure.records.html.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(PlotError, match=r"a report needs jinja2: pip install 'flora-secure\[report\]'"):
        flora_secure.report(folder)


def test_a_call_without_a_run_or_without_a_place_is_a_mistake(folder: Path) -> None:
    with pytest.raises(TypeError, match="at least one run"):
        flora_secure.report()
    with pytest.raises(TypeError, match="give out"):
        flora_secure.report(folder, folder)
    with pytest.raises(RunFolderError, match="none is no run folder"):
        flora_secure.report("nowhere", "none", out="x.html")


def test_a_file_that_is_no_page_is_not_written_over(tmp_path) -> None:
    """Whoever names his table by mistake keeps it; a page of before is replaced."""
    precious = tmp_path / "precious.csv"
    precious.write_text("path,label\n")
    with pytest.raises(PlotError, match="exists already and is no page by its name"):
        write([everybody()], precious)
    assert precious.read_text() == "path,label\n"
    old = tmp_path / "old.html"
    old.write_text("old")
    write([everybody()], old)
    assert "<!DOCTYPE html>" in old.read_text(encoding="utf-8")
