"""Units painted at their true size over a faded picture of the slide."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image
from scipy.spatial import cKDTree

__all__ = ["Canvas", "colours", "jpeg_uri", "make_canvas"]

_SUPERSAMPLING = 2


@dataclass(frozen=True)
class Canvas:
    """The part of a slide that its units cover, at the size it is shown in.

    Attributes:
        picture: the slide, uint8 (h, w, 3); white where there is no picture.
        owner: which unit covers a subpixel, -1 for none, (h * s, w * s).
        width_px: width of the part in level-0 pixels.
    """

    picture: np.ndarray
    owner: np.ndarray
    width_px: float

    def paint(self, values: np.ndarray, low: float, high: float) -> np.ndarray:
        """Colour units by their values, (U,), between `low` and `high`; uint8 (h, w, 3)."""
        place = np.clip((values - low) / max(high - low, 1e-9), 0, 1)
        unit_colours = colours()[np.rint(place * 255).astype(int)]
        faded = np.rint(255 - 0.4 * (255 - self.picture.mean(2, keepdims=True))).astype(np.uint8).repeat(3, axis=2)
        fine = faded.repeat(_SUPERSAMPLING, axis=0).repeat(_SUPERSAMPLING, axis=1)
        covered = self.owner >= 0
        fine[covered] = unit_colours[self.owner[covered]]
        return np.asarray(Image.fromarray(fine).reduce(_SUPERSAMPLING))


def make_canvas(
    centers_px: np.ndarray,
    size_px: float,
    shape: str,
    picture: np.ndarray | None = None,
    picture_scale: float = 1.0,
    max_side: int = 520,
    within_px: tuple[np.ndarray, np.ndarray] | None = None,
) -> Canvas:
    """Lay units out on a picture of their slide.

    One lookup of the nearest centre per subpixel serves any number of units and every gene; where units overlap,
    the nearer one shows.

    Args:
        centers_px: centres (x, y) in level-0 pixels, (U, 2).
        size_px: diameter or side in level-0 pixels.
        shape: `circle` or `square`.
        picture: the whole slide, uint8 (h, w, 3).
        picture_scale: its pixels per level-0 pixel.
        max_side: longer side of the result.
        within_px: the corners (x, y) of the part to show, in level-0 pixels; where the units lie by default.
    """
    margin = size_px / 2 + 0.02 * float(np.ptp(centers_px, axis=0).max())
    low, high = within_px or (centers_px.min(0) - margin, centers_px.max(0) + margin)
    if picture is not None:
        edge = np.array(picture.shape[1::-1])
        first = np.clip(np.floor(low * picture_scale).astype(int), 0, edge - 1)
        last = np.clip(np.ceil(high * picture_scale).astype(int), first + 1, edge)
        picture = picture[first[1] : last[1], first[0] : last[0]]
        low, high = first / picture_scale, last / picture_scale
    extent = np.maximum(high - low, 1e-9)
    width, height = np.maximum(np.rint(extent * max_side / extent.max()), 1).astype(int)
    if picture is None:
        shown = np.full((height, width, 3), 255, np.uint8)
    else:
        shown = np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS))
    s = _SUPERSAMPLING
    x, y = (low[i] + (np.arange(n * s) + 0.5) / (n * s) * extent[i] for i, n in ((0, width), (1, height)))
    points = np.stack(np.meshgrid(x, y), -1)
    _, owner = cKDTree(centers_px).query(
        points, p=2 if shape == "circle" else np.inf, distance_upper_bound=size_px / 2 * (1 + 1e-9)
    )
    return Canvas(shown, np.where(owner < len(centers_px), owner, -1), float(extent[0]))


@cache
def colours() -> np.ndarray:
    """The colour scale, uint8 (256, 3)."""
    from matplotlib import colormaps

    return colormaps["viridis"](np.arange(256), bytes=True)[:, :3]


def jpeg_uri(image: np.ndarray) -> str:
    """A `data:` address of uint8 (h, w, 3)."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=85, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
