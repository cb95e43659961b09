"""Across scales: models trained at one unit size, or at all of them, tested at every size.

The phantom has six slides of 1.5 mm (seed 0): four train, the last tests. Models train on 100, 55, 16 or 8 µm units, on
8 µm bins binned to squares of 56 µm, or on all sizes at once. Their tests are at 2 to 200 µm, against the noise-free
rate and against measured counts. On Her2ST (C2 to C4 train, C5 tests: one patient) they are at 100 and 400 µm.

- *pixnet*: trained on 100, 56 or 55 µm it is `configs/efficientnet_lite.json` at stride 4, with its ridge branch and
  averaged weights. Smaller units need the head `programs`, which has no ridge branch.
- *head*: the same training without its ridge branch.
- *crop*: one crop per unit (`benchmarks.stnet`) with the same encoder, head, loss and pixels in training, without ridge
  branch and averaged weights.
- *stnet*: the same with ST-Net's crops, 224 px of 1 µm: finer and fewer, for as many pixels.
- *interpolation*: nearest and linear interpolation of the measured units of the test slide itself, which only a user
  with spots has (on Her2ST each spot from the others).

`bundle.metrics` scores everything; no score chooses a model or an epoch. Finished runs are lines of
`benchmarks/results/scales.csv` and are not repeated while their configuration is the same.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from bundle.data.fit_panel import fit_panel
from bundle.data.manifest import read_split
from bundle.data.panel import GenePanel, load_panel
from bundle.data.slide_units import load_units
from bundle.data.units import Units
from bundle.datasets.phantom import make_phantom
from bundle.metrics import ScoredSlide, score_slide, summarise
from bundle.metrics.bootstrap import BLOCK_UM, BLOCK_UNITS, block_bootstrap, block_sums
from bundle.metrics.score import Prediction, compare_units, scored_squares

from .scale_methods import (
    Recipe,
    configurations,
    has_ridge,
    predict_crop,
    predict_interpolated,
    predict_pixnet,
    test_units,
    train_crop,
    train_pixnet,
)
from .scale_report import METHODS, TABLE, TRAIN_UM, differences_table, newest, scores_table
from .store import RESULTS, Results, digest, provenance
from .workload import prepared_section, workspace

__all__ = ["main"]

TRAINED = METHODS[:-1]
TEST_UM = (2, 8, 16, 55, 100, 200)
PHANTOM: dict[str, Any] = {
    "slides": 6, "seed": 0, "size_um": 1500.0, "mpp": 0.5, "genes": 100,
    "units": "spot:100:120,spot:55:100,bin:16,bin:8,bin:2",
}  # fmt: skip
QUICK: dict[str, Any] = {**PHANTOM, "slides": 3, "size_um": 700.0, "mpp": 1.0, "genes": 20}
DRAWS = 200

#: Figures by the size tested, by what they are against (`truth` or `counts`).
Figures = dict[str, dict[str, dict[str, Any]]]


def figures(
    predict: Prediction, slide: dict[str, Any], panel: GenePanel, scales_um: Sequence[float]
) -> dict[str, dict[str, Any]]:
    """PCC@M and MSE at the units' size and at coarser ones, with bootstrap draws of PCC@M."""
    units, genes = slide["units"], panel.index(panel.main)
    wanted = [float(s) for s in scales_um if s > units.size_um]
    scores = score_slide(predict, units, panel.genes, slide["mpp"], wanted, panel.min_total)
    scored = ScoredSlide(slide["section"], slide["patient"], units.size_um, slide["filtered_units"], scores)
    found = summarise([scored], {panel.main: genes}, wanted)["scales"].values()
    return {
        f"{f['size_um']:g}": {
            "units": f["units"],
            "PCC@M": f["PCC@M"],
            "MSE": f["MSE"],
            "draws": _draws(predict, slide, panel, f["size_um"], genes),
        }
        for f in found
    }


def _draws(
    predict: Prediction, slide: dict[str, Any], panel: GenePanel, size_um: float, genes: np.ndarray
) -> np.ndarray:
    """PCC@M of resampled blocks of the slide, which are the same for every method and every origin of the grid."""
    units: Units = slide["units"]
    centers_um, block_um = units.centers_px * slide["mpp"], max(BLOCK_UNITS * size_um, BLOCK_UM)
    if size_um > units.size_um:
        grids = [squares for _, squares in scored_squares(units, slide["mpp"], size_um, panel.min_total)]
    else:
        grids = [sp.identity(len(units), format="csr")]
    middles = [(squares @ centers_um) / np.asarray(squares.sum(1)).reshape(-1, 1) for squares in grids]
    # A block is a place of the slide, even if a grid has no square in it.
    number = np.unique(np.floor(np.concatenate(middles) / block_um), axis=0, return_inverse=True)[1].ravel()
    grid, of_grids = np.repeat(np.arange(len(grids)), [len(m) for m in middles]), []
    for i, (squares, middle) in enumerate(zip(grids, middles, strict=True)):
        compared = compare_units(predict, units, panel.genes, squares, size_um)
        sums = block_sums(compared.prediction[:, genes], compared.truth[:, genes], middle, block_um)
        everywhere = np.zeros((number.max() + 1, *sums.shape[1:]))
        everywhere[np.unique(number[grid == i])] = sums
        of_grids.append(everywhere)
    # Genes of the grids side by side: blocks are drawn for all of them at once, and correlations averaged over both.
    return block_bootstrap([np.concatenate(of_grids, axis=2)], draws=DRAWS)


