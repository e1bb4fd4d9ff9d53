"""Batches on threads: the order of the results, whose threads work, and what stays as it was."""

import threading
from collections.abc import Iterator

import pytest
import torch

from flora_secure.model.devices import batch_map


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_on_the_processor_a_thread_a_core_and_one_inside() -> None:
    together = threading.Barrier(2, timeout=20)  # only two at once get past it

    def of(item: int) -> tuple[int, int, int]:
        together.wait()
        return item, torch.get_num_threads(), threading.get_ident()

    found = list(batch_map(of, range(6), torch.device("cpu")))
    assert [item for item, _, _ in found] == list(range(6))
    assert {inside for _, inside, _ in found} == {1}
    assert threading.get_ident() not in {thread for _, _, thread in found}
    assert torch.get_num_threads() == 2


def test_an_error_comes_through_and_the_threads_are_back() -> None:
    def of(item: int) -> int:
        raise ArithmeticError(f"item {item}")

    with pytest.raises(ArithmeticError, match="item 0"):
        list(batch_map(of, [0, 1], torch.device("cpu")))
    assert torch.get_num_threads() == 2


def test_an_accelerator_is_fed_by_the_caller() -> None:
    found = list(batch_map(lambda item: (item, threading.get_ident()), range(3), torch.device("meta")))
    assert found == [(item, threading.get_ident()) for item in range(3)]
