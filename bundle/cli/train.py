"""`pixnet train`."""

from __future__ import annotations

import argparse

from .arguments import add_settings, add_trust

HELP = "train a model; the same command continues a stopped run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("dataset", metavar="DATASET", help="folder that holds dataset.json")
    parser.add_argument("run", metavar="RUN", help="folder of the run")
    parser.add_argument(
        "--config",
        action="append",
        default=[],
        metavar="OVERRIDE.json",
        help="configuration merged over configs/train.json; it can execute code, so use only files that you trust",
    )
    add_settings(parser)
    add_trust(parser)


def run(args: argparse.Namespace) -> None:
    """Train into the run folder."""
    print(f"Training {args.run} on {args.dataset}", flush=True)
    from ..workflows.training import train

    train(args.dataset, args.run, args.config, dict(args.settings), args.trust)
    print(f"Trained: {args.run}. Next: pixnet evaluate {args.run}, pixnet predict SLIDE OUT.h5ad --model {args.run}")