class Bench:
    """Does the runs that are not finished yet.

    Args:
        results: of finished runs.
        work: folder of data and trainings.
        budget_min: minutes after which no further run begins.
        only: the training sizes to train.
        methods: likewise, of `TRAINED`.
        redraw: repeat finished runs whose bootstrap draws are not in the cache.
    """

    def __init__(
        self,
        results: Results,
        work: Path,
        budget_min: float,
        only: Sequence[str] = tuple(TRAIN_UM),
        methods: Sequence[str] = TRAINED,
        redraw: bool = False,
    ) -> None:
        self.left = {
            f"{data}_{method}_{name}"
            for data in ("phantom", "her2st")
            for method in TRAINED
            for name in TRAIN_UM
            if name not in only or method not in methods
        }
        self.results = results
        self.work = work
        self.deadline = time.monotonic() + 60 * budget_min
        self.redraw = redraw

    def run(self, name: str, config: dict[str, Any], compute: Callable[[], Figures]) -> None:
        """Do and save a run, unless it is finished, not chosen, or no time is left."""
        key = f"{name}-{digest(config)}"
        if self.results.has(key, self.redraw):
            return
        if name in self.left or time.monotonic() > self.deadline:
            print(f"{name}: not run")
            return
        started = time.monotonic()
        found = compute()
        print(f"{name}: {time.monotonic() - started:.0f} s")
        data, method, trained = name.split("_", 2)
        rows, draws = [], {}
        for against, sizes in found.items():
            for size, figure in sizes.items():
                draws[f"{key}/{against}/{size}"] = figure.pop("draws")
                row = {"data": data, "method": method, "trained": trained, "against": against, "size_um": size}
                rows.append({**row, **figure})
        self.results.save(TABLE, key, rows, {"config": config, **provenance()}, draws)

    def of_phantom(self, data: Path, recipe: Recipe, about: dict[str, Any]) -> None:
        """All runs on generated slides."""

        @cache
        def test_slide() -> tuple[GenePanel, dict[str, Any], dict[str, Any]]:
            """The genes measured, the test slide with its noise-free truth, and with its counts."""
            everything = fit_panel(read_split(data, "training"))
            truth = test_units(data / "truth", everything, 2.0)
            return everything, truth, _same_order(test_units(data, everything, 2.0), truth)

        def both(predict: Prediction, panel: GenePanel) -> Figures:
            _, truth, counted = test_slide()
            return {
                "truth": figures(predict, truth, panel, TEST_UM),
                "counts": figures(predict, counted, panel, TEST_UM),
            }

        for name, sizes in TRAIN_UM.items():
            config = {
                "data": about,
                "recipe": asdict(recipe),
                "configurations": configurations(sizes),
                "train_um": sizes,
            }

            def dense(name: str = name, sizes: list[int] = sizes, ridge: bool = True) -> Figures:
                run = self._folder(f"phantom_{name}", recipe, about, sizes)
                train_pixnet(data, run, recipe, sizes)
                answer = predict_pixnet(data, run, test_slide()[1], ridge)
                return both(answer, load_panel(run / "models" / "panel.json"))

            def crop(
                name: str = name, sizes: list[int] = sizes, recipe: Recipe = recipe, method: str = "crop"
            ) -> Figures:
                run = self._folder(f"phantom_{method}_{name}", recipe, about, sizes)
                net, panel = train_crop(data, run, recipe, sizes)
                return both(predict_crop(net, recipe, test_slide()[1], max(sizes)), panel)

            self.run(f"phantom_pixnet_{name}", config, dense)
            if has_ridge(sizes):  # of the same training
                self.run(f"phantom_head_{name}", config, partial(dense, ridge=False))
            self.run(f"phantom_crop_{name}", config, crop)
            if sizes == [100]:
                fine = recipe.as_stnet()
                finer = {**config, "recipe": asdict(fine)}
                self.run(f"phantom_stnet_{name}", finer, partial(crop, recipe=fine, method="stnet"))
        for how in ("nearest", "linear"):
            for size in (100, 55, 16, 8):

                def interpolated(how: str = how, size: int = size) -> Figures:
                    everything, truth, _ = test_slide()
                    (measured,) = load_units(read_split(data, "test")[0], [size])
                    answer = predict_interpolated(
                        measured, everything.genes, truth, how, everything.min_total, leave_one_out=False
                    )
                    return both(answer, everything)

                self.run(f"phantom_interpolation_{how}_{size}", {"data": about, "how": how, "um": size}, interpolated)

    def of_her2st(self, data: Path, recipe: Recipe) -> None:
        """All runs on real tissue."""
        config = {
            "data": "her2st, C2 to C4 train, C5 tests",
            "recipe": asdict(recipe),
            "configurations": configurations([100]),
        }
        everything = fit_panel(read_split(data, "training"))
        slide = test_units(data, everything, 100.0)

        def scored(predict: Prediction, panel: GenePanel = everything) -> Figures:
            return {"counts": figures(predict, slide, panel, [400])}

        def dense(ridge: bool = True) -> Figures:
            run = self._folder("her2st", recipe, config["data"], [100])
            train_pixnet(data, run, recipe, [100])
            return scored(predict_pixnet(data, run, slide, ridge), load_panel(run / "models" / "panel.json"))

        def crop() -> Figures:
            net, panel = train_crop(data, self._folder("her2st_crop", recipe, config["data"], [100]), recipe, [100])
            return scored(predict_crop(net, recipe, slide, 100.0), panel)

        self.run("her2st_pixnet_train_100", config, dense)
        self.run("her2st_head_train_100", config, partial(dense, ridge=False))
        self.run("her2st_crop_train_100", config, crop)
        for how in ("nearest", "linear"):

            def interpolated(how: str = how) -> Figures:
                answer = predict_interpolated(
                    slide["units"], everything.genes, slide, how, everything.min_total, leave_one_out=True
                )
                return scored(answer)

            self.run(f"her2st_interpolation_{how}_100", {"data": config["data"], "how": how}, interpolated)

    def _folder(self, name: str, recipe: Recipe, about: Any, sizes_um: Sequence[float]) -> Path:
        own = digest([asdict(recipe), configurations(sizes_um), list(sizes_um), about])
        return self.work / "runs" / f"{name}_{own}"


