"""How hard a phantom is: what colour alone predicts, what an oracle does, and how much no picture shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ...data.normalisation import log1p_cp10k
from ...metrics.moments import pearson
from .dataset import make_specimens
from .expression import Mixture
from .measure import Layout, Specimen
from .stain import SlideImage

__all__ = ["Difficulty", "measure_difficulty"]

_RIDGE = 10.0
_SPOTS = Layout("spot", 100.0, 100.0)


@dataclass(frozen=True)
class Difficulty:
    """PCC@M is the mean over genes of the Pearson correlation within a slide, averaged over held-out slides.

    Attributes:
        colour_pcc: ridge on standardised means and deviations of R, G, B in each unit, slides held out in turn.
        oracle_pcc: the noise-free rate of the same unit, its invisible part included.
        visible_pcc: the noise-free rate with the invisible part averaged out: the best that a picture allows.
        invisible_share: share of the variance within slides of the noise-free log1p CP10k (cell genes, mean over
            genes) that is lost when the invisible part is averaged out.
        median_umi: median counts per unit on tissue.
    """

    colour_pcc: float
    oracle_pcc: float
    visible_pcc: float
    invisible_share: float
    median_umi: float


def measure_difficulty(
    *,
    slides: int = 4,
    seed: int = 0,
    size_um: float = 1500.0,
    mpp: float = 1.0,
    genes: int = 100,
    mixture: Mixture = "programs",
    blank_fraction: float = 0.2,
    layout: Layout = _SPOTS,
) -> Difficulty:
    """Measure a phantom's difficulty in memory, on units of one layout that lie on tissue."""
    specimens = make_specimens(
        slides=slides, seed=seed, size_um=size_um, genes=genes, mixture=mixture, blank_fraction=blank_fraction
    )
    tables = [_table(specimen, layout, mpp) for specimen in specimens]
    cell_genes = specimens[0].expression.ambient_per_um2 == 0
    colour, oracle, visible, invisible = [], [], [], []
    for held, (_, y, exact, seen, _) in enumerate(tables):
        rest = [t for k, t in enumerate(tables) if k != held]
        prediction = _ridge(np.concatenate([t[0] for t in rest]), np.concatenate([t[1] for t in rest]), tables[held][0])
        colour.append(np.nanmean(pearson(prediction, y)))
        oracle.append(np.nanmean(pearson(exact, y)))
        visible.append(np.nanmean(pearson(seen, y)))
        lost = ((exact - seen) - (exact - seen).mean(0)).var(0) / np.maximum(exact.var(0), 1e-12)
        invisible.append(lost[cell_genes].mean())
    umi = np.concatenate([t[4] for t in tables])
    return Difficulty(
        colour_pcc=float(np.mean(colour)),
        oracle_pcc=float(np.mean(oracle)),
        visible_pcc=float(np.mean(visible)),
        invisible_share=float(np.mean(invisible)),
        median_umi=float(np.median(umi)),
    )


def _table(specimen: Specimen, layout: Layout, mpp: float) -> tuple[np.ndarray, ...]:
    """Colour statistics, measured y, noise-free y, visible y, and totals of one slide's units on tissue."""
    centers_um, _ = layout.centers_um(specimen.size_um)
    centers_um = centers_um[specimen.anatomy.margin_um(centers_um[:, 0], centers_um[:, 1]) > layout.size_um / 2]
    counts = np.asarray(specimen.count(centers_um, layout).todense(), dtype=np.float64)
    exact, seen = np.empty_like(counts), np.empty_like(counts)
    for target, visible_only in ((exact, False), (seen, True)):
        for index, rates in specimen.expected(centers_um, layout, as_measured=True, visible_only=visible_only):
            target[index] = rates
    image = SlideImage(specimen.anatomy, mpp)
    half_px = max(1, round(layout.size_um / 2 / mpp))
    colour = np.empty((len(centers_um), 6))
    for n, (x, y) in enumerate(np.rint(centers_um / mpp).astype(int)):
        patch = image[max(y - half_px, 0) : y + half_px, max(x - half_px, 0) : x + half_px].reshape(-1, 3)
        colour[n] = np.r_[patch.mean(0), patch.std(0)]
    return colour, *(log1p_cp10k(table, table.sum(1)) for table in (counts, exact, seen)), counts.sum(1)


def _ridge(x: np.ndarray, y: np.ndarray, x_new: np.ndarray) -> np.ndarray:
    return np.asarray(make_pipeline(StandardScaler(), Ridge(_RIDGE)).fit(x, y).predict(x_new))
