"""`pixnet audit`."""

from __future__ import annotations

import argparse

from .arguments import panels, positive, sizes, zero_or_more

HELP = "score any tool's predictions against measured units"

_UNITS_OF_X = ("log1p_cp10k", "cp10k", "counts")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "pred", metavar="PRED", help="predicted .h5ad; several with commas, or a CSV with pred,truth,patient"
    )
    parser.add_argument(
        "truth", metavar="TRUTH", nargs="?", help="measured .h5ad with raw counts; as many files as PRED"
    )
    parser.add_argument("--out", default="audit", metavar="DIR", help="folder to write; audit by default")
    parser.add_argument(
        "--scales-um", type=sizes, default=[], metavar="S,S", help="sides of grid squares to sum units in"
    )
    parser.add_argument(
        "--genes",
        type=panels,
        metavar="LIST",
        help="genes to score: a list as for predict; by default the panels that PRED names, or all shared genes",
    )
    parser.add_argument("--against", metavar="PRED", help="another tool's prediction to compare; as many files as PRED")
    parser.add_argument(
        "--unit-of-x",
        choices=_UNITS_OF_X,
        help="unit of X where PRED does not say it; log1p_cp10k by default",
    )
    parser.add_argument("--unit-of-x-against", choices=_UNITS_OF_X, help="the same for --against")
    parser.add_argument(
        "--min-total", type=zero_or_more, default=200.0, metavar="N", help="leave out units with fewer counts"
    )
    parser.add_argument("--mpp", type=positive, metavar="M", help="µm per level-0 pixel, if TRUTH does not say it")


def run(args: argparse.Namespace) -> None:
    """Write the scores and say where."""
    print(f"Auditing {args.pred}", flush=True)
    from ..audit import audit

    print(
        audit(
            args.pred,
            args.truth,
            out=args.out,
            scales_um=args.scales_um,
            genes=args.genes,
            against=args.against,
            unit_of_x=args.unit_of_x,
            unit_of_x_against=args.unit_of_x_against,
            min_total=args.min_total,
            mpp=args.mpp,
        )
    )
    print(f"Audited: {args.out} (audit.json, audit_genes.csv, audit.png)")
