"""A slide becomes a prediction by three verbs: compute the map, pool units, express genes.

    dense = compute_map(slide, network, blocks, settings, folder)  # features at every map pixel, on disk
    features = pool(dense, units, rasterize)                       # mean features of units, (U, C)
    y, rate = express(features, dense.projection)                  # log1p CP10k and counts per µm², (U, G)

Evaluation pools the same map while it is computed (`TileStream`) and scores the result. `inferers` calls the verbs for
MONAI's engines, `unit_batches` for units that do not fit into memory; `bundle.writers` writes what they give.
"""

from .compute_map import compute_map
from .dense_map import DenseMap, open_map
from .express import express, expression_of
from .inferers import MapInferer, SlideInferer, UnitInferer, prepare_crops, prepare_slide
from .lattices import unit_grids
from .pool import pool
from .prediction_dataset import PredictionDataset
from .provenance import model_sha256

__all__ = [
    "DenseMap",
    "MapInferer",
    "PredictionDataset",
    "SlideInferer",
    "UnitInferer",
    "compute_map",
    "express",
    "expression_of",
    "model_sha256",
    "open_map",
    "pool",
    "prepare_crops",
    "prepare_slide",
    "unit_grids",
]
