"""How many predicted values were clipped to what log1p CP10k can be, and what a file says of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..data.normalisation import MAX_LOG_CP10K

__all__ = ["CLIPPED", "NOT_CLIPPED", "clipped_genes", "told_clipped"]

#: Column of `obs`: how many genes of each unit were clipped.
CLIPPED = "clipped_genes"
#: What `unit_of_X` ends with where nothing was clipped.
NOT_CLIPPED = ", before it is clipped to its range"
#: From this share of clipped values on a warning says so. Sections of Her2ST's patients C and A had under .0002.
_NOTEWORTHY = 0.01


def clipped_genes(y: np.ndarray) -> np.ndarray:
    """How many genes of each unit lie outside the range of y, int32 (...,) from (..., G); NaN does not count."""
    return ((y < 0) | (y > MAX_LOG_CP10K)).sum(-1, dtype=np.int32)


def told_clipped(n_clipped: int, n_values: int) -> tuple[dict[str, Any], str | None]:
    """What `uns["pixnet"]["clipped"]` holds, and a warning where the share is noteworthy."""
    share = n_clipped / max(n_values, 1)
    about = {"values": n_clipped, "share": share}
    if share < _NOTEWORTHY:
        return about, None
    return about, (
        f"{share:.0%} of X's values were clipped to 0..{MAX_LOG_CP10K:.2f}, the range of log1p CP10k: the linear head "
        "gives such values where a picture is unlike those it was trained on. "
        f'obs["{CLIPPED}"] counts them for each unit.'
    )
