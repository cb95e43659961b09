"""The `pixnet` command: a thin, typed front for the configurations."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import InputError, user_message
from .arguments import build_parser

__all__ = ["SPIN_COUNT", "main"]

#: How often a waiting thread of GNU OpenMP looks again before it sleeps.
SPIN_COUNT = "3000"
#: What a cohort does not pass on to the command line for each of its slides.
_NOT_OF_A_SLIDE = {"command", "slide", "out", "model", "scheduler", "workers", "zarr"}


def _run(args: argparse.Namespace) -> int:
    is_slide = args.command == "predict" and not args.slide.lower().endswith(".csv")
    asked = _asked(args) if is_slide else {}  # what does not fit together is told before torch is imported
    from .. import workflows

    if args.command == "phantom":
        from ..datasets.phantom import make_phantom

        make_phantom(**_options(args), progress=print)
        print(f"The phantom is ready: {args.out}")
    elif args.command == "prepare":
        from ..data.manifest import summary
        from ..readers import prepare

        path = prepare(**_options(args))
        print(summary(path))
    elif args.command == "train":
        workflows.train(args.dataset, args.run, args.config, dict(args.settings), args.trust)
        print(
            f"Trained: {args.run}. Next: pixnet evaluate {args.run}, pixnet predict SLIDE OUT.h5ad --model {args.run}"
        )
    elif args.command == "evaluate":
        path = workflows.evaluate(
            args.run,
            args.dataset,
            args.split,
            args.scales_um,
            args.name,
            args.size_um,
            dict(args.settings),
            args.trust,
        )
        if json.loads(path.read_text())["same_patient"]:
            print(
                "same_patient: a scored slide's patient was trained on (or is not named), so figures on other patients "
                "will be lower."
            )
        print(f"Scored: {path}")
    elif args.command == "predict" and not is_slide:
        from ..integrations.cohort import predict_cohort

        options = {key: value for key, value in vars(args).items() if key not in _NOT_OF_A_SLIDE}
        own = {"scheduler": args.scheduler, "workers": args.workers, "as_zarr": args.zarr}
        results = predict_cohort(args.slide, args.out, args.model, options, **own)
        return int(any(result.status == "failed" for result in results))
    elif args.command == "predict":
        written = workflows.predict(args.slide, args.out, args.model, asked, args.trust)
        print(f"Predicted: {', '.join(map(str, written))}")
    elif args.command == "audit":
        from ..audit import audit

        print(audit(**_options(args)))
        print(f"Audited: {args.out} (audit.json, audit_genes.csv, audit.png)")
    elif args.command == "report":
        from ..report import write_report

        print(f"Report: {write_report(args.run, args.out, args.genes or ())}")
    elif args.command == "export":
        from ..integrations.onnx_file import export_onnx

        print(f"Exported: {export_onnx(args.run, args.out, args.size_px, args.trust)}")
    elif args.command == "export-bundle":
        from ..integrations.bundle_zip import export_bundle

        print(f"Exported: {export_bundle(args.run, args.out, args.trust)}")
    elif args.command == "demo":
        from ..workflows.demo import demo

        demo(args.out)
    return 0


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of a command whose function calls them alike."""
    return {key: value for key, value in vars(args).items() if key != "command"}


def _asked(args: argparse.Namespace) -> dict[str, Any]:
    """The configuration's keys of a prediction."""
    if args.scheduler or args.workers or args.zarr:
        raise InputError("--scheduler, --workers and --zarr are for a cohort: a CSV in the place of the slide.")
    if sum(given is not None for given in (args.spots, args.cells, args.spot_um, args.bin_um)) > 1:
        raise InputError("Give the units with --spots, --cells, --spot-um or --bin-um: one of them.")
    if args.spot_um is None and (args.pitch_um is not None or args.lattice is not None):
        option = "--lattice" if args.pitch_um is None else "--pitch-um"
        raise InputError(f"{option} arranges spots: give --spot-um too, or leave it out.")
    if args.cells is not None:
        from ..data.cells import is_cells

        if not is_cells(args.cells):
            raise InputError(
                f"{args.cells} is not a file of cells: give QuPath's GeoJSON or a label image (.tif, .npy); "
                "measured spots or bins (.h5ad) go with --spots."
            )
    paths = {"units": args.spots or args.cells, "map": args.map, "nifti": args.nifti}
    return {
        **{key: None if path is None else str(Path(path).resolve()) for key, path in paths.items()},
        "spot_um": args.spot_um,
        "pitch_um": args.pitch_um,
        "lattice": args.lattice,
        "bin_um": args.bin_um,
        "region_px": args.region,
        "standard_error": args.standard_error,
        "runtime": args.runtime,
        "slide_mpp": args.mpp,
        "genes": args.genes,
        **dict(args.settings),
    }


def _wait_briefly() -> None:
    """Have threads of GNU OpenMP, which torch is about to load, wait for each other in a short loop and then sleep.

    By default they hold their cores far longer, and a step takes up to a hundred times as long where other processes
    want these (`python -m benchmarks.busy`).
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl+C does: outputs that are not whole are removed, locks are given back."""


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Raise `_Terminated` on SIGTERM, unless the program that calls us handles it."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def stop(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not stop the tidying
        raise _Terminated

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; bad input is answered with a sentence and exit status 2."""
    _wait_briefly()
    args = build_parser().parse_args(argv)
    try:
        with _terminated_as_interrupted():
            return _run(args)
    except KeyboardInterrupt as stopped:
        print("Stopped. The same command goes on after the last whole step.", file=sys.stderr)
        return 143 if isinstance(stopped, _Terminated) else 130
    except Exception as error:
        message = user_message(error)
        if message is None:
            raise
        print(f"pixnet {args.command}: {message}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
