import threading

import pytest
from loopback import Federation


@pytest.fixture(scope="session")
def federation(tmp_path_factory):
    return Federation(tmp_path_factory.mktemp("federation"))


@pytest.fixture(autouse=True)
def no_thread_is_left_and_no_task_fails_unseen(caplog):
    before = set(threading.enumerate())
    yield
    assert [record.getMessage() for record in caplog.get_records("call") if record.name == "asyncio"] == []
    for thread in set(threading.enumerate()) - before:
        thread.join(10)  # one that has been told to end may be at its last step
    assert set(threading.enumerate()) <= before
