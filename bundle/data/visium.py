"""What is known of a 10x Visium slide that its file does not say: spots of 55 µm, 100 µm apart."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

__all__ = ["CAPTURE_DISK_UM", "CONVENTION_UM", "PITCH_UM", "visium_pitch_px"]

#: Diameter of a spot's capture area.
CAPTURE_DISK_UM = 55.0
#: Distance of neighbouring spots' centres.
PITCH_UM = 100.0
#: What Space Ranger's `spot_diameter_fullres` stands for: a drawing convention, not the capture area.
CONVENTION_UM = 65.0

_TOLERANCE = 0.03


def visium_pitch_px(obs: pd.DataFrame, centers_px: np.ndarray, spot_diameter_px: float | None = None) -> float | None:
    """Distance of neighbouring Visium spots; None where the units are not a Visium slide's.

    Spots on a hexagonal array (rows lie √3 columns apart) are Visium's where their names are 10x barcodes, or
    `spot_diameter_fullres` is 65 (or 55) of 100 parts of their distance. Without array positions they are where it is
    65 of 100 parts of the distance of neighbours, and most spots have six of those.

    Args:
        obs: `array_row` and `array_col`, if known; its index holds the names.
        centers_px: (U, 2).
        spot_diameter_px: `spot_diameter_fullres`, if known.
    """
    if len(centers_px) < 3:
        return None
    share = 0.0
    if {"array_row", "array_col"} <= set(obs):
        pitch = _hex_pitch(obs, centers_px)
        if pitch is None:
            return None
        if obs.index.astype(str).str.fullmatch(r"[ACGT]{16}-\d+").all():
            return pitch
        known = [CONVENTION_UM, CAPTURE_DISK_UM]
    elif len(centers_px) < 7:
        return None
    else:
        nearest = cKDTree(centers_px).query(centers_px, k=7)[0]
        pitch, known = float(np.median(nearest[:, 1])), [CONVENTION_UM]
        if np.median(nearest[:, 6]) > (1 + _TOLERANCE) * pitch:  # not six neighbours, all as far away
            return None
    if spot_diameter_px is not None and pitch > 0:
        share = spot_diameter_px / pitch * PITCH_UM
    return pitch if any(abs(share / size_um - 1) < _TOLERANCE for size_um in known) else None


def _hex_pitch(obs: pd.DataFrame, centers_px: np.ndarray) -> float | None:
    """Distance of neighbours on a hexagonal array as 10x counts it: those of a row are two columns apart."""
    place = obs[["array_col", "array_row"]].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=np.float64)
    if not np.isfinite(place).all() or (place.sum(1) % 2 != 0).any():
        return None
    if np.linalg.matrix_rank(place - place.mean(0)) < 2:
        return None
    steps = np.linalg.lstsq(np.column_stack([place, np.ones(len(place))]), centers_px, rcond=None)[0][:2]
    column, row = np.linalg.norm(steps, axis=1)
    return 2 * float(column) if abs(row - np.sqrt(3) * column) < _TOLERANCE * row else None
