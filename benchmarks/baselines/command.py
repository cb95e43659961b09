"""`python -m benchmarks.baselines DATASET [--run RUN]... [--scales-um S...] [--json OUT] [--with-validation]`.

Every method sees the same units (on tissue, enough counts) and the same genes (the panel `mean250` of the training
slides), fits on training slides only, and predicts log1p CP10k of the test slides' units.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import torch

from bundle.data.fit_panel import fit_panel
from bundle.data.manifest import read_manifest, read_split
from bundle.data.panel import GenePanel
from bundle.errors import InputError
from bundle.files.atomic import write_json
from bundle.inference import model_sha256
from bundle.metrics import ExpressionMetric
from bundle.metrics.bootstrap import BLOCK, block_bootstrap, block_side, block_sums, interval
from transforms.slide import SlideError

from .methods import BASELINES, choose
from .slides import Slide, load_slide

__all__ = ["main", "run", "score", "table"]


def score(
    pred: Sequence[np.ndarray], slides: Sequence[Slide], panel: GenePanel, scales_um: Sequence[float] = ()
) -> dict[str, dict[str, Any]]:
    """Figures per scale, by the metric that scores PixNet; a square's prediction is the mean over its units.

    Args:
        pred: log1p CP10k of the panel's genes, (U, G) for each slide.
        slides: what they were predicted for.
        panel: the genes.
        scales_um: sides of the squares that units are binned to.
    """
    metric = ExpressionMetric(panel, [s.record for s in slides], lambda y: y, lambda _: None, scales_um)
    for index, (y, slide) in enumerate(zip(pred, slides, strict=True)):
        about: Any = {"index": index, "units": slide.units, "mpp": slide.mpp, "filtered_units": slide.filtered_units}
        metric([torch.from_numpy(np.asarray(y))], [about])
    return metric.aggregate()["scales"]


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
        scales_um: sides of the squares that units are binned to, besides their own scale.
        runs: run folders of PixNet, evaluated on the same test slides, to compare with the baselines.

    Returns:
        What was compared (`units`, `genes`, `same_patient` ...) and `baselines`: figures by name and scale.

    Raises:
        InputError: if there are no training or no test slides, no unit is left, or a run was trained on a
            test slide, or has predictions of earlier weights or of other genes or units.
    """
    manifest = read_manifest(dataset_dir)
    fitted_on = read_split(dataset_dir, "training") + (read_split(dataset_dir, "validation") if with_validation else [])
    if not fitted_on or not manifest["test"]:
        raise InputError(f"{dataset_dir} needs training and test slides; prepare it with --test.")
    panel = fit_panel(fitted_on, min_total=min_total)
    train = [load_slide(record, panel.genes, min_total) for record in fitted_on]
    test = [load_slide(record, panel.genes, min_total) for record in manifest["test"]]
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
            block_sums(p, t, s.centers_um, block_side(s.centers_um)) for (p, t), s in zip(pairs, test, strict=True)
        ]
        draws[name] = block_bootstrap(blocks, patients=patients)
        centre[name] = score(values, test, panel)["native"]["PCC@M"]
    found = {}
    for name in pred:
        if name != method:
            found[name] = [centre[method] - centre[name], *interval(draws[method] - draws[name])]
    return found


def _of_run(folder: Path, panel: GenePanel, test: Sequence[Slide]) -> list[np.ndarray]:
    """Predictions of a run of PixNet for the test slides, written by `pixnet evaluate`, (U, G) each."""
    weights, pred = model_sha256(folder / "models" / "model.pt"), []
    for slide in test:
        path = folder / "predictions" / "test" / f"{slide.name}.h5ad"
        if not path.is_file():
            raise InputError(f"{path} is missing; score the run on this data set first: pixnet evaluate {folder}.")
        adata = ad.read_h5ad(path)
        about = adata.uns.get("pixnet", {})
        seen = {s.name for s in test} & {str(name) for name in about.get("training_sections", ())}
        if seen:
            raise InputError(
                f"{folder} was trained on {', '.join(sorted(seen))}, which is tested here; compare one that was not."
            )
        if about.get("checkpoint_sha256") != weights:
            raise InputError(
                f"{path} is not by the weights in {folder / 'models'}; score the run again: pixnet evaluate {folder}."
            )
        if slide.units is None or list(adata.obs_names) != list(slide.units.barcodes):
            raise InputError(f"{path} holds predictions of other units than {slide.name}'s in this data set.")
        if set(adata.var_names) != set(panel.genes):
            raise InputError(f"{folder} predicts another panel than this data set's training slides give.")
        pred.append(np.asarray(adata[:, panel.genes].X, dtype=np.float64))
    return pred


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
                f"{name}, PCC@M minus the other's (95 % by paired bootstrap over blocks of {BLOCK})",
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
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.baselines", description="Baselines under PixNet's protocol."
    )
    parser.add_argument("dataset", help="folder with dataset.json")
    parser.add_argument("--json", metavar="OUT", help="write the figures here")
    parser.add_argument("--with-validation", action="store_true", help="fit on the validation slides too")
    parser.add_argument("--scales-um", type=float, nargs="*", default=[], metavar="S", help="squares to bin units to")
    parser.add_argument("--run", action="append", default=[], metavar="RUN", help="an evaluated run to compare with")
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