def _same_order(counted: dict[str, Any], truth: dict[str, Any]) -> dict[str, Any]:
    """The measured 2 µm bins that the truth has too, in its order, so that one prediction serves both."""
    place = {name.split("_", 1)[1]: i for i, name in enumerate(counted["units"].barcodes)}
    order = [place[name.split("_", 1)[1]] for name in truth["units"].barcodes]
    return {**counted, "units": counted["units"].take(np.array(order))}


def _run_all(args: argparse.Namespace, recipe: Recipe, about: dict[str, Any], results: Results) -> None:
    with workspace(args.work) as work:
        bench = Bench(results, work, args.budget_min, args.only, args.methods, args.redraw)
        data = work / hashlib.sha256(json.dumps(about).encode()).hexdigest()[:8]
        if not (data / "dataset.json").is_file():
            make_phantom(data, **about)
        bench.of_phantom(data, recipe, about)
        if not args.quick and prepared_section(work) is not None:
            bench.of_her2st(work / "her2st", replace(recipe, mpp=2.8, unit_crop_px=64))


def main(argv: Sequence[str] | None = None) -> None:
    """Run it."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scales",
        description=(__doc__ or "").splitlines()[0],
    )
    parser.add_argument("--work", help="folder to keep data and runs in; a temporary one by default")
    parser.add_argument("--results", default=RESULTS, type=Path, help="folder of the results")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--budget-min", type=float, default=1e6, help="begin no run after so many minutes")
    parser.add_argument(
        "--steps", type=int, default=640, help="of training, each with two dense crops of 384 px or as many pixels"
    )
    parser.add_argument("--only", nargs="+", choices=list(TRAIN_UM), default=list(TRAIN_UM), help="train only these")
    parser.add_argument("--methods", nargs="+", choices=TRAINED, default=TRAINED, help="train only these")
    parser.add_argument("--redraw", action="store_true", help="repeat runs whose bootstrap draws are not in the cache")
    parser.add_argument("--quick", action="store_true", help="a tiny example, to see that it works")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    recipe = Recipe(mpp=2.0, crop_px=384, unit_crop_px=96, steps=args.steps, crops_per_slide=8)
    about, results = PHANTOM, Results(args.results)
    if args.quick:
        recipe = Recipe(mpp=2.0, crop_px=256, unit_crop_px=64, steps=2, crops_per_slide=2, max_units=16, n_programs=4)
        about, results = QUICK, Results(args.results / "quick")
    _run_all(args, recipe, about, results)
    results.collect()
    for data, what in (("phantom", ("truth", "counts")), ("her2st", ("counts",))):
        if newest(results, data, what[0]):
            print(f"\n# {data}\n\n{scores_table(results, data, what)}\n\n{differences_table(results, data, what[0])}")


if __name__ == "__main__":
    main()
