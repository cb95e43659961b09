"""Fixtures of several rooms."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture
def four_threads() -> Iterator[int]:
    """On any machine, whatever number of threads the tests were started with."""
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield 4
    torch.set_num_threads(before)
