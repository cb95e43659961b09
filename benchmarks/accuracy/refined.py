"""A map of full resolution: the decoder's, and two light convolutions of the image."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from networks import PixNet
from networks.heads import build_head

__all__ = ["RefinedPixNet"]


class RefinedPixNet(PixNet):
    """`PixNet` whose map has a cell per pixel: relu(upsampled decoder + convolutions of the image), `channels` wide.

    Args:
        n_genes: genes of the panel.
        refined_channels: of the refined map.
        **kw: see `PixNet`; without a texture.
    """

    def __init__(self, n_genes: int, refined_channels: int = 32, **kw: Any) -> None:
        super().__init__(n_genes, **kw)
        self.head = build_head(kw.get("head", "linear"), refined_channels, n_genes, kw.get("n_programs", 32))
        self.channels = self.head.channels
        coarse, self.stride = self.stride, 1
        self.coarse = nn.Sequential(
            nn.Conv2d(kw["decoder_channels"][0], refined_channels, 1),
            nn.Upsample(scale_factor=coarse, mode="bilinear", align_corners=False),
        )
        self.fine = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, refined_channels, 3, padding=1)
        )
        self.halo_px += self.grid_px  # the upsampling reads the next coarse cell

    def decode(self, image: torch.Tensor) -> torch.Tensor:
        """See `ExpressionModel`."""
        return torch.relu(self.coarse(super().decode(image)) + self.fine(image))
