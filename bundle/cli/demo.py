"""`pixnet demo`."""

from __future__ import annotations

import argparse

HELP = "train, score, predict and report on generated slides, in a few minutes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("out", metavar="OUT", nargs="?", default="demo", help="folder to create; demo by default")


def run(args: argparse.Namespace) -> None:
    """Run the demo."""
    print(f"The demo writes to {args.out}; it takes a few minutes", flush=True)
    from ..workflows.demo import demo

    demo(args.out)
