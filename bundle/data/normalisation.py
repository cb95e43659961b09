"""From counts to the quantities that are predicted and scored. NumPy in, NumPy out."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import InputError
from .units import Units

__all__ = [
    "LARGE_UNIT_UM",
    "MAX_LOG_CP10K",
    "TARGET_SUM",
    "bounded",
    "log1p_cp10k",
    "passes_quality_control",
    "pearson_residuals",
]

TARGET_SUM = 1e4
#: Largest log1p CP10k: one gene has all of a unit's counts.
MAX_LOG_CP10K = float(np.log1p(TARGET_SUM))
#: From this size on a unit holds enough transcripts to be normalised by its own total.
LARGE_UNIT_UM = 55.0


def log1p_cp10k(counts: np.ndarray, total: np.ndarray) -> np.ndarray:
    """What is predicted of a unit: log1p(1e4 * count / total), total over **all** measured genes.

    Args:
        counts: (U, G).
        total: (U,); a unit without any count gives 0.
    """
    total = np.asarray(total, dtype=np.float64)
    return np.log1p(TARGET_SUM * counts / np.where(total > 0, total, np.inf)[:, None]).astype(np.float32)


def bounded(y: Any) -> Any:
    """Clip log1p CP10k to the values that it can have, 0 to `MAX_LOG_CP10K`; NaN stays. NumPy or dask.

    A linear map can leave that range, and does so on pictures unlike those it was trained on.
    """
    return np.clip(y, np.float32(0), np.float32(MAX_LOG_CP10K))


def passes_quality_control(units: Units, min_total: float, training: bool = True) -> np.ndarray:
    """Which units pass quality control, and so take part in training or scoring, (U,) bool.

    Those on tissue, and at 55 µm and above those with `min_total` counts. Below, a unit's own total says little:
    training leaves out empty units, scoring none, since an empty unit is a measurement too. A noise-free rate must be
    above 0.

    Raises:
        InputError: if the units are predictions, or are a noise-free truth and to be trained on.
    """
    if units.kind not in ("counts", "rate"):
        raise InputError(f"{units.name} holds predictions, not measured counts; name the file of the measured units.")
    if training and units.kind == "rate":
        raise InputError(f"{units.name} holds a noise-free truth to score against; train on measured counts.")
    if units.kind == "counts" and units.size_um >= LARGE_UNIT_UM:
        return units.in_tissue & (units.total >= min_total)
    if units.kind == "counts" and not training:
        return units.in_tissue
    return units.in_tissue & (units.total > 0)


def pearson_residuals(counts: np.ndarray, total: np.ndarray, theta: float = 100.0) -> np.ndarray:
    """Analytic Pearson residuals of negative-binomial counts, (U, G): a unit's depth taken out.

    Lause, Berens & Kobak, "Analytic Pearson residuals for normalization of single-cell RNA-seq UMI data",
    Genome Biology 2021. Clipped to ±sqrt(U) as there.
    """
    total = np.asarray(total, dtype=np.float64)
    expected = total[:, None] * (counts.sum(0, dtype=np.float64) / max(total.sum(), 1e-12))[None, :]
    residual = (counts - expected) / np.sqrt(np.maximum(expected + expected**2 / theta, 1e-12))
    bound = np.sqrt(len(total))
    return np.clip(residual, -bound, bound)
