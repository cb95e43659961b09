"""From a slide to pooled features, and from those to AnnData."""

from .inferer import SlideInferer, UnitInferer, prepare_crops, prepare_slide
from .prediction import PredictionDataset, PredictionWriter, unit_grid

__all__ = [
    "PredictionDataset",
    "PredictionWriter",
    "SlideInferer",
    "UnitInferer",
    "prepare_crops",
    "prepare_slide",
    "unit_grid",
]
