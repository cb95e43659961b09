"""Threads that help the network must not cost it its own."""

from __future__ import annotations

import torch
from threadpoolctl import threadpool_limits

__all__ = ["keep_to_cores"]


def keep_to_cores(cores: int = 1) -> None:
    """Initializer of a thread beside others: torch computes there with so many threads, that one included.

    Else it gets as many helpers as the machine has cores, which stay. Once there are more of all threads' than cores,
    GNU OpenMP no longer has them wait for their next piece of work but puts them to sleep, the network's too: a quarter
    of the time of a pipeline on two cores, though nothing else ran (`python -m benchmarks.limit`).
    `torch.set_num_threads` would do as much to the network, since a part of it holds for the whole process.
    """
    torch.get_num_threads()  # a thread's first use sets its number; the limit comes after
    threadpool_limits(limits=cores, user_api="openmp")
