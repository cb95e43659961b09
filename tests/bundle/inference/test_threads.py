from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from bundle.inference.threads import keep_to_one_core


def test_a_helper_computes_alone_and_the_network_with_all_threads():
    before = torch.get_num_threads()
    if before == 1:
        pytest.skip("one thread is all there is")
    with ThreadPoolExecutor(1, initializer=keep_to_one_core) as pool:
        assert pool.submit(torch.get_num_threads).result() == 1
        assert pool.submit(lambda: float((torch.ones(1_000_000) + 1).sum())).result() == 2_000_000
        assert pool.submit(torch.get_num_threads).result() == 1
        assert torch.get_num_threads() == before
    assert torch.get_num_threads() == before
