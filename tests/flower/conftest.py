import pytest


@pytest.fixture(autouse=True)
def identity(monkeypatch) -> None:
    """Messages are made in a run of Flower's, at its server's node, as in a ServerApp."""
    from flwr.supercore.task_identity import TaskIdentity

    for name, value in {"_run_id": 1, "_node_id": 1, "_task_id": 1}.items():
        monkeypatch.setattr(TaskIdentity, name, value)
