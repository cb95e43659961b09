from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def studies(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three slides, two of which have units beside them."""
    folder = tmp_path_factory.mktemp("studies")
    for name in ("P1", "P2", "P3"):
        shutil.copy(phantom / "slides" / f"{name}.tif", folder)
    for name in ("P1", "P2"):
        shutil.copy(phantom / "units" / f"{name}_spot55.h5ad", folder / f"{name}.h5ad")
    return folder


@pytest.fixture(scope="module")
def served(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one's own to fine-tune."""
    return shutil.copytree(tiny_run, tmp_path_factory.mktemp("served") / "run")
