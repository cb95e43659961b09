"""Do the units lie where the picture shows them? The evidence, and a picture of it, after every import."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import uniform_filter
from scipy.spatial import cKDTree
from scipy.stats import rankdata

from ..data.tissue import TissueMap
from ..files.atomic import replacing

__all__ = ["ORIENTATIONS", "Evidence", "check_units", "doubts_of", "draw_overlay", "nearest_um"]

#: Ways to read positions wrongly. The first is the way they were given.
ORIENTATIONS = {
    "as given": (False, False, False),
    "flipped left to right": (False, True, False),
    "flipped top to bottom": (False, False, True),
    "turned by 180°": (False, True, True),
    "x and y swapped": (True, False, False),
    "turned by 90° clockwise": (True, True, False),
    "turned by 90° counter-clockwise": (True, False, True),
    "x and y swapped, and turned by 180°": (True, True, True),
}
#: Fewer units than this say nothing about how counts follow the stain.
_ENOUGH = 30
#: Units smaller than this are summed over squares of it, since one alone holds little but noise.
_SQUARE_UM = 50.0
#: A share of units on tissue below this is doubtful.
_SHARE = 0.7
#: Another orientation is likelier if counts follow the stain by so much more, or so many more units lie on tissue.
_MORE_R, _MORE_SHARE = 0.15, 0.15
_MPP_TOLERANCE = 0.05
_MOST_POINTS = 40_000
#: Of so many units all are compared with the picture; of more, those in some rows of squares.
_MOST_UNITS = 2_000_000


@dataclass(frozen=True)
class Evidence:
    """What the picture says about one table of units.

    Attributes:
        units: how many were looked at (squares of 50 µm where units are smaller).
        on_tissue: share of them whose centre lies on tissue.
        darkness_r: rank correlation of the picture's optical density with counts; None for too few units.
        others: the same two figures for the seven other flips and turns, by name.
    """

    units: int
    on_tissue: float
    darkness_r: float | None
    others: dict[str, tuple[float, float | None]]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @property
    def in_words(self) -> str:
        """One line."""
        r = "too few units to compare darkness with counts"
        if self.darkness_r is not None:
            r = f"darkness against counts r = {self.darkness_r:.2f}"
        return f"{self.on_tissue:.0%} of the units lie on tissue, {r}"


def check_units(
    tissue: TissueMap, size_um: tuple[float, float], centers_um: np.ndarray, totals: np.ndarray, unit_um: float
) -> Evidence:
    """Compare units with the picture, as given and in the seven other orientations.

    Args:
        tissue: of the slide.
        size_um: width and height of the slide.
        centers_um: (U, 2), (x, y) from the slide's corner.
        totals: counts of each unit, (U,).
        unit_um: diameter or side of a unit.
    """
    if unit_um < _SQUARE_UM and len(centers_um):
        centers_um, totals = _squares(centers_um, totals)
    density = -np.log10((tissue.picture.astype(np.float32) + 1) / 256).mean(axis=2)
    side = max(1, round(max(unit_um, _SQUARE_UM) / tissue.mpp))
    smooth = uniform_filter(density, side, mode="nearest")
    ranks = rankdata(totals)  # a few dead spots would decide a correlation of logarithms
    figures = {}
    for name, (is_swapped, is_flipped, is_upside) in ORIENTATIONS.items():
        at = centers_um[:, ::-1] if is_swapped else centers_um
        at = np.column_stack(
            [size_um[0] - at[:, 0] if is_flipped else at[:, 0], size_um[1] - at[:, 1] if is_upside else at[:, 1]]
        )
        figures[name] = (float(tissue.at(at).mean()) if len(at) else 0.0, _follows(smooth, at / tissue.mpp, ranks))
    given = figures.pop("as given")
    return Evidence(len(centers_um), given[0], given[1], figures)


def _squares(centers_um: np.ndarray, totals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean place and mean counts of units in each square of 50 µm."""
    some = max(1, len(centers_um) // _MOST_UNITS)
    if some > 1:  # whole rows of squares are enough
        rows = np.flatnonzero((centers_um[:, 1] // _SQUARE_UM).astype(np.int64) % some == 0)
        centers_um, totals = centers_um[rows], totals[rows]
    cell = np.floor(centers_um / _SQUARE_UM).astype(np.int64)
    cell -= cell.min(0)
    code = cell[:, 0] * (cell[:, 1].max() + 1) + cell[:, 1]
    _, which, n = np.unique(code, return_inverse=True, return_counts=True)
    x, y, total = (np.bincount(which, values) / n for values in (*centers_um.T, totals))
    kept = n >= np.median(n) / 2  # at the edge a square holds few
    return np.column_stack([x, y])[kept], total[kept]


def _follows(density: np.ndarray, at_px: np.ndarray, ranks: np.ndarray) -> float | None:
    """Rank correlation of the density at places (x, y) with counts, over the places inside the picture."""
    column, row = np.floor(at_px).astype(np.int64).T
    inside = (row >= 0) & (column >= 0) & (row < density.shape[0]) & (column < density.shape[1])
    if inside.sum() < max(_ENOUGH, len(at_px) / 2):
        return None
    a, b = rankdata(density[row[inside], column[inside]]), ranks[inside]
    if a.std() < 1e-6 or b.std() < 1e-6:
        return None
    return float(np.corrcoef(a, b)[0, 1])


def doubts_of(evidence: Evidence) -> list[str]:
    """What is likely wrong, in sentences with their numbers; none if nothing is."""
    doubts = []
    r = evidence.darkness_r

    def gain(figures: tuple[float, float | None]) -> float:
        """How much likelier another orientation is, at least one figure being clearly better and none worse."""
        share, other = figures
        more_share = share - evidence.on_tissue
        more_r = 0.0 if r is None or other is None else other - r
        # With few units a correlation moves by chance.
        margin = max(_MORE_R, 3 / np.sqrt(max(evidence.units, 1)))
        is_likelier = (more_r > margin and more_share > -0.02) or (more_share > _MORE_SHARE and more_r > -0.05)
        return more_share + more_r if is_likelier else 0.0

    if evidence.others and evidence.units:
        name = max(evidence.others, key=lambda key: gain(evidence.others[key]))
        if gain(evidence.others[name]) > 0:
            share, other = evidence.others[name]
            told = (
                ""
                if r is None or other is None
                else f" and follow its darkness with r = {other:.2f} instead of {r:.2f}"
            )
            doubts.append(
                f"The positions may be wrong: {name}, {share:.0%} of the units lie on tissue instead of "
                f"{evidence.on_tissue:.0%}{told}."
            )
    if evidence.units and evidence.on_tissue < _SHARE:
        doubts.append(
            f"Only {evidence.on_tissue:.0%} of the units lie on tissue. Are the positions of this picture, and in its "
            "own pixels?"
        )
    if not doubts and r is not None and r < -2 / np.sqrt(evidence.units):
        doubts.append(
            f"Counts do not rise with the darkness of the tissue (r = {r:.2f}); in most tissues they do. Look at the "
            "picture of the check."
        )
    return doubts


def nearest_um(centers_um: np.ndarray) -> float:
    """Median distance of neighbouring units; NaN for fewer than two.

    The nearest neighbour alone is too near where units lie off their array a little: of four, one always is. So all
    neighbours count that lie up to 1.3 of that away; the diagonal of a square lies 1.41 away.
    """
    if len(centers_um) < 2:
        return float("nan")
    if len(centers_um) > _MOST_POINTS:  # those about the middle
        away = ((centers_um - np.median(centers_um, axis=0)) ** 2).sum(1)
        centers_um = centers_um[np.argpartition(away, _MOST_POINTS)[:_MOST_POINTS]]
    sample = centers_um[:: max(len(centers_um) // 20_000, 1)]
    distances = cKDTree(centers_um).query(sample, k=min(7, len(centers_um)))[0][:, 1:]
    nearest = float(np.median(distances[:, 0]))
    near = distances[(distances > 0.7 * nearest) & (distances < 1.3 * nearest)]
    return float(np.median(near)) if near.size else nearest


def draw_overlay(
    path: str | Path,
    picture: np.ndarray,
    mpp: float,
    centers_um: np.ndarray,
    totals: np.ndarray,
    unit_um: float,
    lines: Sequence[str] = (),
) -> Path:
    """Write a picture of the slide beside the same with the units on it, coloured by their counts.

    Args:
        path: the `.png`.
        picture: small picture of the whole slide, uint8 (h, w, 3).
        mpp: micrometres per pixel of `picture`.
        centers_um: (U, 2), (x, y).
        totals: counts of each unit, (U,).
        unit_um: diameter or side of a unit.
        lines: what to write under it.
    """
    path = Path(path)
    plain = Image.fromarray(picture)
    factor = min(1.0, 1000 / max(plain.size))
    if factor < 1:
        plain = plain.resize((max(1, round(plain.width * factor)), max(1, round(plain.height * factor))))
    marked = plain.convert("L").convert("RGB")
    draw = ImageDraw.Draw(marked)
    step = max(len(centers_um) // _MOST_POINTS, 1)
    logged = np.log1p(totals)
    low, high = np.percentile(logged, [2, 98]) if len(logged) else (0.0, 1.0)
    scale = np.clip((logged - low) / max(high - low, 1e-9), 0, 1)
    radius = max(unit_um / 2 / mpp * factor, 1.0)
    for (x, y), value in zip(centers_um[::step] / mpp * factor, scale[::step], strict=True):
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=_colour(float(value)))
    font = ImageFont.load_default(15)
    height = 22 * len(lines) + 12 if lines else 0
    both = Image.new("RGB", (max(2 * plain.width + 12, 700), plain.height + height), "white")
    both.paste(plain, (0, 0))
    both.paste(marked, (plain.width + 12, 0))
    text = ImageDraw.Draw(both)
    for i, line in enumerate(lines):
        text.text((6, plain.height + 6 + 22 * i), line.replace("µ", "u"), fill="black", font=font)  # it has no µ
    with replacing(path) as temporary:
        both.save(temporary)
    return path


def _colour(value: float) -> tuple[int, int, int]:
    """From dark blue over magenta to yellow."""
    stops = np.array([[40, 20, 120], [190, 30, 130], [255, 220, 60]])
    at = value * 2
    low = min(int(at), 1)
    r, g, b = stops[low] + (at - low) * (stops[low + 1] - stops[low])
    return int(r), int(g), int(b)
