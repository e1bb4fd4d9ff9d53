"""A-35: another adapter, or another use of it, in the folder of a genuine run."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from falsifying import falsified, found

from flora_secure.auditing.findings import OK, WARNING
from flora_secure.auditing.folder import audit


def copied(run: Path, target: Path) -> Path:
    return Path(shutil.copytree(run, target))


def test_the_runs_own_adapter_passes(genuine: Path) -> None:
    assert "A-35" in found(genuine, OK)


def test_exchanged_weights_are_found(genuine: Path, tmp_path: Path) -> None:
    """One who also writes the card anew for them included."""
    run = copied(genuine, tmp_path / "run")
    weights = run / "adapter" / "adapter_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert "report.json knows" in found(run)["A-35"]
    assert list(found(run)) == ["A-35"]
    assert not audit(run, opacus=False).passed
    from flora_secure.records.adapter_card import adapter_hash

    edit(run, adapter_hash=adapter_hash(run / "adapter"))
    assert "report.json knows" in found(run)["A-35"]


def edit(run: Path, **changes: Any) -> None:
    path = run / "adapter" / "flora.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model": "ViT-B-32"}, "model is ViT-B-32, the run says tiny"),
        ({"model_hash": "0" * 64}, "model_hash is 0000"),
        ({"placement": "text-mlp"}, "placement is text-mlp, the run says text-projection"),
        ({"scale": 5.0}, "scale is 5.0, the run says 1.0"),
        ({"crops": 4}, "crops is 4, the run says 1"),
        ({"logit_scale": 1.0}, "logit_scale is 1.0, the run says 28.0"),
        ({"precision": "bfloat16"}, "precision is bfloat16"),
        ({"class_names": ["bag", "boot"]}, "class_names is ['bag', 'boot']"),
        ({"captioned": True, "class_names": [], "templates": []}, "captioned is True, the run says False"),
        ({"rank": 0}, "rank must be at least 1"),
    ],
)
def test_another_card_is_found(genuine: Path, tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    run = copied(genuine, tmp_path / "run")
    edit(run, **changes)
    assert says in found(run)["A-35"]


def test_what_is_not_there_is_not_checked(genuine: Path, tmp_path: Path) -> None:
    run = copied(genuine, tmp_path / "run")
    shutil.rmtree(run / "adapter")
    assert found(run) == {}
    assert found(run, WARNING)["A-35"] == "adapter/ is not in the folder"

    def without(lines, report) -> None:
        report["provenance"]["adapter_hash"] = None

    run = falsified(genuine, tmp_path / "unhashed", without)
    assert found(run)["A-35"] == "report.json: holds no hash of the adapter that lies beside it"
    (run / "report.json").unlink()
    assert found(run, WARNING)["A-35"] == "report.json is missing"
