"""Baselines under PixNet's protocol: the figures that a model must beat on a data set.

`python -m benchmarks.baselines DATASET [--run RUN]... [--scales-um S...] [--json OUT] [--with-validation]`

Every method sees the same units (on tissue, enough counts) and the same genes (the panel `mean250` of the training
slides), is fitted on training slides alone, and predicts y = log1p CP10k of the test slides' units.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import torch
from sklearn.linear_model import Ridge

from bundle.errors import InputError
from bundle.expression import eligible, log1p_cp10k
from bundle.files import write_json
from bundle.manifest import read_manifest, read_split, slide_name
from bundle.metrics import ExpressionMetric
from bundle.metrics.bootstrap import BLOCK_UNITS, block_bootstrap, block_sums, interval, pitch
from bundle.metrics.depth import fit_depth
from bundle.metrics.moments import correlation, moments
from bundle.panel import GenePanel, fit_panel, load_units
from bundle.units import Units
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
        record: its record in the data set.
        units: the measured units, in the same order.
        filtered_units: how many were left out.
    """

    name: str
    image: Path
    mpp: float
    size_um: float
    centers_um: np.ndarray
    total: np.ndarray
    y: np.ndarray
    record: dict[str, Any] = field(default_factory=dict)
    units: Units | None = None
    filtered_units: int = 0

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


def score(
    pred: Sequence[np.ndarray], slides: Sequence[Slide], panel: GenePanel, scales_um: Sequence[float] = ()
) -> dict[str, dict[str, Any]]:
    """Figures per scale, by the metric that scores PixNet; a cell's prediction is the mean of its units' y.

    Args:
        pred: y of the panel's genes, (U, G) for each slide.
        slides: what they were predicted for.
        panel: the genes.
        scales_um: sides of the cells that units are summed to.
    """
    metric = ExpressionMetric(panel, [s.record for s in slides], lambda y: y, lambda _: None, scales_um)
    for index, (y, slide) in enumerate(zip(pred, slides, strict=True)):
        about: Any = {"index": index, "units": slide.units, "mpp": slide.mpp, "filtered_units": slide.filtered_units}
        metric([torch.from_numpy(np.asarray(y))], [about])
    return metric.aggregate()["scales"]


def _mean_pcc(pred: np.ndarray, truth: np.ndarray) -> float:
    """Mean over genes of the correlation within one slide; what choices on training slides go by."""
    return float(correlation(moments(torch.from_numpy(pred), torch.from_numpy(truth))).nanmean())


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
    predict = fit_depth([s.total for s in train], [s.y for s in train])
    return lambda slide: predict(slide.total)


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
        return float(np.mean([_mean_pcc(p, s.y) for p, s in zip(pred, train, strict=True)]))

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


def run(
    dataset_dir: str | Path,
    with_validation: bool = False,
    min_total: float = 200.0,
    scales_um: Sequence[float] = (),
    runs: Sequence[str | Path] = (),
) -> dict[str, Any]:
    """Fit every baseline on a prepared data set's training slides and score it on the test slides.

    Args:
        dataset_dir: folder with `dataset.json`.
        with_validation: fit on the validation slides too.
        min_total: units with fewer counts are left out.
        scales_um: sides of the cells that units are summed to, beside their own scale.
        runs: run folders of PixNet, evaluated on the same test slides, to stand beside the baselines.

    Returns:
        What was compared (`units`, `genes`, `same_patient` ...) and `baselines`: figures by name and scale.

    Raises:
        InputError: if there are no training or no test slides, no unit is left, or a run predicts other genes or units.
    """
    manifest = read_manifest(dataset_dir)
    fitted_on = read_split(dataset_dir, "training") + (read_split(dataset_dir, "validation") if with_validation else [])
    if not fitted_on or not manifest["test"]:
        raise InputError(f"{dataset_dir} needs training and test slides; prepare it with --test.")
    panel = fit_panel(fitted_on, min_total=min_total)
    train = [_slide(record, panel.genes, min_total) for record in fitted_on]
    test = [_slide(record, panel.genes, min_total) for record in manifest["test"]]
    rows: dict[str, Any] = {}
    pred: dict[str, list[np.ndarray]] = {}
    for name, baseline in BASELINES.items():
        value = choose(baseline, train)
        predict = baseline.fit(train, value)
        label = f"{name} (transductive)" if baseline.transductive else name
        pred[label] = [predict(s) for s in test]
        rows[label] = {"scales": score(pred[label], test, panel, scales_um)}
        if len(baseline.grid) > 1:
            rows[label]["chosen"] = value
    for folder in runs:
        label = f"PixNet, {Path(folder).name}"
        pred[label] = _of_run(Path(folder), panel, test)
        rows[label] = {"scales": score(pred[label], test, panel, scales_um)}
        rows[label]["ahead_of"] = _differences(label, pred, test, panel)
    return {
        "dataset": manifest.get("name", ""),
        "split_by": manifest.get("split_by", "patient"),
        "same_patient": panel.shares_patients(manifest["test"]),
        "transcriptome": panel.transcriptome,
        "min_total": min_total,
        "fitted_on": [{"section": s.name, "units": len(s.y)} for s in train],
        "tested_on": [{"section": s.name, "units": len(s.y)} for s in test],
        "panel": panel.main,
        "genes": panel.panels[panel.main],
        "baselines": rows,
    }


