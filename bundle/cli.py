"""The `pixnet` command: a thin, typed front for the configurations."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .errors import InputError, user_message
from .version import bundle_version

__all__ = ["main"]

#: What a cohort does not pass on to the command line for each of its slides.
_NOT_OF_A_SLIDE = {"command", "slide", "out", "model", "scheduler", "workers", "zarr"}


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",") if part]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers such as 200,400") from None


def _sizes(text: str) -> list[float]:
    return [_positive(part) for part in text.split(",") if part]


def _names(text: str) -> list[str]:
    """Comma-separated names, or a file with one name a line."""
    try:
        is_file = Path(text).is_file()
    except OSError:  # a long list is no name of a file
        is_file = False
    names = Path(text).read_text().split() if is_file else text.split(",")
    return [name.strip() for name in names if name.strip()]


def _setting(text: str) -> tuple[str, Any]:
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form key=value")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pixnet", description="Dense gene expression from H&E slides.")
    parser.add_argument("--version", action="version", version=f"pixnet {bundle_version()}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    p = commands.add_parser("phantom", help="generate slides that look like H&E with a known expression")
    p.add_argument("out", metavar="OUT")
    p.add_argument("--slides", type=int, default=4)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--size-um", type=_positive, default=1500.0, help="side of a slide")
    p.add_argument("--mpp", type=_positive, default=0.5, help="µm per pixel")
    p.add_argument("--genes", type=int, default=100)
    p.add_argument("--units", default="spot:100:120,bin:16,bin:8", help="spot:DIAMETER:PITCH and bin:SIDE, in µm")
    p.add_argument("--mixture", choices=("programs", "free"), default="programs")
    p.add_argument("--blank-fraction", type=float, default=0.2, help="share of a slide that is glass")
    p.add_argument("--truth", choices=("none", "test", "all"), default="test", help="whose noise-free truth to write")

    p = commands.add_parser("prepare", help="turn a public data set's layout into a PixNet data set")
    p.add_argument("source", choices=("her2st", "mob", "xfuse"))
    p.add_argument("src", metavar="SRC")
    p.add_argument("out", metavar="OUT")
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

    p = commands.add_parser("evaluate", help="score a trained model at every spatial scale")
    p.add_argument("run", metavar="RUN")
    p.add_argument("--dataset", metavar="DATASET", help="the one trained on by default")
    p.add_argument("--split", choices=("training", "validation", "test"), default="test")
    p.add_argument(
        "--size-um", type=float, metavar="U", help="which of the slides' unit sizes; the coarsest by default"
    )
    p.add_argument("--scales-um", type=_numbers, metavar="S,S", help="cells to sum units to")
    p.add_argument("--name", help="name of the JSON, the split's by default")
    p.add_argument("--set", action="append", default=[], type=_setting, metavar="KEY=VALUE", dest="settings")

    p = commands.add_parser("predict", help="predict spots, bins or the whole map of a slide; a stopped one goes on")
    p.add_argument("slide", metavar="SLIDE", help="or COHORT.csv with a column slide: see docs/cohorts.md")
    p.add_argument(
        "out", metavar="OUT", nargs="?", help="OUT.h5ad, or OUT.zarr for more than a million units; a cohort's folder"
    )
    p.add_argument("--model", required=True, metavar="RUN", help="its configuration can hold code: trust it")
    p.add_argument("--spots", metavar="FILE.h5ad", help="units to answer for")
    p.add_argument("--cells", metavar="FILE", help="cells to answer for: QuPath's GeoJSON, or a label image")
    p.add_argument("--spot-um", type=_positive, metavar="D", help="diameter of spots on a lattice")
    p.add_argument("--pitch-um", type=_positive, metavar="P", help="distance of the spots' centres; D by default")
    p.add_argument("--lattice", choices=("square", "hex"), default="square")
    p.add_argument("--bin-um", type=_sizes, metavar="B[,B]", help="side of square bins; a file each where several")
    p.add_argument(
        "--map", metavar="OUT.zarr", help="the dense map as OME-Zarr: of --genes, else of what gives any gene"
    )
    p.add_argument("--nifti", metavar="OUT.nii.gz", help="the genes of --region as NIfTI")
    p.add_argument("--region", type=_numbers, metavar="X,Y,W,H", help="this part alone, in full-resolution pixels")
    p.add_argument("--runtime", choices=("torch", "onnx", "openvino"), help="what computes the map; torch by default")
    p.add_argument("--mpp", type=_positive, metavar="M", help="the slide's µm per pixel, where its file does not say")
    p.add_argument("--genes", type=_names, metavar="LIST", help="comma-separated, or a file with one a line")
    p.add_argument("--set", action="append", default=[], type=_setting, metavar="KEY=VALUE", dest="settings")
    p.add_argument("--scheduler", metavar="tcp://HOST:PORT", help="cohort: a running dask cluster")
    p.add_argument("--workers", type=_count, metavar="N", help="cohort: slides at once on this machine")
    p.add_argument("--zarr", action="store_true", help="cohort: write .zarr, for more than a million units a slide")

    p = commands.add_parser("audit", help="score any tool's predictions against measured units")
    p.add_argument(
        "pred", metavar="PRED", help="the prediction's .h5ad; several with commas, or a CSV pred,truth,patient"
    )
    p.add_argument("truth", metavar="TRUTH", nargs="?", help="the measured units' .h5ad, raw counts; as many")
    p.add_argument("--out", default="audit", metavar="DIR")
    p.add_argument("--scales-um", type=_numbers, default=[], metavar="S,S", help="cells to sum units to")
    p.add_argument("--genes", type=_names, metavar="LIST", help="figures are over these; all shared ones by default")
    p.add_argument("--against", metavar="PRED", help="another tool's prediction to compare with; as many")
    p.add_argument(
        "--unit-of-x",
        choices=("log1p_cp10k", "cp10k", "counts"),
        help="of predictions that do not say it; log1p_cp10k by default",
    )
    p.add_argument("--min-total", type=float, default=200.0, metavar="N", help="leave out units with fewer counts")
    p.add_argument("--mpp", type=_positive, metavar="M", help="µm per level-0 pixel, where TRUTH does not say")

    p = commands.add_parser("report", help="one HTML file about a run that opens offline")
    p.add_argument("run", metavar="RUN")
    p.add_argument("out", metavar="OUT.html", nargs="?")

    p = commands.add_parser("export", help="the network as ONNX for regions of one size")
    p.add_argument("run", metavar="RUN")
    p.add_argument("out", metavar="OUT.onnx")
    p.add_argument("--size-px", type=int, metavar="N", help="side of the region in working pixels, 1024 by default")

    p = commands.add_parser("export-bundle", help="the model as a zip that monai.bundle runs without PixNet installed")
    p.add_argument("run", metavar="RUN")
    p.add_argument("out", metavar="OUT.zip")

    p = commands.add_parser("demo", help="phantom, training, evaluation, prediction and report in a few minutes")
    p.add_argument("out", metavar="OUT", nargs="?", default="demo")
    return parser


def _run(args: argparse.Namespace) -> int:
    from . import commands

    if args.command == "phantom":
        from .phantom import make_phantom

        make_phantom(
            args.out,
            slides=args.slides,
            seed=args.seed,
            size_um=args.size_um,
            mpp=args.mpp,
            genes=args.genes,
            units=args.units,
            mixture=args.mixture,
            blank_fraction=args.blank_fraction,
            truth=args.truth,
            progress=print,
        )
        print(f"The phantom is ready: {args.out}")
    elif args.command == "prepare":
        from .importers import prepare
        from .manifest import summary

        path = prepare(
            args.source,
            args.src,
            args.out,
            validation=args.validation,
            test=args.test,
            split_by=args.split_by,
            mpp=args.mpp,
        )
        print(summary(path))
    elif args.command == "train":
        commands.train(args.dataset, args.run, args.config, dict(args.settings))
        print(
            f"Trained: {args.run}. Next: pixnet evaluate {args.run}, pixnet predict SLIDE OUT.h5ad --model {args.run}"
        )
    elif args.command == "evaluate":
        path = commands.evaluate(
            args.run, args.dataset, args.split, args.scales_um, args.name, args.size_um, dict(args.settings)
        )
        print(f"Scored: {path}")
    elif args.command == "predict" and args.slide.lower().endswith(".csv"):
        from .cohort import predict_cohort

        options = {key: value for key, value in vars(args).items() if key not in _NOT_OF_A_SLIDE}
        own = {"scheduler": args.scheduler, "workers": args.workers, "as_zarr": args.zarr}
        results = predict_cohort(args.slide, args.out, args.model, options, **own)
        return int(any(result.status == "failed" for result in results))
    elif args.command == "predict":
        if args.scheduler or args.workers or args.zarr:
            raise InputError("--scheduler, --workers and --zarr are for a cohort: a CSV in the place of the slide.")
        commands.predict(args.slide, args.out, args.model, _asked(args))
        print(f"Predicted: {', '.join(str(path) for path in (args.out, args.map, args.nifti) if path)}")
    elif args.command == "audit":
        from .audit import audit

        print(
            audit(
                args.pred,
                args.truth,
                args.out,
                scales_um=args.scales_um,
                genes=args.genes,
                unit_of_x=args.unit_of_x,
                min_total=args.min_total,
                mpp=args.mpp,
                against=args.against,
            )
        )
        print(f"Audited: {args.out} (audit.json, audit_genes.csv, audit.png)")
    elif args.command == "report":
        from .report import write_report

        print(f"Report: {write_report(args.run, args.out)}")
    elif args.command == "export":
        from .export import export_onnx

        print(f"Exported: {export_onnx(args.run, args.out, args.size_px)}")
    elif args.command == "export-bundle":
        from .archive import export_bundle

        print(f"Exported: {export_bundle(args.run, args.out)}")
    elif args.command == "demo":
        from .demo import demo

        demo(args.out)
    return 0


def _asked(args: argparse.Namespace) -> dict[str, Any]:
    """The configuration's keys of a prediction."""
    if sum(given is not None for given in (args.spots, args.cells, args.spot_um, args.bin_um)) > 1:
        raise InputError("Give the units with --spots, --cells, --spot-um or --bin-um: one of them.")
    paths = {"units": args.spots or args.cells, "map": args.map, "nifti": args.nifti}
    return {
        **{key: None if path is None else str(Path(path).resolve()) for key, path in paths.items()},
        "spot_um": args.spot_um,
        "pitch_um": args.pitch_um,
        "lattice": args.lattice,
        "bin_um": args.bin_um,
        "region_px": args.region,
        "runtime": args.runtime,
        "slide_mpp": args.mpp,
        "genes": args.genes,
        **dict(args.settings),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; bad input is answered with a sentence and exit status 2."""
    args = _parser().parse_args(argv)
    try:
        return _run(args)
    except KeyboardInterrupt:
        print("Stopped. The same command goes on after the last whole step.", file=sys.stderr)
        return 130
    except Exception as error:
        message = user_message(error)
        if message is None:
            raise
        print(f"pixnet {args.command}: {message}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
