"""From the files that people have to a data set: one reader for each technology, and `prepare` for all of them."""

from .inspecting import describe, inspect
from .pictures import as_slide
from .preparing import prepare
from .registry import READERS, recognise, register
from .sample import Options, Place, Sample, UnitTable

__all__ = [
    "READERS",
    "Options",
    "Place",
    "Sample",
    "UnitTable",
    "as_slide",
    "describe",
    "inspect",
    "prepare",
    "recognise",
    "register",
]
