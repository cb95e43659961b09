"""From the files that people have to a data set: import each sample, check it, and say what a path holds.

`bundle/readers/` reads the files, one module for each technology.
"""

from .inspect import describe, inspect
from .prepare import prepare

__all__ = ["describe", "inspect", "prepare"]
