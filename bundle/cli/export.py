"""`pixnet export`."""

from __future__ import annotations

import argparse

from .arguments import add_trust, whole

HELP = "write the network as ONNX for regions of one size"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("run", metavar="RUN", help="folder of the run")
    parser.add_argument("out", metavar="OUT.onnx", help="file to write")
    parser.add_argument(
        "--size-px", type=whole, metavar="N", help="side of the region in working pixels; 1024 by default"
    )
    add_trust(parser)


def run(args: argparse.Namespace) -> None:
    """Export the network."""
    print(f"Exporting {args.run}", flush=True)
    from ..integrations.onnx_file import export_onnx

    print(f"Exported: {export_onnx(args.run, args.out, args.size_px, args.trust)}")
