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

    They are where the array's rows and columns lie as Visium's do (neighbours in a row are two columns apart, and rows
    are √3 columns apart), or, without those, where `spot_diameter_fullres` is 65 of 100 parts of the distance.

    Args:
        obs: `array_row` and `array_col`, if known.
        centers_px: (U, 2).
        spot_diameter_px: `spot_diameter_fullres`, if known.
    """
    if len(centers_px) < 3:
        return None
    if {"array_row", "array_col"} <= set(obs):
        place = obs[["array_col", "array_row"]].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=np.float64)
        # `legacy ST` arrays count rows and columns alike; the columns of a Visium row are all odd or all even.
        if (
            not np.isfinite(place).all()
            or (place.sum(1) % 2 != 0).any()
            or np.linalg.matrix_rank(place - place.mean(0)) < 2
        ):
            return None
        steps = np.linalg.lstsq(np.column_stack([place, np.ones(len(place))]), centers_px, rcond=None)[0][:2]
        column, row = np.linalg.norm(steps, axis=1)
        return 2 * float(column) if abs(row - np.sqrt(3) * column) < _TOLERANCE * row else None
    if spot_diameter_px is None:
        return None
    pitch = float(np.median(cKDTree(centers_px).query(centers_px, k=2)[0][:, 1]))
    expected = pitch * CONVENTION_UM / PITCH_UM
    return pitch if abs(spot_diameter_px - expected) < _TOLERANCE * expected else None
