"""Baselines under PixNet's protocol: the figures that a model must beat on a data set.

`python -m benchmarks.baselines DATASET [--json OUT] [--with-validation]`

Every method sees the same units (on tissue, enough counts) and the same genes (the panel `mean250` of the training
slides), is fitted on training slides alone, and predicts y = log1p CP10k of the test slides' units at native scale.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import Ridge

from bundle.errors import InputError
from bundle.expression import eligible, log1p_cp10k
from bundle.files import write_json
from bundle.manifest import read_manifest, slide_name
from bundle.panel import fit_panel, load_units
from transforms.slide import SlideError, SlideReader

__all__ = ["BASELINES", "Baseline", "Slide", "choose", "colour_statistics", "main", "run", "score", "table"]

FEATURE_MPP = 1.0
SURROUND = 2.5
PERCENTILES = (10, 25, 50, 75, 90)
ALPHAS = 10.0 ** np.arange(0, 6.5, 0.5)
BANDWIDTHS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.45, 0.7, 1.0)
# Optical density of haematoxylin, eosin and DAB; Ruifrok & Johnston, "Quantification of histochemical staining", 2001.
STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
UNMIX = np.linalg.inv(STAINS / np.linalg.norm(STAINS, axis=1, keepdims=True))


@dataclass(frozen=True, eq=False)
class Slide:
    """One slide as the baselines see it.

    Attributes:
        name: its name.
        image: the slide's file.
        mpp: micrometres per level-0 pixel.
        size_um: diameter (or side) of its units.
        centers_um: centres (x, y) of the units, (U, 2).
        total: counts of all genes per unit, (U,).
        y: log1p CP10k of the panel, (U, G).
    """

    name: str
    image: Path
    mpp: float
    size_um: float
    centers_um: np.ndarray
    total: np.ndarray
    y: np.ndarray

    @cached_property
    def colours(self) -> np.ndarray:
        """Colour statistics of each unit and its surround, (U, F)."""
        return colour_statistics(self)

    @cached_property
    def place(self) -> np.ndarray:
        """Position within the section: from the units' centroid, in units of their spread, (U, 2)."""
        centred = self.centers_um - self.centers_um.mean(0)
        return centred / max(float(np.sqrt((centred**2).sum(1).mean())), 1e-9)


Predict = Callable[[Slide], np.ndarray]


# Scoring --------------------------------------------------------------------------------------------------------------


def score(pred: Sequence[np.ndarray], truth: Sequence[np.ndarray]) -> dict[str, float]:
    """Score predictions of y per slide.

    PCC is taken per gene within each slide, averaged over slides, then summarised over genes: first quartile (F),
    median (S), mean (M). A gene is left out where the truth is constant; a constant prediction scores 0.

    Args:
        pred: (U, G) for each slide.
        truth: (U, G) for each slide.

    Returns:
        `pcc_f`, `pcc_s`, `pcc_m`, `mse`, `mae`, and `n_genes_constant`, the genes left out on every slide.
    """
    pcc = np.array([_correlation(p, t) for p, t in zip(pred, truth, strict=True)])
    known = np.isfinite(pcc)
    per_gene = np.where(known, pcc, 0).sum(0)[known.any(0)] / known.sum(0)[known.any(0)]
    first, median = np.quantile(per_gene, (0.25, 0.5)) if per_gene.size else (np.nan, np.nan)
    error = [p.astype(np.float64) - t for p, t in zip(pred, truth, strict=True)]
    return {
        "pcc_f": float(first),
        "pcc_s": float(median),
        "pcc_m": float(per_gene.mean()) if per_gene.size else float("nan"),
        "mse": float(np.mean([(e**2).mean() for e in error])),
        "mae": float(np.mean([np.abs(e).mean() for e in error])),
        "n_genes_constant": int((~known.any(0)).sum()),
    }


def _correlation(pred: np.ndarray, truth: np.ndarray) -> np.ndarray:
    p = pred - pred.mean(0, dtype=np.float64)
    t = truth - truth.mean(0, dtype=np.float64)
    pp, tt = (p * p).sum(0), (t * t).sum(0)
    varies, predicted = tt > 1e-10 * len(t), pp > 1e-10 * len(p)
    pcc = np.divide((p * t).sum(0), np.sqrt(pp * tt), out=np.zeros(p.shape[1]), where=varies & predicted)
    return np.where(varies, pcc, np.nan)


