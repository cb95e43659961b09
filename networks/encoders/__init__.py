"""Encoders: image in, list of feature maps out, finest first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from .backbone import BackboneEncoder
from .efficientnet_lite import EfficientNetLiteEncoder
from .kmeans_patches import KMeansPatchEncoder
from .swin import SwinEncoder

__all__ = [
    "BackboneEncoder",
    "EfficientNetLiteEncoder",
    "Encoder",
    "KMeansPatchEncoder",
    "SwinEncoder",
]


class Encoder(Protocol):
    """What `PixNet` asks of an encoder, which is an `nn.Module` besides.

    One with a method `learn(images)` has filters that `bundle.fit_ridge` chooses on training crops. One with a method
    `reduced(image, weight)` gives its levels with the finest multiplied by a 1x1 convolution's weight: it need not be
    held whole.

    Attributes:
        strides: input pixels per cell of each feature map, finest first, each a multiple of the one before.
        channels: channels of each feature map.
        grid_px: input sizes and tile origins are multiples of it.
    """

    strides: Sequence[int]
    channels: Sequence[int]
    grid_px: int

    def __call__(self, image: torch.Tensor) -> list[torch.Tensor]:
        """(B, 3, H, W) -> list of (B, C_l, H / s_l, W / s_l)."""
        ...

    def input_margin_px(self, level: int, margin_px: int) -> int:
        """Input pixels read beyond a `grid_px`-aligned core by the cells of `level` up to `margin_px` beyond it."""
        ...
