"""What an auditor signs: the guarantee first, then what it rests on, and the same bytes from the same folder."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from falsifying import falsified, half_sigma, small, written

import flora_secure
from flora_secure.auditing.document.markdown import markdown
from flora_secure.auditing.document.registry import registry_entry
from flora_secure.auditing.document.sections import sections
from flora_secure.auditing.findings import Audit, Block, Measurement
from flora_secure.errors import ConfigError

NIST = [
    "1. ε and the unit",
    "2. Mechanism and accounting",
    "3. Sensitivity and clipping",
    "4. Who adds the noise, and who is trusted",
    "5. Implementation",
    "6. Data collection and exposure",
]


@pytest.fixture(scope="session")
def audited(genuine) -> Audit:
    return flora_secure.audit(genuine, opacus=False)


def measured(audit: Audit, **changes: object) -> Audit:
    """With a lower bound on ε, as canaries give one."""
    bound = {
        "name": "ε, lower bound by f-DP", "value": 1.25, "low": 1.25, "high": None, "ceiling": 3.5,
        "false_alarm": 0.05, "assumption": "a coin each", "alarm": False,
    }  # fmt: skip
    one = Measurement(**{**bound, **changes})
    block = Block(name="canaries", left_out=None, findings=[], measurements=[one], checked=[], assumed=[], uncovered=[])
    return replace(audit, blocks=[*audit.blocks, block])


def test_the_label_is_on_top_and_says_what_was_derived(audited) -> None:
    top, _, rest = markdown(audited).partition("\n## ")
    assert audited.label is not None
    assert f"{audited.label.server.epsilon:.4g}" in top
    assert f"{audited.label.upload.epsilon:.4g}" in top
    for words in ("one client", "1e-05", "follow the protocol", "Side channels", audited.verdict):
        assert words in top.replace("\\", "")
    assert [section.title for section in sections(audited)][:6] == NIST
    assert rest.startswith(NIST[0])


def test_the_label_is_derived_and_not_copied(genuine, audited, tmp_path) -> None:
    def flattered(lines, report) -> None:
        report["privacy"]["epsilon"] = 0.5

    found = flora_secure.audit(falsified(genuine, tmp_path / "run", flattered), opacus=False)
    assert found.label.server == audited.label.server
    assert "0.5 |" in markdown(found)  # as claimed, beside it
    assert "disagrees" in markdown(found)


def test_views_of_runs_without_masks_and_without_noise(open_run, digits, tmp_path) -> None:
    label = flora_secure.audit(open_run, opacus=False).label
    assert label.server.epsilon == label.upload.epsilon
    assert "add them up and forget" in " ".join(label.trusted)
    import math

    bare = written(small(privacy__epsilon=math.inf), digits, tmp_path / "bare")
    label = flora_secure.audit(bare, opacus=False).label
    assert [view.status for view in (label.server, label.outsider, label.upload)] == ["infinite"] * 3
    assert "| ∞. No noise was added" in markdown(flora_secure.audit(bare, opacus=False))


def test_the_same_folder_gives_the_same_bytes(genuine, tmp_path) -> None:
    pytest.importorskip("jinja2")
    folders = [shutil.copytree(genuine, tmp_path / place / "run") for place in ("here", "there")]
    for kind in ("md", "html", "json"):
        made = [
            flora_secure.document(flora_secure.audit(folder, opacus=False), tmp_path / f"{number}.{kind}")
            for number, folder in enumerate(folders)
        ]
        first, second = (path.read_bytes() for path in made)
        assert first == second


def test_violations_stand_before_what_is_fine_with_evidence_and_remedy(genuine, tmp_path) -> None:
    folder = falsified(genuine, tmp_path / "run", lambda lines, report: half_sigma(lines, report))
    text = markdown(flora_secure.audit(folder, opacus=False)).replace("\\", "")
    assert "FAILED" in text.partition("\n## ")[0]
    violations, fine = text.index("## Violations"), text.index("## What was checked")
    row = next(line for line in text[violations:fine].split("\n") if line.startswith("| A-10"))
    assert "z = " in row
    assert "publish σ_loc" in row


def test_a_pass_lists_what_was_and_what_cannot_be_checked(audited) -> None:
    text = markdown(audited).replace("\\", "")
    for block in audited.blocks:
        assert f"### {block.name}" in text
        for sentence in (*block.checked, *block.assumed, *block.uncovered):
            assert sentence in text
    for finding in audited.findings:
        assert f"| {finding.check} |" in text


def test_lower_bounds_share_the_axis_of_the_three_views(audited, tmp_path) -> None:
    pytest.importorskip("jinja2")
    page = flora_secure.document(measured(audited), tmp_path / "audit.html").read_text()
    axis = re.search(r'aria-label="On one axis: ([^"]*)"', page)
    assert axis is not None
    assert "ε, lower bound by f-DP 1.25" in axis[1]
    assert all(f"ε {whose} " in axis[1] for whose in ("claimed", "against the server", "one upload alone"))
    assert not re.search(r'(src|href)="(?!#)', page)  # nothing is fetched


def test_intervals_say_their_own_level(audited) -> None:
    text = markdown(
        measured(audited, name="canaries in: shift ÷ clip norm", low=1.0, high=1.5, assumption="99.7 % interval")
    )
    assert "| found | interval |" in text


def test_what_is_refuted_is_not_on_the_label(audited) -> None:
    claimed = f"{audited.label.server.epsilon:.4g}"
    assert f"server** | {claimed}." in markdown(audited)
    top = markdown(measured(audited, alarm=True)).partition("\n## ")[0]
    assert f"server** | refuted. By the log {claimed}; canaries refute that." in top
    assert registry_entry(measured(audited, alarm=True))["audit"]["epsilon_refuted"]


def test_the_registry_entry_is_complete_and_plain(audited) -> None:
    entry = json.loads(json.dumps(registry_entry(measured(audited)), allow_nan=False))
    assert entry["schema"] == "flora-secure/registry-entry/1"
    for key in (
        "system", "date", "unit", "adjacency", "trust_model", "mechanism", "epsilon", "delta", "composition",
        "accountant", "hyper_parameters", "audit",
    ):  # fmt: skip
        assert key in entry
    assert entry["epsilon"]["server"]["epsilon"] == audited.label.server.epsilon
    assert entry["audit"]["measured"][0]["name"]
    assert set(entry["audit"]["made"]) | set(entry["audit"]["not_made"]) == {
        *(block.name for block in audited.blocks), "canaries",
    }  # fmt: skip


def test_texts_of_others_mean_nothing_in_the_document(audited, tmp_path) -> None:
    pytest.importorskip("jinja2")
    evil = "<script>alert(1)</script> | [x](javascript:1) ``` \x1b[2J \u202e"
    found = measured(replace(audited, run=f"/somewhere/{evil.replace('/', '')}"), assumption=evil)
    text = markdown(found)
    page = flora_secure.document(found, tmp_path / "audit.html").read_text()
    assert "<script>" not in page
    assert not any(mark in both for both in (text, page) for mark in ("\x1b", "\u202e"))
    assert not re.search(r"(?<!\\)<script", text.partition("## Registry entry")[0])
    assert text.count("```") == 2  # of the entry alone


def test_other_names_and_places_are_refused_in_a_line(audited, tmp_path) -> None:
    for path in (tmp_path / "audit.pdf", tmp_path / "none" / "audit.md", Path(tmp_path)):
        with pytest.raises(ConfigError, match="document"):
            flora_secure.document(audited, path)


def test_nothing_disagrees_with_what_nobody_claims(tmp_path) -> None:
    log = tmp_path / "opacus.json"
    log.write_text(json.dumps({"history": [[1.1, 0.001, 600]], "mechanism": "rdp", "epsilon": 3.0, "delta": 1e-5}))
    text = markdown(flora_secure.audit(log, opacus=False))
    assert "| ε for the server | ∞ or none | 0." in text
    assert text.count(", which disagrees") == 1  # the claim, against an outsider
