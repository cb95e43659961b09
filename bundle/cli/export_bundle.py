"""`pixnet export-bundle`."""

from __future__ import annotations

import argparse

from .arguments import add_trust

HELP = "write a model as a zip that monai.bundle runs without PixNet"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("run", metavar="RUN", help="folder of the run")
    parser.add_argument("out", metavar="OUT.zip", help="file to write")
    add_trust(parser)


def run(args: argparse.Namespace) -> None:
    """Export the model."""
    print(f"Exporting {args.run}", flush=True)
    from ..integrations.bundle_zip import export_bundle

    print(f"Exported: {export_bundle(args.run, args.out, args.trust)}")
