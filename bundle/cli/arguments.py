"""The command line's arguments."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

from ..config.literals import as_code
from ..errors import InputError
from ..files.name_lists import read_names
from ..version import bundle_version

__all__ = ["build_parser"]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _positive(text: str) -> float:
    value = _number(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def _zero_or_more(text: str) -> float:
    value = _number(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is neither 0 nor a number above it")
    return value


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None


def _fraction(text: str) -> float:
    value = _number(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 to below 1")
    return value


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 on")
    return int(text)


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",") if part]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers such as 200,400") from None


def _sizes(text: str) -> list[float]:
    return [_positive(part) for part in text.split(",") if part]


def _names(text: str) -> list[str]:
    """Comma-separated names, or a file of them."""
    try:
        is_file = Path(text).is_file()
    except OSError:  # a long list is no name of a file
        is_file = False
    if not is_file and "," not in text and ("/" in text or text.endswith((".txt", ".csv", ".tsv", ".json"))):
        raise argparse.ArgumentTypeError(f"there is no file {text}")
    if not is_file:
        return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    try:
        return read_names(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _panel(text: str) -> Any:
    from ..data.panel import load_panel  # heavy, and rarely needed

    try:
        return load_panel(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _genes(text: str) -> list[str]:
    """Names, or all genes of a run's `panel.json`."""
    return _panel(text).genes if Path(text).suffix == ".json" else _names(text)


def _panels(text: str) -> list[str] | dict[str, list[str]]:
    """Names, or the named panels of a run's `panel.json`."""
    return _panel(text).panels if Path(text).suffix == ".json" else _names(text)


def _setting(text: str) -> tuple[str, Any]:
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form key=value")
    try:
        return key, as_code(json.loads(value))
    except (json.JSONDecodeError, RecursionError):
        return key, as_code(value)


def _add_trust(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--trust", action="store_true", help="let the run's model run code of its own: you trust whoever made it"
    )


