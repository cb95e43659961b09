"""What a configuration may hold: literals and code, the values that suit a key, and what needs trust.

`__init__.pyi` lists the public functions, which are imported on first use: the command line reads this package before
it needs MONAI.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
