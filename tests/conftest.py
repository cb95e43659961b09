from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile


@pytest.fixture(scope="session")
def real_data() -> Path:
    root = Path(os.environ.get("PIXNET_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"no real tissue at {root}: set PIXNET_DATA")
    return root


@pytest.fixture(scope="session")
def write_slide() -> Callable[..., Path]:
    return _write_slide


def _write_slide(
    path: Path,
    image: np.ndarray,
    mpp: float | None,
    pyramid: bool = True,
    tile_px: int | None = 64,
    subifds: bool = False,
    **kw: object,
) -> Path:
    """Write uint8 (H, W, 3) as a TIFF, each level every second pixel of the one before, down to under 64 px.

    `tile_px=None` writes strips; `subifds` keeps the levels where OME-TIFF does; `kw` goes to tifffile (compression,
    description, rowsperstrip ...).
    """
    levels = [image]
    while pyramid and min(levels[-1].shape[:2]) > 64:
        levels.append(np.ascontiguousarray(levels[-1][::2, ::2]))
    options = {"photometric": "rgb", "metadata": None, **kw}
    if tile_px is not None:
        options["tile"] = (tile_px, tile_px)
    with tifffile.TiffWriter(path) as tiff:
        for i, level in enumerate(levels):
            if mpp is not None:
                options |= {"resolution": (1e4 / (mpp * 2**i),) * 2, "resolutionunit": "CENTIMETER"}
            if i == 0 and subifds:
                options["subifds"] = len(levels) - 1
            tiff.write(level, subfiletype=int(i > 0), **options)
            options.pop("subifds", None)
            options.pop("description", None)
    return Path(path)


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated data set, small enough to train on in seconds: three slides of 600 µm at 1 µm per pixel."""
    from bundle.phantom import make_phantom

    return make_phantom(
        tmp_path_factory.mktemp("phantom"), slides=3, size_um=600.0, mpp=1.0, genes=30, units="spot:55:60,bin:16"
    )
