"""One module for each technology: it finds samples by their files and reads each into a `Sample`."""

from .pictures import as_slide
from .registry import READERS, recognise, register
from .sample import Options, Place, Sample, UnitTable

__all__ = ["READERS", "Options", "Place", "Sample", "UnitTable", "as_slide", "recognise", "register"]
