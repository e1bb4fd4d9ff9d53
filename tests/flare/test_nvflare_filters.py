"""The filters of the installed NVFlare, audited from a job's configuration and from a filter's own ledger."""

import glob
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("nvflare")
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.app_common.filters import ExcludeVars, PercentilePrivacy, SVTPrivacy
from nvflare.app_common.workflows.fedavg import FedAvg
from nvflare.job_config.api import FedJob
from nvflare.job_config.defs import FilterType
from nvflare.job_config.script_runner import ScriptRunner

import flora_secure
from flora_secure.auditing.findings import Audit

VALUES = 7_033_282  # DenseNet-121 of one channel and two classes, running statistics included


def configured(folder: Path, *filters: object) -> dict:
    script = folder / "train.py"
    script.write_text("print()\n")
    job = FedJob(name="job")
    job.to(FedAvg(num_clients=1, num_rounds=3), "server")
    job.to(ScriptRunner(script=str(script)), "site-1", tasks=["train"])
    for one in filters:
        job.to(one, "site-1", filter_type=FilterType.TASK_RESULT, tasks=["train"])
    job.export_job(str(folder / "job"))
    (path,) = glob.glob(str(folder / "job/**/config_fed_client.json"), recursive=True)
    return json.loads(Path(path).read_text())


def audited(table: dict, folder: Path) -> Audit:
    path = folder / "nvflare.json"
    path.write_text(json.dumps(table))
    return flora_secure.audit(path, opacus=False)


def evidence(found: Audit, check: str) -> str:
    return next(finding.evidence for finding in found.findings if finding.check == check)


def violations(found: Audit) -> set[str]:
    return {finding.check for finding in found.findings if finding.severity == "violation"}


def test_defaults_of_the_sparse_vector_filter(tmp_path) -> None:
    config = configured(tmp_path, SVTPrivacy())
    bare = audited(config, tmp_path)
    assert violations(bare) == {"F-06"}
    assert "10,000.1 in one round for a million" in evidence(bare, "F-06")
    sized = audited({**config, "log": {"sparse": {"parameters": VALUES}, "rounds": [{"count": 3}]}}, tmp_path)
    assert violations(sized) == {"F-06", "F-20"}
    assert "ε = 70,333 in one round" in evidence(sized, "F-06")


def test_the_filters_own_ledger_says_the_same(tmp_path) -> None:
    filters = SVTPrivacy()
    for seed in range(2):
        update = np.random.default_rng(seed).normal(0, 1e-5, VALUES).astype(np.float32)
        filters.process_dxo(DXO(DataKind.WEIGHT_DIFF, data={"w": update}), Shareable(), FLContext())
    assert filters.get_privacy_spent() == pytest.approx(2 * 70_333.0)
    found = audited({"svt_privacy_ledger": filters.get_privacy_ledger()}, tmp_path)
    assert violations(found) == {"F-06"}  # what is claimed adds up, and protects nothing
    assert "ε = 70,333 in one round" in evidence(found, "F-06")


def test_filters_that_add_no_noise(tmp_path) -> None:
    found = audited(configured(tmp_path, PercentilePrivacy(), ExcludeVars(["head"])), tmp_path)
    assert violations(found) == {"F-06"}
    label = found.label
    assert label is not None
    assert label.system == "NVFlare, PercentilePrivacy, ExcludeVars"
    assert label.upload.status == "infinite"
    assert label.mechanism == "none"
