"""Count the predicted values that were clipped to the range of log1p CP10k, and describe them in the file."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..data.normalisation import MAX_LOG_CP10K

__all__ = ["CLIPPED", "NOT_CLIPPED", "clipped_genes", "clipping_summary"]

#: Column of `obs`: how many genes of each unit were clipped.
CLIPPED = "clipped_genes"
#: What `unit_of_X` ends with where nothing was clipped.
NOT_CLIPPED = ", before it is clipped to its range"
#: From this share of clipped values on a warning says so. Sections of Her2ST's patients C and A had under .0002.
_NOTEWORTHY = 0.01


def clipped_genes(y: np.ndarray) -> np.ndarray:
    """Genes of each unit outside the range of log1p CP10k, int32 (...,) from (..., G); NaN does not count."""
    return ((y < 0) | (y > MAX_LOG_CP10K)).sum(-1, dtype=np.int32)


def clipping_summary(n_clipped: int, n_values: int) -> tuple[dict[str, Any], str | None]:
    """The content of `uns["pixnet"]["clipped"]`, and a warning where the share is noteworthy."""
    share = n_clipped / max(n_values, 1)
    about = {"values": n_clipped, "share": share}
    if share < _NOTEWORTHY:
        return about, None
    return about, (
        f"{share:.0%} of X's values were clipped to 0..{MAX_LOG_CP10K:.2f}, the range of log1p CP10k: the linear head "
        "gives such values where a picture is unlike those it was trained on. "
        f'obs["{CLIPPED}"] counts them for each unit.'
    )
