"""The README's picture: a held-out section, its measured spots and the dense map of one gene.

The section is of a mouse olfactory bulb (Bergenstråhle et al. 2020, in the MIT-licensed package STUtility):

    pixnet prepare mob/ data/ --split-by section --test MOB2
    pixnet train data/ run/ --config configs/efficientnet_lite.json
    pixnet evaluate run/
    pixnet predict data/slides/MOB2.tif bins.h5ad --model run/ --bin-um 24
    python -m benchmarks.picture run/ bins.h5ad docs/olfactory_bulb.jpg --gene ENSMUSG00000090223 --title Pcp4
"""

from __future__ import annotations

import argparse

from bundle.report import write_picture


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.picture")
    parser.add_argument("run", help="a run folder with an evaluation")
    parser.add_argument("bins", help="predicted bins of the evaluated slide, .h5ad")
    parser.add_argument("out", help="the .jpg to write")
    parser.add_argument("--gene", help="the gene; the best predicted one by default")
    parser.add_argument("--title", help="what to call it; the gene's name in the data set by default")
    arguments = parser.parse_args()
    print(write_picture(arguments.run, arguments.bins, arguments.out, arguments.gene, arguments.title))


if __name__ == "__main__":
    main()
