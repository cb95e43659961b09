"""Baselines under PixNet's protocol: the figures that a model must beat on a data set."""

from .colour import SURROUND, colour_statistics
from .command import main, run
from .encoder import encoder_features
from .methods import BASELINES, Baseline, choose
from .slides import Slide, load_slide

__all__ = [
    "BASELINES",
    "SURROUND",
    "Baseline",
    "Slide",
    "choose",
    "colour_statistics",
    "encoder_features",
    "load_slide",
    "main",
    "run",
]
