"""`pixnet prepare`."""

from __future__ import annotations

import argparse

from .arguments import names, positive

HELP = "turn a public data set into a PixNet data set"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("source", choices=("her2st", "mob", "xfuse"), help="the layout of the files in SRC")
    parser.add_argument("src", metavar="SRC", help="folder of the public data set")
    parser.add_argument("out", metavar="OUT", help="folder to create")
    for split in ("validation", "test"):
        parser.add_argument(
            f"--{split}", type=names, default=[], metavar="IDS", help="patients (or sections), separated by commas"
        )
    parser.add_argument("--split-by", choices=("patient", "section", "block"), default="patient")
    parser.add_argument("--mpp", type=positive, help="µm per pixel of the pictures; by default from the array's pitch")


def run(args: argparse.Namespace) -> None:
    """Write the data set and say what it holds."""
    print(f"Preparing {args.src}", flush=True)
    from ..data.manifest import summary
    from ..readers import prepare

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
