"""The workflow's parts: data sets, metrics, inference, importers, the report and the command line.

`__init__.pyi` says what they are. Each is imported on first use, so that `pixnet --help` and a mistyped option
need neither torch nor MONAI.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
