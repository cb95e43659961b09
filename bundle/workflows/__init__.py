"""Train, evaluate, predict: each merges a few keys into a configuration and runs it.

`__init__.pyi` lists the functions. Each is imported on first use, so that a prediction does not wait for what training
needs.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