def _differences(
    method: str, pred: dict[str, list[np.ndarray]], test: Sequence[Slide], panel: GenePanel
) -> dict[str, list[float]]:
    """PCC@M of `method` minus each other's: [difference, lower, upper], 95 % by paired block bootstrap."""
    genes = panel.index(panel.main)
    patients = [str(s.record.get("patient", s.name)) for s in test]
    draws, centre = {}, {}
    for name, values in pred.items():
        pairs = [(p[:, genes], s.y[:, genes]) for p, s in zip(values, test, strict=True)]
        blocks = [
            block_sums(p, t, s.centers_um, BLOCK_UNITS * pitch(s.centers_um))
            for (p, t), s in zip(pairs, test, strict=True)
        ]
        draws[name] = block_bootstrap(blocks, patients=patients)
        centre[name] = score(values, test, panel)["native"]["PCC@M"]
    found = {}
    for name in pred:
        if name != method:
            found[name] = [centre[method] - centre[name], *interval(draws[method] - draws[name])]
    return found


def _of_run(folder: Path, panel: GenePanel, test: Sequence[Slide]) -> list[np.ndarray]:
    """What a run of PixNet predicted for the test slides, as `pixnet evaluate` left it, (U, G) each."""
    pred = []
    for slide in test:
        path = folder / "predictions" / "test" / f"{slide.name}.h5ad"
        if not path.is_file():
            raise InputError(f"{path} is missing; score the run on this data set first: pixnet evaluate {folder}.")
        adata = ad.read_h5ad(path)
        if slide.units is None or list(adata.obs_names) != list(slide.units.barcodes):
            raise InputError(f"{path} answers for other units than {slide.name}'s in this data set.")
        if set(adata.var_names) != set(panel.genes):
            raise InputError(f"{folder} predicts another panel than this data set's training slides give.")
        pred.append(np.asarray(adata[:, panel.genes].X, dtype=np.float64))
    return pred


def _slide(record: dict[str, Any], genes: Sequence[str], min_total: float) -> Slide:
    everything = load_units(record)[0]
    units = everything.take(eligible(everything, min_total, training=False))
    mpp = record.get("mpp") or units.mpp
    if mpp is None or not len(units):
        raise InputError(f"{record['image']} has no mpp, or no unit on tissue with {min_total:g} counts or more.")
    y = log1p_cp10k(units.counts_of(genes), units.total).astype(np.float64)
    return Slide(
        slide_name(record),
        Path(record["image"]),
        mpp,
        units.size_um,
        units.centers_px * mpp,
        units.total,
        y,
        record,
        units,
        len(everything) - len(units),
    )


FIGURES = ("PCC@F", "PCC@S", "PCC@M", "PCC@M_residual", "PCC@M_hvg50", "ceiling@M", "MSE", "MAE")


def table(result: dict[str, Any]) -> str:
    """The result as a Markdown table for each scale."""
    parts = []
    for scale in sorted({s for row in result["baselines"].values() for s in row["scales"]}, reverse=True):
        rows = {name: row["scales"][scale] for name, row in result["baselines"].items() if scale in row["scales"]}
        first = next(iter(rows.values()))
        units = " (the units themselves)" if scale == "native" else ""
        title = f"Scale {first['size_um']:g} µm{units}, n = {first['units']}"
        lines = [title, "", "| method | " + " | ".join(FIGURES) + " |", "| --- |" + " --- |" * len(FIGURES)]
        for name, row in rows.items():
            lines.append(f"| {name} | " + " | ".join(f"{row[key]:.3f}" for key in FIGURES) + " |")
        parts.append("\n".join(lines))
    for name, row in result["baselines"].items():
        if "ahead_of" in row:
            lines = [
                f"{name}, PCC@M minus the other's (95 % by paired bootstrap over {BLOCK_UNITS} x {BLOCK_UNITS} units)",
                "",
            ]
            lines += ["| other | difference | interval |", "| --- | --- | --- |"]
            lines += [
                f"| {other} | {d:+.3f} | [{lo:+.3f}, {hi:+.3f}] |" for other, (d, lo, hi) in row["ahead_of"].items()
            ]
            parts.append("\n".join(lines))
    return "\n\n".join(parts)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.baselines", description=__doc__.split("\n")[0])
    parser.add_argument("dataset", help="folder with dataset.json")
    parser.add_argument("--json", metavar="OUT", help="write the figures here")
    parser.add_argument("--with-validation", action="store_true", help="fit on the validation slides too")
    parser.add_argument("--scales-um", type=float, nargs="*", default=[], metavar="S", help="cells to sum units to")
    parser.add_argument("--run", action="append", default=[], metavar="RUN", help="an evaluated run to stand beside")
    arguments = parser.parse_args(argv)
    try:
        result = run(arguments.dataset, arguments.with_validation, scales_um=arguments.scales_um, runs=arguments.run)
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
