"""Many slides at once: a table of slides, predicted by the workers of a dask cluster.

`__init__.pyi` lists the public names, which are imported on first use: each slide's child needs none of them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
