"""`pixnet evaluate`."""

from __future__ import annotations

import argparse
import json

from .arguments import add_settings, add_trust, positive, sizes

HELP = "score a trained model at every spatial scale"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("run", metavar="RUN", help="folder of the run")
    parser.add_argument("--dataset", metavar="DATASET", help="data set to score on; by default the training data set")
    parser.add_argument("--split", choices=("training", "validation", "test"), default="test")
    parser.add_argument(
        "--size-um", type=positive, metavar="U", help="unit size; by default the coarsest trained on or measured"
    )
    parser.add_argument("--scales-um", type=sizes, metavar="S,S", help="sides of grid squares to sum units in")
    parser.add_argument("--name", help="name of the JSON file; by default the split")
    add_settings(parser)
    add_trust(parser)


def run(args: argparse.Namespace) -> None:
    """Write the scores and say where."""
    print(f"Scoring {args.run} on the {args.split} slides", flush=True)
    from ..workflows.evaluating import evaluate

    path = evaluate(
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
            "same_patient: training used a slide of a scored patient, or a patient is not named. Expect lower figures "
            "on other patients."
        )
    print(f"Scored: {path}")
