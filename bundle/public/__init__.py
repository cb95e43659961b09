"""PixNet in Python: `import pixnet; pixnet.predict("slide.svs", "out.h5ad", "run", {"bin_um": 16.0})`.

An installation has this file as `pixnet/__init__.py`, beside `pixnet/bundle`, `pixnet/networks` and
`pixnet/transforms`; in the repository nothing imports it. `__init__.pyi` lists the public names. Each is imported on
first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
