"""`pixnet prepare`."""

from __future__ import annotations

import argparse
from typing import Any

from .arguments import names, numbers, positive, sizes, zero_or_more

HELP = "turn the files that you have into a data set: Space Ranger, Xenium, HEST-1k, tables or AnnData"

#: Options of the command that are not arguments of `bundle.importing.prepare`.
_NOT_OF_PREPARE = {"command", "module"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("src", metavar="SRC", nargs="+", help="folders or files of known layouts, or a CSV of samples")
    parser.add_argument("out", metavar="OUT", help="folder to create")
    parser.add_argument("--as", dest="as_", metavar="LAYOUT", help="the layout, where PixNet does not recognise it")
    parser.add_argument("--image", metavar="FILE", help="the full-resolution H&E picture, if it is not in SRC")
    parser.add_argument("--mpp", type=positive, metavar="M", help="µm per pixel of the picture, if its file has none")
    parser.add_argument("--name", help="name of the sample, if it is one")
    parser.add_argument("--patient", help="patient of the samples")
    parser.add_argument("--patients", metavar="FILE.csv", help="patient of each sample: columns sample and patient")
    parser.add_argument("--only", type=names, default=[], metavar="IDS", help="import only these samples")
    for split in ("validation", "test"):
        parser.add_argument(
            f"--{split}", type=names, default=[], metavar="IDS", help="patients (or sections), separated by commas"
        )
    parser.add_argument("--split-by", choices=("patient", "section", "block"), help="patient by default")
    parser.add_argument("--splits", metavar="FILE.csv", help="split of each sample: columns sample and split")
    parser.add_argument("--add", action="store_true", help="keep the samples that the data set already holds")
    parser.add_argument("--strict", action="store_true", help="refuse a sample about which anything is doubtful")
    units = parser.add_argument_group("units")
    units.add_argument("--units", choices=("spots", "bins", "cells", "transcripts"), help="which units to import")
    units.add_argument("--bin-um", type=sizes, default=[], dest="sizes_um", metavar="B[,B]", help="sizes of the bins")
    units.add_argument("--shape", choices=("circle", "square"), help="shape of a unit, if the files do not say it")
    units.add_argument("--size-um", type=positive, metavar="U", help="diameter or side of a unit")
    units.add_argument("--pitch-um", type=positive, metavar="P", help="distance of neighbouring spots")
    units.add_argument(
        "--picture",
        choices=("full", "hires", "lowres"),
        default="full",
        help="use Space Ranger's reduced picture instead of the full one",
    )
    tables = parser.add_argument_group("tables and AnnData")
    tables.add_argument("--counts", metavar="FILE", help="table of counts, unit x gene")
    tables.add_argument("--positions", metavar="FILE", help="table of the units' positions")
    tables.add_argument("--transcripts", metavar="FILE", help="table of transcripts")
    tables.add_argument(
        "--column", action="append", default=[], type=_column, metavar="X=NAME", help="column that holds x, y, gene ..."
    )
    tables.add_argument("--preset", choices=("merscope", "cosmx", "stereo-seq", "xenium"), help="a vendor's columns")
    tables.add_argument("--transform", metavar="FILE", help="3 x 3 matrix from the table's x and y to pixels")
    tables.add_argument("--transform-inverted", action="store_true", help="the matrix goes from pixels to x and y")
    tables.add_argument(
        "--unit-um", type=zero_or_more, metavar="U", help="µm that one step of x and y means; 0 for pixels"
    )
    tables.add_argument("--origin", type=numbers, metavar="X,Y", help="the table's x and y at the picture's corner")
    tables.add_argument("--min-qv", type=zero_or_more, default=20.0, metavar="Q", help="drop transcripts below this")
    tables.add_argument("--layer", help="where an AnnData keeps raw counts: X, raw or a layer")
    tables.add_argument("--gene-names", metavar="FILE", help="table that maps gene ids to symbols")
    tables.add_argument("--by-ids", action="store_true", help="name genes by their ids")


def _column(text: str) -> tuple[str, str]:
    key, sign, name = text.partition("=")
    if not sign or not key or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form x=NAME")
    return key, name


def run(args: argparse.Namespace) -> None:
    """Write the data set and say what it holds."""
    print(f"Preparing {', '.join(args.src)}", flush=True)
    from ..data.manifest import summary
    from ..importing import prepare

    options: dict[str, Any] = {key: value for key, value in vars(args).items() if key not in _NOT_OF_PREPARE}
    src, out = options.pop("src"), options.pop("out")
    options["columns"] = dict(options.pop("column"))
    options["origin"] = None if args.origin is None else tuple(args.origin)
    path = prepare(src[0] if len(src) == 1 else src, out, **options, progress=print)
    print(summary(path))
