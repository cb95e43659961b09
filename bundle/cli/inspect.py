"""`pixnet inspect`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from .arguments import positive

HELP = "say what a data set, a folder to import, a slide, a run or a prediction holds"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("path", metavar="PATH")
    parser.add_argument("--as", dest="as_", metavar="LAYOUT", help="the layout, where PixNet does not recognise it")
    parser.add_argument("--image", metavar="FILE", help="the full-resolution H&E picture, if it is not in PATH")
    parser.add_argument("--mpp", type=positive, metavar="M", help="µm per pixel of the picture, if its file has none")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> None:
    """Print what was found."""
    from ..importing import describe, inspect
    from ..readers import Options

    image = None if args.image is None else Path(args.image)
    found = inspect(args.path, as_=args.as_, options=Options(image=image, mpp=args.mpp))
    print(json.dumps(found, indent=2) if args.json else describe(found))
