"""`pixnet report`."""

from __future__ import annotations

import argparse

from .arguments import genes

HELP = "write one HTML file about a run, which opens offline"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("run", metavar="RUN", help="folder of the run")
    parser.add_argument("out", metavar="OUT.html", nargs="?", help="by default report.html in the run folder")
    parser.add_argument(
        "--genes", type=genes, metavar="LIST", help="genes to draw; by default the best, the median and the worst"
    )


def run(args: argparse.Namespace) -> None:
    """Write the report."""
    print(f"Reporting on {args.run}", flush=True)
    from ..report import write_report

    print(f"Report: {write_report(args.run, args.out, args.genes or ())}")
