"""The metadata that the bundle format asks for, of one trained model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from .root import bundle_root

__all__ = ["model_metadata"]


def model_metadata(network: Any, genes: Sequence[str]) -> dict[str, Any]:
    """The content of `configs/metadata.json` with this model's sizes and genes.

    Args:
        network: has `grid_px` and `stride`.
        genes: the genes that it predicts, a channel each.
    """
    metadata = json.loads((bundle_root() / "configs" / "metadata.json").read_text())
    shapes = metadata["network_data_format"]
    shapes["inputs"]["image"]["spatial_shape"] = [f"{network.grid_px}*n"] * 2
    prediction = shapes["outputs"]["pred"]
    prediction["spatial_shape"] = [f"{network.grid_px // network.stride}*n"] * 2
    prediction["num_channels"] = len(genes)
    prediction["channel_def"] = {str(number): f"log1p CP10k of {gene}" for number, gene in enumerate(genes)}
    return metadata