def build_parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    parser = argparse.ArgumentParser(prog="pixnet", description="Dense gene expression from H&E slides.")
    parser.add_argument("--version", action="version", version=f"pixnet {bundle_version()}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    p = commands.add_parser("phantom", help="generate slides that look like H&E with a known expression")
    p.add_argument("out", metavar="OUT", help="the folder to make")
    p.add_argument("--slides", type=_count, default=4)
    p.add_argument("--seed", type=_seed, default=0)
    p.add_argument("--size-um", type=_positive, default=1500.0, help="side of a slide")
    p.add_argument("--mpp", type=_positive, default=0.5, help="µm per pixel")
    p.add_argument("--genes", type=_count, default=100)
    p.add_argument("--units", default="spot:100:120,bin:16,bin:8", help="spot:DIAMETER:PITCH and bin:SIDE, in µm")
    p.add_argument("--mixture", choices=("programs", "free"), default="programs")
    p.add_argument("--blank-fraction", type=_fraction, default=0.2, help="share of a slide that is glass")
    p.add_argument("--truth", choices=("none", "test", "all"), default="test", help="whose noise-free truth to write")

    p = commands.add_parser("prepare", help="turn a public data set's layout into a PixNet data set")
    p.add_argument("source", choices=("her2st", "mob", "xfuse"), help="whose layout")
    p.add_argument("src", metavar="SRC", help="the data set's folder")
    p.add_argument("out", metavar="OUT", help="the folder to make")
    p.add_argument(
        "--validation", type=_names, default=[], metavar="IDS", help="patients (or sections), comma-separated"
    )
    p.add_argument("--test", type=_names, default=[], metavar="IDS", help="patients (or sections), comma-separated")
    p.add_argument("--split-by", choices=("patient", "section", "block"), default="patient")
    p.add_argument("--mpp", type=_positive, help="µm per pixel of the pictures; from the array's pitch by default")

    p = commands.add_parser("train", help="train on a data set; a stopped run goes on")
    p.add_argument("dataset", metavar="DATASET")
    p.add_argument("run", metavar="RUN")
    p.add_argument("--config", action="append", default=[], metavar="OVERRIDE.json", help="can hold code: trust it")
    p.add_argument("--set", action="append", default=[], type=_setting, metavar="KEY=VALUE", dest="settings")
    _add_trust(p)

    p = commands.add_parser("evaluate", help="score a trained model at every spatial scale")
    p.add_argument("run", metavar="RUN")
    p.add_argument("--dataset", metavar="DATASET", help="the one trained on by default")
    p.add_argument("--split", choices=("training", "validation", "test"), default="test")
    p.add_argument(
        "--size-um", type=_positive, metavar="U", help="unit size; the coarsest trained on or measured by default"
    )
    p.add_argument("--scales-um", type=_sizes, metavar="S,S", help="cells to sum units to")
    p.add_argument("--name", help="name of the JSON, the split's by default")
    p.add_argument("--set", action="append", default=[], type=_setting, metavar="KEY=VALUE", dest="settings")
    _add_trust(p)

    p = commands.add_parser("predict", help="predict spots, bins or the whole map of a slide; a stopped one goes on")
    p.add_argument("slide", metavar="SLIDE", help="or COHORT.csv with a column slide: see docs/cohorts.md")
    p.add_argument(
        "out", metavar="OUT", nargs="?", help="OUT.h5ad, or OUT.zarr for more than a million units; a cohort's folder"
    )
    p.add_argument("--model", required=True, metavar="RUN", help="the run folder of the model")
    p.add_argument("--spots", metavar="FILE.h5ad", help="units to answer for")
    p.add_argument("--cells", metavar="FILE", help="cells to answer for: QuPath's GeoJSON, or a label image")
    p.add_argument("--spot-um", type=_positive, metavar="D", help="diameter of spots on a lattice")
    p.add_argument("--pitch-um", type=_positive, metavar="P", help="distance of the spots' centres; D by default")
    p.add_argument("--lattice", choices=("square", "hex"), help="of the spots; square by default")
    p.add_argument("--bin-um", type=_sizes, metavar="B[,B]", help="side of square bins; a file each where several")
    p.add_argument(
        "--map", metavar="OUT.zarr", help="the dense map as OME-Zarr: of --genes, else of what gives any gene"
    )
    p.add_argument("--nifti", metavar="OUT.nii.gz", help="the genes of --region as NIfTI")
    p.add_argument("--region", type=_numbers, metavar="X,Y,W,H", help="this part alone, in full-resolution pixels")
    p.add_argument(
        "--standard-error", action="store_true", help="of every unit and gene, as a layer; eight times the work"
    )
    p.add_argument("--runtime", help=argparse.SUPPRESS)  # of earlier versions
    p.add_argument("--mpp", type=_positive, metavar="M", help="the slide's µm per pixel, where its file does not say")
    p.add_argument(
        "--genes", type=_genes, metavar="LIST", help="comma-separated, a file of them, or a run's panel.json"
    )
    p.add_argument("--set", action="append", default=[], type=_setting, metavar="KEY=VALUE", dest="settings")
    p.add_argument("--scheduler", metavar="tcp://HOST:PORT", help="cohort: a running dask cluster")
    p.add_argument("--workers", type=_count, metavar="N", help="cohort: slides at once on this machine")
    p.add_argument("--zarr", action="store_true", help="cohort: write .zarr, for more than a million units a slide")
    _add_trust(p)

    p = commands.add_parser("audit", help="score any tool's predictions against measured units")
    p.add_argument(
        "pred", metavar="PRED", help="the prediction's .h5ad; several with commas, or a CSV pred,truth,patient"
    )
    p.add_argument("truth", metavar="TRUTH", nargs="?", help="the measured units' .h5ad, raw counts; as many")
    p.add_argument("--out", default="audit", metavar="DIR")
    p.add_argument("--scales-um", type=_sizes, default=[], metavar="S,S", help="cells to sum units to")
    p.add_argument(
        "--genes",
        type=_panels,
        metavar="LIST",
        help="figures are over these: as for predict; by default the panels that PRED names, else all shared genes",
    )
    p.add_argument("--against", metavar="PRED", help="another tool's prediction to compare with; as many")
    p.add_argument(
        "--unit-of-x",
        choices=("log1p_cp10k", "cp10k", "counts"),
        help="of predictions that do not say it; log1p_cp10k by default",
    )
    p.add_argument("--unit-of-x-against", choices=("log1p_cp10k", "cp10k", "counts"), help="the same of --against's")
    p.add_argument(
        "--min-total", type=_zero_or_more, default=200.0, metavar="N", help="leave out units with fewer counts"
    )
    p.add_argument("--mpp", type=_positive, metavar="M", help="µm per level-0 pixel, where TRUTH does not say")

    p = commands.add_parser("report", help="one HTML file about a run that opens offline")
    p.add_argument("run", metavar="RUN")
    p.add_argument("out", metavar="OUT.html", nargs="?")
    p.add_argument(
        "--genes", type=_genes, metavar="LIST", help="whose maps are drawn, instead of the best, median and worst"
    )

    p = commands.add_parser("export", help="the network as ONNX for regions of one size")
    p.add_argument("run", metavar="RUN")
    p.add_argument("out", metavar="OUT.onnx")
    p.add_argument("--size-px", type=_whole, metavar="N", help="side of the region in working pixels, 1024 by default")
    _add_trust(p)

    p = commands.add_parser("export-bundle", help="the model as a zip that monai.bundle runs without PixNet installed")
    p.add_argument("run", metavar="RUN")
    p.add_argument("out", metavar="OUT.zip")
    _add_trust(p)

    p = commands.add_parser("demo", help="phantom, training, evaluation, prediction and report in a few minutes")
    p.add_argument("out", metavar="OUT", nargs="?", default="demo")
    return parser
