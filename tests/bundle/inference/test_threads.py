from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from bundle.inference.threads import keep_to_one_core


@pytest.fixture
def two_threads() -> Iterator[int]:
    """On any machine, whatever number of threads the tests were started with."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield 2
    torch.set_num_threads(before)


def test_a_helper_computes_alone_and_the_network_with_all_threads(two_threads: int):
    with ThreadPoolExecutor(1, initializer=keep_to_one_core) as pool:
        assert pool.submit(torch.get_num_threads).result() == 1
        assert pool.submit(lambda: float((torch.ones(1_000_000) + 1).sum())).result() == 2_000_000
        assert pool.submit(torch.get_num_threads).result() == 1
        assert torch.get_num_threads() == two_threads
    assert torch.get_num_threads() == two_threads
