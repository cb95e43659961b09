"""Glass is white: what is transparent shows it."""

from __future__ import annotations

import numpy as np

__all__ = ["on_glass"]


def on_glass(rgb: np.ndarray, alpha: np.ndarray, premultiplied: bool = False) -> np.ndarray:
    """Lay partly transparent pixels on white, rounded to the nearest whole value.

    Args:
        rgb: uint8 (h, w, 3).
        alpha: uint8 (h, w), 255 is opaque.
        premultiplied: whether `rgb` has been multiplied by `alpha` already.

    Returns:
        uint8 (h, w, 3).
    """
    color, opaque = rgb.astype(np.uint32), alpha[..., None].astype(np.uint32)
    shown = color if premultiplied else (color * opaque + 127) // 255
    return np.minimum(shown + (255 - opaque), 255).astype(np.uint8)
