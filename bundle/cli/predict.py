"""`pixnet predict`: one slide, or a cohort."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..errors import InputError
from .arguments import add_settings, add_trust, count, genes, numbers, positive, sizes

HELP = "predict spots, bins, cells or the map of a slide; the same command continues a stopped one"

#: What a cohort does not pass on to the command of each slide.
NOT_OF_A_SLIDE = {"command", "module", "slide", "out", "model", "scheduler", "workers", "zarr"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("slide", metavar="SLIDE", help="a slide, or a CSV of slides (docs/guide/cohorts.md)")
    parser.add_argument(
        "out", metavar="OUT", nargs="?", help="OUT.h5ad; OUT.zarr for more than a million units; a folder for a cohort"
    )
    parser.add_argument("--model", required=True, metavar="RUN", help="run folder of the model")
    parser.add_argument("--spots", metavar="FILE.h5ad", help="predict the spots or bins of this file")
    parser.add_argument("--cells", metavar="FILE", help="predict these cells: QuPath's GeoJSON, or a label image")
    parser.add_argument("--spot-um", type=positive, metavar="D", help="predict spots of this diameter on a lattice")
    parser.add_argument("--pitch-um", type=positive, metavar="P", help="distance of the spots' centres; by default D")
    parser.add_argument("--lattice", choices=("square", "hex"), help="lattice of the spots; square by default")
    parser.add_argument(
        "--bin-um", type=sizes, metavar="B[,B]", help="predict square bins of these sides; one file for each side"
    )
    parser.add_argument(
        "--map", metavar="OUT.zarr", help="write the map as OME-Zarr: the --genes, or features that give any gene"
    )
    parser.add_argument("--nifti", metavar="OUT.nii.gz", help="write the genes of --region as NIfTI")
    parser.add_argument(
        "--region", type=numbers, metavar="X,Y,W,H", help="predict only this rectangle, in full-resolution pixels"
    )
    parser.add_argument(
        "--standard-error", action="store_true", help="add a layer with each value's standard error; 8 times the work"
    )
    parser.add_argument("--mpp", type=positive, metavar="M", help="µm per pixel of the slide, if its file has none")
    parser.add_argument(
        "--genes", type=genes, metavar="LIST", help="genes separated by commas, a file of them, or a run's panel.json"
    )
    add_settings(parser)
    parser.add_argument("--scheduler", metavar="tcp://HOST:PORT", help="cohort: use this dask cluster")
    parser.add_argument("--workers", type=count, metavar="N", help="cohort: predict N slides at once on this machine")
    parser.add_argument(
        "--zarr", action="store_true", help="cohort: write .zarr, for more than a million units a slide"
    )
    add_trust(parser)


def run(args: argparse.Namespace) -> int:
    """Predict; the status is 1 if a slide of a cohort failed."""
    if args.slide.lower().endswith(".csv"):
        return _cohort(args)
    settings = _settings(args)  # refuses options that do not fit together before slow imports
    print(f"Predicting {args.slide} with {args.model}", flush=True)
    from ..workflows.inferring import predict

    written = predict(args.slide, args.out, args.model, settings, args.trust)
    print(f"Predicted: {', '.join(map(str, written))}")
    return 0


def _cohort(args: argparse.Namespace) -> int:
    print(f"Predicting the slides of {args.slide} with {args.model}", flush=True)
    from ..integrations.cohort import predict_cohort

    results = predict_cohort(
        args.slide,
        args.out,
        args.model,
        {key: value for key, value in vars(args).items() if key not in NOT_OF_A_SLIDE},
        scheduler=args.scheduler,
        workers=args.workers,
        as_zarr=args.zarr,
    )
    return int(any(result.status == "failed" for result in results))


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """The configuration's keys for one slide."""
    if args.scheduler or args.workers or args.zarr:
        raise InputError(
            "--scheduler, --workers and --zarr are for a cohort: give a CSV of slides in place of the slide."
        )
    if sum(given is not None for given in (args.spots, args.cells, args.spot_um, args.bin_um)) > 1:
        raise InputError("Give the units with --spots, --cells, --spot-um or --bin-um: only one of them.")
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
        "slide_mpp": args.mpp,
        "genes": args.genes,
        **dict(args.settings),
    }
