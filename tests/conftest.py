from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import absl.logging
import numpy as np
import pytest
import tifffile
import torch


@pytest.fixture(scope="session", autouse=True)
def _stderr_stays_open() -> None:
    """When a run sets up logging, TensorBoard's absl would close a stderr that a test has redirected meanwhile."""
    absl.logging.get_absl_handler().python_handler.stream = sys.__stderr__


@pytest.fixture(autouse=True)
def _same_draws_every_time() -> None:
    """A test that draws unseeded numbers draws the same ones alone, in any order and on any worker."""
    np.random.seed(0)
    torch.manual_seed(0)


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
def save_backbone() -> Callable[[Path, str], Path]:
    """Save a small random backbone of a published form in a folder, as the transformers library does."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    transformers = pytest.importorskip("transformers", reason="the extra `backbone` is not installed")
    dinov2 = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 56, "patch_size": 14}
    swin = {"image_size": 64, "embed_dim": 8, "depths": [2, 2, 2], "num_heads": [1, 2, 4], "window_size": 4}
    forms = {
        "registers": lambda: transformers.Dinov2WithRegistersConfig(**dinov2, num_register_tokens=3),
        "gated": lambda: transformers.Dinov2WithRegistersConfig(**dinov2, use_swiglu_ffn=True),
        "swin": lambda: transformers.SwinConfig(**swin),
        "convnext": lambda: transformers.ConvNextConfig(hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1]),
    }

    def save(folder: Path, form: str) -> Path:
        net = transformers.AutoBackbone.from_config(forms[form]())
        generator = torch.Generator().manual_seed(0)
        for parameter in net.parameters():
            torch.nn.init.normal_(parameter, std=0.3, generator=generator)
        net.save_pretrained(folder)
        return folder

    return save


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated data set, small enough to train on in seconds: three slides of 600 µm at 1 µm per pixel."""
    from bundle.datasets.phantom import make_phantom

    return make_phantom(
        tmp_path_factory.mktemp("phantom"), slides=3, size_um=600.0, mpp=1.0, genes=30, units="spot:55:60,bin:16"
    )


@pytest.fixture(scope="session")
def tiny() -> dict[str, Any]:
    """Settings of a network and a training that take seconds; not to be changed."""
    encoder = {"embed_dim": 12, "depths": [2, 2], "num_heads": [1, 2], "window_size": 4}
    return {
        "mpp": 2.0,
        "crop_px": 128,
        "crops_per_slide": 2,
        "max_epochs": 1,
        "val_interval": 1,
        "min_total": 20,
        "ema_decay": 0.8,
        "network_def#encoder": {"_target_": "networks.SwinEncoder", **encoder},
        "network_def#decoder_channels": [8, 8],
        "network_def#ridge#encoder#strides": [4, 16],
        "network_def#ridge#encoder#n_patches": 8,
        "network_def#ridge#context_px": 48,
    }


@pytest.fixture(scope="session")
def tiny_run(phantom: Path, tiny: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of a tiny network trained for an epoch on the phantom; not to be changed."""
    from bundle import workflows

    folder = tmp_path_factory.mktemp("tiny_run")
    workflows.train(phantom, folder, settings=tiny)
    return folder
