from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch

from bundle.speed.threads import keep_to_cores


def test_a_helper_computes_alone_and_the_network_with_all_threads(four_threads: int):
    with ThreadPoolExecutor(1, initializer=keep_to_cores) as pool:
        assert pool.submit(torch.get_num_threads).result() == 1
        assert pool.submit(lambda: float((torch.ones(1_000_000) + 1).sum())).result() == 2_000_000
        assert pool.submit(torch.get_num_threads).result() == 1
        assert torch.get_num_threads() == four_threads
    assert torch.get_num_threads() == four_threads
