"""From a slide to its map, and from the map to AnnData, OME-Zarr and NIfTI."""

from .dense_map import DenseMap, open_map
from .grids import unit_grids
from .header import model_sha256
from .inferer import MapInferer, SlideInferer, UnitInferer, prepare_crops, prepare_slide
from .prediction import PredictionWriter
from .projection import expression_of
from .requests import PredictionDataset

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
