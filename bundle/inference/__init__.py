"""From a slide to its map, and from the map to AnnData, OME-Zarr and NIfTI."""

from .dense_map import DenseMap, open_map
from .inferer import MapInferer, SlideInferer, UnitInferer, prepare_crops, prepare_slide
from .lattices import unit_grids
from .prediction_dataset import PredictionDataset
from .prediction_writer import PredictionWriter
from .projection import expression_of
from .provenance import model_sha256

__all__ = [
    "DenseMap",
    "MapInferer",
    "PredictionDataset",
    "PredictionWriter",
    "SlideInferer",
    "UnitInferer",
    "expression_of",
    "model_sha256",
    "open_map",
    "prepare_crops",
    "prepare_slide",
    "unit_grids",
]
