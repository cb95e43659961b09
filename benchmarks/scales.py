"""Across scales: models trained at one unit size, or at all of them, tested at every size.

`python -m benchmarks.scales`: on the frozen phantom (six slides of 1.5 mm, seed 0: four train, the last tests), models
trained on 100, 55, 16 or 8 µm units, on 8 µm bins summed to squares of 56 µm or on all sizes at once, tested at 2 to
200 µm against the noise-free rate and against measured counts; on Her2ST (C2 to C4 train, C5 tests: one patient) at 100
µm and in 400 µm cells. Trained on 100, 56 or 55 µm, the dense model is `configs/efficientnet_lite.json` as it is, its
ridge on frozen filters and averaged weights included, at stride 4, and beside it the same training's head alone;
smaller units need the head `programs`, which has no such ridge. Rivals: a crop model with the same encoder, head, loss
and pixels in training (`benchmarks.stnet`), which has neither, and nearest and linear interpolation of the measured
units of the test slide itself, which only a user with spots has (on Her2ST each spot from the others). Trained on
100 µm there is also a crop model with the crops that ST-Net has, 224 px of 1 µm, `stnet`: finer and fewer, for as many
pixels (on Her2ST `benchmarks.accuracy` has it). Everything is
scored by `bundle.metrics`; no model or epoch is chosen on the way.

A finished cell is a small JSON under `--results` and is not computed again while its configuration is the same. The
same command goes on where it was.
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
from bundle.files.atomic import replacing, write_json
from bundle.metrics import ScoredSlide, score_slide, summarise
from bundle.metrics.bootstrap import BLOCK_UM, BLOCK_UNITS, block_bootstrap, block_sums, interval
from bundle.metrics.score import Prediction, compare_units, scored_squares

from .accuracy.cells import digest, provenance
from .scale_methods import (
    Recipe,
    answer_crop,
    answer_interpolated,
    answer_pixnet,
    configurations,
    has_ridge,
    test_units,
    train_crop,
    train_pixnet,
)
from .workload import prepared_section, workspace

__all__ = ["main"]

TRAIN_UM = {
    "train_100": [100],
    "train_55": [55],
    "train_56": [56],  # squares, which the 8 µm bins are summed to
    "train_16": [16],
    "train_8": [8],
    "train_all": [100, 55, 16, 8, 2],
}
#: Whose measured units are interpolated beside a training, where it is not its own size.
MEASURED_UM = {"train_56": "8", "train_all": "100"}
#: The dense model, its head alone, the crop model, and the one with ST-Net's crops.
TRAINED = ("pixnet", "head", "crop", "stnet")
TEST_UM = (2, 8, 16, 55, 100, 200)
PHANTOM: dict[str, Any] = {
    "slides": 6, "seed": 0, "size_um": 1500.0, "mpp": 0.5, "genes": 100,
    "units": "spot:100:120,spot:55:100,bin:16,bin:8,bin:2",
}  # fmt: skip
QUICK: dict[str, Any] = {**PHANTOM, "slides": 3, "size_um": 700.0, "mpp": 1.0, "genes": 20}
DRAWS = 200

Cell = dict[str, Any]


def figures(predict: Prediction, slide: dict[str, Any], panel: GenePanel, scales_um: Sequence[float]) -> Cell:
    """PCC@M and MSE at the units' size and at coarser ones, with bootstrap draws of PCC@M."""
    units, genes = slide["units"], panel.index(panel.main)
    wanted = [float(s) for s in scales_um if s > units.size_um]
    scores = score_slide(predict, units, panel.genes, slide["mpp"], wanted, panel.min_total)
    scored = ScoredSlide(slide["section"], slide["patient"], units.size_um, slide["filtered_units"], scores)
    found = summarise([scored], {panel.main: genes}, wanted)["scales"].values()
    return {
        f"{f['size_um']:g}": {
            "PCC@M": f["PCC@M"],
            "MSE": f["MSE"],
            "units": f["units"],
            "draws": [round(float(d), 4) for d in _draws(predict, slide, panel, f["size_um"], genes)],
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
        grids = [cells for _, cells in scored_squares(units, slide["mpp"], size_um, panel.min_total)]
    else:
        grids = [sp.identity(len(units), format="csr")]
    middles = [(cells @ centers_um) / np.asarray(cells.sum(1)).reshape(-1, 1) for cells in grids]
    # A block is a place of the slide, though a grid may have no cell in it.
    number = np.unique(np.floor(np.concatenate(middles) / block_um), axis=0, return_inverse=True)[1].ravel()
    grid, of_grids = np.repeat(np.arange(len(grids)), [len(m) for m in middles]), []
    for i, (cells, middle) in enumerate(zip(grids, middles, strict=True)):
        compared = compare_units(predict, units, panel.genes, cells, size_um)
        sums = block_sums(compared.prediction[:, genes], compared.truth[:, genes], middle, block_um)
        everywhere = np.zeros((number.max() + 1, *sums.shape[1:]))
        everywhere[np.unique(number[grid == i])] = sums
        of_grids.append(everywhere)
    # Genes of the grids side by side: blocks are drawn for all of them at once, and correlations averaged over both.
    return block_bootstrap([np.concatenate(of_grids, axis=2)], draws=DRAWS)


class Bench:
    """Runs cells that are not there yet.

    Args:
        results: folder of the finished cells.
        work: folder of data and runs.
        budget_min: minutes after which no further cell is begun.
        only: the training sizes that are trained; finished cells of others are read all the same.
        methods: likewise, of `TRAINED`.
    """

    def __init__(
        self,
        results: Path,
        work: Path,
        budget_min: float,
        only: Sequence[str] = tuple(TRAIN_UM),
        methods: Sequence[str] = TRAINED,
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
        self.cells: dict[str, Cell] = {}

    def cell(self, name: str, config: dict[str, Any], compute: Callable[[], Cell]) -> None:
        """A finished cell of the same configuration, or a new one if there is time."""
        asked = digest(config)
        path = self.results / f"{name}.json"
        if path.is_file() and json.loads(path.read_text())["config_hash"] == asked:
            self.cells[name] = json.loads(path.read_text())
            return
        if name in self.left or time.monotonic() > self.deadline:
            print(f"{name}: left for another time")
            return
        started = time.monotonic()
        found = compute()
        print(f"{name}: {time.monotonic() - started:.0f} s")
        self.cells[name] = {"config_hash": asked, "config": config, **provenance(), **found}
        write_json(path, self.cells[name])

    def of_phantom(self, data: Path, recipe: Recipe, about: dict[str, Any]) -> None:
        """All cells on generated slides."""

        @cache
        def test_slide() -> tuple[GenePanel, dict[str, Any], dict[str, Any]]:
            """The genes measured, the test slide with its noise-free truth, and with its counts."""
            everything = fit_panel(read_split(data, "training"))
            truth = test_units(data / "truth", everything, 2.0)
            return everything, truth, _same_order(test_units(data, everything, 2.0), truth)

        def both(predict: Prediction, panel: GenePanel) -> Cell:
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

            def dense(name: str = name, sizes: list[int] = sizes, ridge: bool = True) -> Cell:
                run = self._run(f"phantom_{name}", recipe, about, sizes)
                train_pixnet(data, run, recipe, sizes)
                answer = answer_pixnet(data, run, test_slide()[1], ridge)
                return both(answer, load_panel(run / "models" / "panel.json"))

            def crop(name: str = name, sizes: list[int] = sizes, recipe: Recipe = recipe, method: str = "crop") -> Cell:
                run = self._run(f"phantom_{method}_{name}", recipe, about, sizes)
                net, panel = train_crop(data, run, recipe, sizes)
                return both(answer_crop(net, recipe, test_slide()[1], max(sizes)), panel)

            self.cell(f"phantom_pixnet_{name}", config, dense)
            if has_ridge(sizes):  # of the same training
                self.cell(f"phantom_head_{name}", config, partial(dense, ridge=False))
            self.cell(f"phantom_crop_{name}", config, crop)
            if sizes == [100]:
                fine = recipe.as_stnet()
                asked = {**config, "recipe": asdict(fine)}
                self.cell(f"phantom_stnet_{name}", asked, partial(crop, recipe=fine, method="stnet"))
        for how in ("nearest", "linear"):
            for size in (100, 55, 16, 8):

                def carried(how: str = how, size: int = size) -> Cell:
                    everything, truth, _ = test_slide()
                    (measured,) = load_units(read_split(data, "test")[0], [size])
                    answer = answer_interpolated(
                        measured, everything.genes, truth, how, everything.min_total, leave_one_out=False
                    )
                    return both(answer, everything)

                self.cell(f"phantom_interpolation_{how}_{size}", {"data": about, "how": how, "um": size}, carried)

    def of_her2st(self, data: Path, recipe: Recipe) -> None:
        """All cells on real tissue."""
        config = {
            "data": "her2st, C2 to C4 train, C5 tests",
            "recipe": asdict(recipe),
            "configurations": configurations([100]),
        }
        everything = fit_panel(read_split(data, "training"))
        slide = test_units(data, everything, 100.0)

        def scored(predict: Prediction, panel: GenePanel = everything) -> Cell:
            return {"counts": figures(predict, slide, panel, [400])}

        def dense(ridge: bool = True) -> Cell:
            run = self._run("her2st", recipe, config["data"], [100])
            train_pixnet(data, run, recipe, [100])
            return scored(answer_pixnet(data, run, slide, ridge), load_panel(run / "models" / "panel.json"))

        def crop() -> Cell:
            net, panel = train_crop(data, self._run("her2st_crop", recipe, config["data"], [100]), recipe, [100])
            return scored(answer_crop(net, recipe, slide, 100.0), panel)

        self.cell("her2st_pixnet_train_100", config, dense)
        self.cell("her2st_head_train_100", config, partial(dense, ridge=False))
        self.cell("her2st_crop_train_100", config, crop)
        for how in ("nearest", "linear"):

            def carried(how: str = how) -> Cell:
                answer = answer_interpolated(
                    slide["units"], everything.genes, slide, how, everything.min_total, leave_one_out=True
                )
                return scored(answer)

            self.cell(f"her2st_interpolation_{how}_100", {"data": config["data"], "how": how}, carried)

    def _run(self, name: str, recipe: Recipe, about: Any, sizes_um: Sequence[float]) -> Path:
        asked = digest([asdict(recipe), configurations(sizes_um), list(sizes_um), about])
        return self.work / "runs" / f"{name}_{asked}"


def _same_order(counted: dict[str, Any], truth: dict[str, Any]) -> dict[str, Any]:
    """The measured 2 µm bins that the truth has too, in its order, so that one answer serves both."""
    place = {name.split("_", 1)[1]: i for i, name in enumerate(counted["units"].barcodes)}
    order = [place[name.split("_", 1)[1]] for name in truth["units"].barcodes]
    return {**counted, "units": counted["units"].take(np.array(order))}


# Report ---------------------------------------------------------------------------------------------------------------


def collect(cells: dict[str, Cell], data: str, against: str) -> dict[str, dict[str, dict[str, float]]]:
    """PCC@M by method, training size and test size."""
    found: dict[str, Any] = {method: {} for method in (*TRAINED, "interpolation")}
    for name, cell in cells.items():
        where, method, trained = name.split("_", 2)
        if where == data and against in cell:
            found[method][trained] = {s: round(f["PCC@M"], 4) for s, f in cell[against].items()}
    return found


def table(cells: dict[str, Cell], data: str, against: str) -> str:
    """PCC@M in Markdown, the best of each column in bold."""
    rows = {
        f"{method} {trained}": row
        for method, by in collect(cells, data, against).items()
        for trained, row in by.items()
    }
    sizes = sorted({s for row in rows.values() for s in row}, key=float)
    lines = ["| | " + " | ".join(f"{s} µm" for s in sizes) + " |", "| --- |" + " --- |" * len(sizes)]
    best = {s: max(row.get(s, -1) for row in rows.values()) for s in sizes}
    for name, row in rows.items():
        values = [f"{row[s]:.3f}" if s in row else "" for s in sizes]
        values = [f"**{v}**" if s in row and row[s] == best[s] else v for v, s in zip(values, sizes, strict=True)]
        lines.append(f"| {name} | " + " | ".join(values) + " |")
    return "\n".join(lines)


def differences(cells: dict[str, Cell], data: str, against: str) -> list[str]:
    """The dense model against the others, each size with its 95 % interval, in sentences; its head against crops."""
    said = []
    for name, cell in cells.items():
        where, method, trained = name.split("_", 2)
        if where != data or method not in ("pixnet", "head") or against not in cell:
            continue
        size = MEASURED_UM.get(trained, trained.removeprefix("train_"))
        rivals = [f"crop_{trained}", f"stnet_{trained}"]
        if method == "pixnet":
            rivals = [f"head_{trained}", *rivals, f"interpolation_nearest_{size}", f"interpolation_linear_{size}"]
        for rival in rivals:
            other = cells.get(f"{data}_{rival}", {}).get(against)
            if other is None:
                continue
            verdicts = []
            for scale, mine in cell[against].items():
                low, high = interval(np.array(mine["draws"]) - np.array(other[scale]["draws"]))
                verdict = "ahead" if low > 0 else "behind" if high < 0 else "undecided"
                gap = mine["PCC@M"] - other[scale]["PCC@M"]
                verdicts.append(f"{scale} µm {verdict} {gap:+.3f} [{low:+.3f}, {high:+.3f}]")
            mine_is = "PixNet" if method == "pixnet" else "its head alone"
            said.append(f"{mine_is}, {trained}, against {rival.replace('_', ' ')}: " + "; ".join(verdicts))
    return said


#: A method's line and marker; a training size's colour is in `plot`.
_LOOKS: dict[str, tuple[Any, str]] = {
    "pixnet": ("-", "o"),
    "head": ("-.", "."),
    "crop": ("--", "s"),
    "stnet": ((0, (9, 2)), "D"),
    "interpolation": (":", "^"),
}


def plot(cells: dict[str, Cell], path: Path) -> None:
    """PCC@M over the test size, a line for each model, against the noise-free rate and against counts."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    axes = figure.subplots(1, 2, sharey=False)
    colours = {
        "train_100": "#1b4f72",
        "train_55": "#1f8a70",
        "train_56": "#6c8f2a",
        "train_16": "#c77d0a",
        "train_8": "#a93226",
        "train_all": "#000000",
    }
    for axis, against in zip(axes, ("truth", "counts"), strict=True):
        for method, by in collect(cells, "phantom", against).items():
            for trained, row in by.items():
                if method == "interpolation" and trained not in ("linear_100", "nearest_100"):
                    continue
                style, marker = _LOOKS[method]
                sizes = sorted(row, key=float)
                axis.plot(
                    [float(s) for s in sizes],
                    [row[s] for s in sizes],
                    linestyle=style,
                    marker=marker,
                    markersize=4,
                    color=colours.get(trained, "#808080" if trained.startswith("linear") else "#b5b5b5"),
                    label=f"{method}, {trained.replace('_', ' ')} µm",
                )
        axis.set_xscale("log")
        axis.set_xticks(TEST_UM, [f"{s:g}" for s in TEST_UM])
        axis.minorticks_off()
        axis.set_xlabel("test size, µm")
        axis.set_ylabel("PCC@M")
        axis.set_title({"truth": "against the noise-free rate", "counts": "against measured counts"}[against], size=10)
        axis.grid(alpha=0.3)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=7)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150, format="png")


def _made(args: argparse.Namespace, recipe: Recipe, about: dict[str, Any], results: Path) -> dict[str, Cell]:
    """The cells, those that are not there yet made now."""
    with workspace(args.work) as work:
        bench = Bench(results, work, args.budget_min, args.only, args.methods)
        data = work / hashlib.sha256(json.dumps(about).encode()).hexdigest()[:8]
        if not (data / "dataset.json").is_file():
            make_phantom(data, **about)
        bench.of_phantom(data, recipe, about)
        if not args.quick and prepared_section(work) is not None:
            bench.of_her2st(work / "her2st", replace(recipe, mpp=2.8, unit_crop_px=64))
        return bench.cells


def _finished(results: Path) -> dict[str, Cell]:
    """The cells that are there, of whatever configuration, by data, method and training."""
    found = {path.stem: json.loads(path.read_text()) for path in results.glob("*.json")}
    commits = sorted({str(cell["commit"])[:8] for cell in found.values()})
    print(f"{len(found)} finished cells, of commits {', '.join(commits)}; nothing is trained")
    methods, sizes = (*TRAINED, "interpolation"), [name.removeprefix("train_") for name in TRAIN_UM]

    def place(name: str) -> tuple[bool, int, str, int]:
        data, method, trained = name.split("_", 2)
        how, _, size = trained.rpartition("_")  # train_100, linear_100
        return data != "phantom", methods.index(method), how, sizes.index(size)

    return {name: found[name] for name in sorted(sorted(found), key=place)}


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run it."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scales",
        description=(__doc__ or "").splitlines()[0],
    )
    parser.add_argument("--work", help="folder to keep data and runs in; a temporary one by default")
    parser.add_argument("--results", default=Path(__file__).parent / "results" / "scales", type=Path)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--budget-min", type=float, default=1e6, help="begin no cell after so many minutes")
    parser.add_argument(
        "--steps", type=int, default=640, help="of training, two dense crops of 384 px or as many pixels"
    )
    parser.add_argument("--only", nargs="+", choices=list(TRAIN_UM), default=list(TRAIN_UM), help="what is trained now")
    parser.add_argument("--methods", nargs="+", choices=TRAINED, default=TRAINED, help="likewise")
    parser.add_argument("--report", action="store_true", help="train nothing: what the finished cells say")
    parser.add_argument("--quick", action="store_true", help="tiny: shows that it runs, and nothing else")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    recipe = Recipe(mpp=2.0, crop_px=384, unit_crop_px=96, steps=args.steps, crops_per_slide=8)
    about, results = PHANTOM, args.results
    if args.quick:
        recipe = Recipe(mpp=2.0, crop_px=256, unit_crop_px=64, steps=2, crops_per_slide=2, max_units=16, n_programs=4)
        about, results = QUICK, args.results / "quick"
    cells = _finished(results) if args.report else _made(args, recipe, about, results)
    report = ["# Against the noise-free rate (phantom)", table(cells, "phantom", "truth")]
    report += ["# Against measured counts (phantom)", table(cells, "phantom", "counts")]
    report += differences(cells, "phantom", "truth")
    if any(name.startswith("her2st") for name in cells):
        report += ["# Her2ST, one patient, one test section", table(cells, "her2st", "counts")]
        report += differences(cells, "her2st", "counts")
    print("\n\n".join(report))
    if cells:
        plot(cells, results / "scales.png")
    result = collect(cells, "phantom", "truth")
    closing: dict[str, Any] = {
        **result,
        "counts": collect(cells, "phantom", "counts"),
        "her2st": collect(cells, "her2st", "counts"),
    }
    print(json.dumps(closing))
    return closing


if __name__ == "__main__":
    main()
