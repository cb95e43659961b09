"""`pixnet phantom`."""

from __future__ import annotations

import argparse

from .arguments import count, fraction, positive, seed

HELP = "generate slides that look like H&E and whose expression is known"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("out", metavar="OUT", help="folder to create")
    parser.add_argument("--slides", type=count, default=4, help="number of slides; 4 by default")
    parser.add_argument("--seed", type=seed, default=0, help="0 by default")
    parser.add_argument("--size-um", type=positive, default=1500.0, help="side of a slide; 1500 by default")
    parser.add_argument("--mpp", type=positive, default=0.5, help="µm per pixel; 0.5 by default")
    parser.add_argument("--genes", type=count, default=100, help="number of genes; 100 by default")
    parser.add_argument(
        "--units",
        default="spot:100:120,bin:16,bin:8",
        help="measured units: spot:DIAMETER:PITCH and bin:SIDE in µm, separated by commas",
    )
    parser.add_argument(
        "--mixture", choices=("programs", "free"), default="programs", help="how genes vary together or alone"
    )
    parser.add_argument(
        "--blank-fraction", type=fraction, default=0.2, help="share of a slide that is glass; 0.2 by default"
    )
    parser.add_argument(
        "--truth", choices=("none", "test", "all"), default="test", help="slides to write the noise-free truth of"
    )


def run(args: argparse.Namespace) -> None:
    """Generate the data set."""
    print(f"Generating {args.slides} slides in {args.out}", flush=True)
    from ..datasets.phantom import make_phantom

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