# Baselines ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Baseline:
    """A way to predict.

    Attributes:
        fit: from training slides and one value of `grid` to a prediction.
        grid: values to choose from by leaving out one training section after the other.
        about: what it shows.
        transductive: whether it uses statistics of the test slide's own image.
    """

    fit: Callable[[Sequence[Slide], float], Predict]
    about: str
    grid: tuple[float, ...] = (0.0,)
    transductive: bool = False


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


def _fit_depth(train: Sequence[Slide], _: float) -> Predict:
    model = Ridge(alpha=1e-6).fit(np.concatenate([_log_total(s) for s in train]), np.concatenate([s.y for s in train]))
    return lambda slide: model.predict(_log_total(slide))


def _log_total(slide: Slide) -> np.ndarray:
    return np.log(slide.total)[:, None]


def _fit_colour(train: Sequence[Slide], alpha: float, per_slide: bool = False, shuffled: bool = False) -> Predict:
    features = [s.colours for s in train]
    if shuffled:
        rng = np.random.default_rng(0)
        features = [f[rng.permutation(len(f))] for f in features]
    pooled = np.concatenate(features)
    mean, std = pooled.mean(0), pooled.std(0) + 1e-6

    def standardise(f: np.ndarray) -> np.ndarray:
        return (f - f.mean(0)) / (f.std(0) + 1e-6) if per_slide else (f - mean) / std

    model = Ridge(alpha=alpha).fit(
        np.concatenate([standardise(f) for f in features]), np.concatenate([s.y for s in train])
    )
    return lambda slide: model.predict(standardise(slide.colours))


def _fit_colour_per_slide(train: Sequence[Slide], alpha: float) -> Predict:
    return _fit_colour(train, alpha, per_slide=True)


def _fit_shuffled(train: Sequence[Slide], alpha: float) -> Predict:
    return _fit_colour(train, alpha, shuffled=True)


BASELINES: dict[str, Baseline] = {
    "mean": Baseline(_fit_mean, "each gene's training mean: what MSE and MAE are worth"),
    "position": Baseline(_fit_position, "no image: where in its section a unit lies", BANDWIDTHS),
    "shuffled image": Baseline(_fit_shuffled, "colour ridge taught with another unit's image", tuple(ALPHAS)),
    "colour ridge": Baseline(_fit_colour, "ridge on colour statistics", tuple(ALPHAS)),
    "colour ridge, per slide": Baseline(
        _fit_colour_per_slide, "the same, standardised within each slide", tuple(ALPHAS), transductive=True
    ),
    "depth oracle": Baseline(_fit_depth, "diagnostic: a unit's measured total is known"),
}


