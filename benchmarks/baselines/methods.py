"""The baselines: each fits on training slides and predicts another slide's units."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge

from bundle.metrics.depth import fit_depth
from bundle.metrics.moments import correlation, moments

from .colour import colour_statistics
from .copying import ALIGNMENTS, Copying, copy_sections
from .encoder import encoder_features
from .slides import Slide

__all__ = ["BASELINES", "Baseline", "choose"]

ALPHAS = tuple(10.0 ** np.arange(0, 6.5, 0.5))
BANDWIDTHS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.45, 0.7, 1.0)
COMPONENTS = 256

Predict = Callable[[Slide], np.ndarray]
Features = Callable[[Slide], np.ndarray]


@dataclass(frozen=True)
class Baseline:
    """A way to predict.

    Attributes:
        fit: from training slides and one value of `grid` to a prediction.
        grid: values to choose from by leaving out one training section after the other.
        about: what it shows.
        transductive: whether it uses statistics of the test slide's own image.
    """

    fit: Callable[[Sequence[Slide], Any], Predict]
    about: str
    grid: tuple[Any, ...] = (0.0,)
    transductive: bool = False


def choose(baseline: Baseline, train: Sequence[Slide]) -> Any:
    """The value of the baseline's grid with the highest PCC@M over held-out training sections.

    With only one section, the middle of the grid.
    """
    if len(baseline.grid) == 1 or len(train) == 1:
        return baseline.grid[len(baseline.grid) // 2]

    def held_out(value: Any) -> float:
        pred = [baseline.fit([s for s in train if s is not left], value)(left) for left in train]
        return float(np.mean([_mean_pcc(p, s.y) for p, s in zip(pred, train, strict=True)]))

    return max(baseline.grid, key=held_out)


def _mean_pcc(pred: np.ndarray, truth: np.ndarray) -> float:
    """Mean over genes of the correlation within one slide, by which baselines choose on training slides."""
    return float(correlation(moments(torch.from_numpy(pred), torch.from_numpy(truth))).nanmean())


def _fit_mean(train: Sequence[Slide], _: float) -> Predict:
    mean = np.concatenate([s.y for s in train]).mean(0)
    return lambda slide: np.tile(mean, (len(slide.y), 1))


def _fit_position(train: Sequence[Slide], bandwidth: float) -> Predict:
    known, y = np.concatenate([s.place for s in train]), np.concatenate([s.y for s in train])

    def predict(slide: Slide) -> np.ndarray:
        distance2 = ((slide.place[:, None] - known[None]) ** 2).sum(-1)
        # Relative to the nearest, so that a unit far from all others still has weights.
        weight = np.exp(-(distance2 - distance2.min(1, keepdims=True)) / (2 * bandwidth**2))
        return weight @ y / weight.sum(1, keepdims=True)

    return predict


def _fit_copy(train: Sequence[Slide], how: Copying) -> Predict:
    return partial(copy_sections, train, how)


def _fit_depth(train: Sequence[Slide], _: float) -> Predict:
    predict = fit_depth([s.total for s in train], [s.y for s in train])
    return lambda slide: predict(slide.total)


class _Scaling:
    """Features with mean 0 and variance 1, over the training units or within each slide."""

    def __init__(self, features: Features, train: Sequence[Slide], per_slide: bool) -> None:
        self.features, self.per_slide = features, per_slide
        pooled = np.concatenate([features(s) for s in train])
        self.mean, self.std = pooled.mean(0), pooled.std(0) + 1e-6

    def __call__(self, slide: Slide) -> np.ndarray:
        f = self.features(slide)
        return (f - f.mean(0)) / (f.std(0) + 1e-6) if self.per_slide else (f - self.mean) / self.std


def _fit_colour(train: Sequence[Slide], alpha: float, per_slide: bool = False, shuffled: bool = False) -> Predict:
    scaled = _Scaling(colour_statistics, train, per_slide)
    x = [scaled(s) for s in train]
    if shuffled:
        rng = np.random.default_rng(0)
        x = [f[rng.permutation(len(f))] for f in x]
    model = Ridge(alpha=alpha).fit(np.concatenate(x), np.concatenate([s.y for s in train]))
    return lambda slide: model.predict(scaled(slide))


def _fit_encoder(train: Sequence[Slide], alpha: float, per_slide: bool = False, colours: bool = False) -> Predict:
    scaled = _Scaling(encoder_features, train, per_slide)
    pooled = np.concatenate([scaled(s) for s in train])
    reduce = PCA(min(COMPONENTS, *pooled.shape), random_state=0).fit(pooled)
    beside = _Scaling(colour_statistics, train, per_slide) if colours else None

    def x(slide: Slide) -> np.ndarray:
        components = reduce.transform(scaled(slide))
        return components if beside is None else np.concatenate([components, beside(slide)], axis=1)

    model = Ridge(alpha=alpha).fit(np.concatenate([x(s) for s in train]), np.concatenate([s.y for s in train]))
    return lambda slide: model.predict(x(slide))


def _fit_hest(train: Sequence[Slide], _: float) -> Predict:
    """HEST-Bench's: scaled, 256 components, alpha = 100 / (components * genes); there without an intercept.

    Jaume et al. 2024, https://arxiv.org/abs/2406.16192. The mean is added here, so that its MSE means something; no
    correlation changes.
    """
    scaled = _Scaling(encoder_features, train, per_slide=False)
    pooled, y = np.concatenate([scaled(s) for s in train]), np.concatenate([s.y for s in train])
    reduce = PCA(min(COMPONENTS, *pooled.shape), random_state=0).fit(pooled)
    alpha = 100 / (reduce.n_components_ * y.shape[1])
    model = Ridge(alpha=alpha, fit_intercept=False).fit(reduce.transform(pooled), y - y.mean(0))
    return lambda slide: model.predict(reduce.transform(scaled(slide))) + y.mean(0)


BASELINES: dict[str, Baseline] = {
    "mean": Baseline(_fit_mean, "each gene's training mean: what MSE and MAE are worth"),
    "position": Baseline(_fit_position, "no image: where in its section a unit lies", BANDWIDTHS),
    "section copy": Baseline(
        _fit_copy,
        "no image: the training sections aligned by outline and copied",
        tuple(Copying(alignment, width) for alignment in ALIGNMENTS for width in BANDWIDTHS),
    ),
    "shuffled image": Baseline(
        partial(_fit_colour, shuffled=True), "colour ridge taught with another unit's image", ALPHAS
    ),
    "colour ridge": Baseline(_fit_colour, "ridge on colour statistics", ALPHAS),
    "colour ridge, per slide": Baseline(
        partial(_fit_colour, per_slide=True), "the same, standardised within each slide", ALPHAS, transductive=True
    ),
    "encoder ridge": Baseline(_fit_encoder, "ridge on ImageNet EfficientNet-lite0 features, PCA 256", ALPHAS),
    "encoder ridge, per slide": Baseline(
        partial(_fit_encoder, per_slide=True), "the same, standardised within each slide", ALPHAS, transductive=True
    ),
    "encoder ridge, HEST-Bench": Baseline(_fit_hest, "the same features under HEST-Bench's PCA and alpha"),
    "both ridge": Baseline(partial(_fit_encoder, colours=True), "ridge on colours and encoder features", ALPHAS),
    "both ridge, per slide": Baseline(
        partial(_fit_encoder, per_slide=True, colours=True),
        "the same, standardised within each slide",
        ALPHAS,
        transductive=True,
    ),
    "depth oracle": Baseline(_fit_depth, "diagnostic: a unit's measured total is known"),
}