def choose(baseline: Baseline, train: Sequence[Slide]) -> float:
    """The value of the baseline's grid with the highest PCC@M over held-out training sections.

    Where there is one section alone, the middle of the grid.
    """
    if len(baseline.grid) == 1 or len(train) == 1:
        return baseline.grid[len(baseline.grid) // 2]

    def held_out(value: float) -> float:
        pred = [baseline.fit([s for s in train if s is not left], value)(left) for left in train]
        return score(pred, [s.y for s in train])["pcc_m"]

    return max(baseline.grid, key=held_out)


# Colour statistics ----------------------------------------------------------------------------------------------------


def colour_statistics(slide: Slide) -> np.ndarray:
    """Hand-made statistics of each unit's disk and of a disk 2.5 times as wide, (U, F).

    Mean, standard deviation and percentiles of red, green, blue, of the optical densities of haematoxylin, eosin
    and the rest, and of saturation; mean gradient of brightness and haematoxylin.
    """
    reader = SlideReader().open(slide.image, slide.mpp)
    radii_px = np.array([1.0, SURROUND]) * slide.size_um / 2 / FEATURE_MPP
    half = int(np.ceil(radii_px[1])) + 1
    axis = np.arange(-half, half) + 0.5
    distance_px = np.hypot(axis[:, None], axis[None])
    disks = [distance_px < max(radius, 1.0) for radius in radii_px]
    rows = []
    for x_px, y_px in np.rint(slide.centers_um / FEATURE_MPP).astype(int):
        patch = reader.read_region(int(x_px) - half, int(y_px) - half, 2 * half, 2 * half, FEATURE_MPP)
        channels, gradient = _channels(patch)
        rows.append(np.concatenate([_statistics(channels[disk], gradient[disk]) for disk in disks]))
    return np.array(rows)


def _channels(patch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rgb = patch.astype(np.float32)
    stains = -np.log10((rgb + 1) / 256) @ UNMIX.astype(np.float32)
    high, low = rgb.max(-1), rgb.min(-1)
    saturation = (high - low) / np.maximum(high, 1)
    gradient = [np.hypot(*np.gradient(image)) for image in (rgb.mean(-1), stains[..., 0])]
    return np.concatenate([rgb, stains, saturation[..., None]], axis=-1), np.stack(gradient, axis=-1)


def _statistics(channels: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    percentiles = np.percentile(channels, PERCENTILES, axis=0).ravel()
    return np.concatenate([channels.mean(0), channels.std(0), percentiles, gradient.mean(0)])


# Command --------------------------------------------------------------------------------------------------------------


def run(dataset_dir: str | Path, with_validation: bool = False, min_total: float = 200.0) -> dict[str, Any]:
    """Fit every baseline on a prepared data set's training slides and score it on the test slides.

    Args:
        dataset_dir: folder with `dataset.json`.
        with_validation: fit on the validation slides too.
        min_total: units with fewer counts are left out.

    Returns:
        What was compared (`units`, `genes`, `same_patient` ...) and `baselines`: the figures of `score`, by name.

    Raises:
        InputError: if there are no training or no test slides, or no unit is left.
    """
    manifest = read_manifest(dataset_dir)
    fitted_on = [*manifest["training"], *(manifest["validation"] if with_validation else [])]
    if not fitted_on or not manifest["test"]:
        raise InputError(f"{dataset_dir} needs training and test slides; prepare it with --test.")
    panel = fit_panel(fitted_on, min_total=min_total, transcriptome=manifest.get("transcriptome", "whole"))
    genes = panel.panels[panel.main]
    train = [_slide(record, genes, min_total) for record in fitted_on]
    test = [_slide(record, genes, min_total) for record in manifest["test"]]
    truth = [s.y for s in test]
    rows: dict[str, Any] = {}
    for name, baseline in BASELINES.items():
        value = choose(baseline, train)
        predict = baseline.fit(train, value)
        chosen = {"chosen": value} if len(baseline.grid) > 1 else {}
        rows[name] = {**score([predict(s) for s in test], truth), **chosen, "transductive": baseline.transductive}
    return {
        "dataset": manifest.get("name", ""),
        "split_by": manifest.get("split_by", "patient"),
        "same_patient": manifest.get("split_by", "patient") != "patient",
        "transcriptome": manifest.get("transcriptome", "whole"),
        "min_total": min_total,
        "fitted_on": [{"section": s.name, "units": len(s.y)} for s in train],
        "tested_on": [{"section": s.name, "units": len(s.y)} for s in test],
        "panel": panel.main,
        "genes": genes,
        "baselines": rows,
    }


def _slide(record: dict[str, Any], genes: Sequence[str], min_total: float) -> Slide:
    units = load_units(record)[0]
    units = units.take(eligible(units, min_total))
    mpp = record.get("mpp") or units.mpp
    if mpp is None or not len(units):
        raise InputError(f"{record['image']} has no mpp, or no unit on tissue with {min_total:g} counts or more.")
    y = log1p_cp10k(units.counts_of(genes), units.total).astype(np.float64)
    return Slide(slide_name(record), Path(record["image"]), mpp, units.size_um, units.centers_px * mpp, units.total, y)


def table(result: dict[str, Any]) -> str:
    """The result as a Markdown table."""
    lines = ["| baseline | PCC@F | PCC@S | PCC@M | MSE | MAE |", "| --- | --- | --- | --- | --- | --- |"]
    for name, row in result["baselines"].items():
        label = f"{name} (transductive)" if row["transductive"] else name
        figures = " | ".join(f"{row[key]:.3f}" for key in ("pcc_f", "pcc_s", "pcc_m", "mse", "mae"))
        lines.append(f"| {label} | {figures} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.baselines", description=__doc__.split("\n")[0])
    parser.add_argument("dataset", help="folder with dataset.json")
    parser.add_argument("--json", metavar="OUT", help="write the figures here")
    parser.add_argument("--with-validation", action="store_true", help="fit on the validation slides too")
    arguments = parser.parse_args(argv)
    try:
        result = run(arguments.dataset, arguments.with_validation)
    except (InputError, SlideError) as error:
        parser.exit(2, f"{error}\n")
    fitted, tested = (", ".join(s["section"] for s in result[key]) for key in ("fitted_on", "tested_on"))
    print(
        f"{result['dataset']}: {len(result['genes'])} genes ({result['panel']}), fitted on {fitted}; tested on {tested}"
    )
    print(f"split by {result['split_by']}, same patient: {str(result['same_patient']).lower()}\n")
    print(table(result))
    if arguments.json:
        write_json(arguments.json, result)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
