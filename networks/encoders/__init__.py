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
    """What `PixNet` needs of an encoder, which must also be an `nn.Module`.

    Two methods are optional, for an encoder in a ridge branch. `learn(images)`: `bundle.fit_ridge` calls it with
    training crops, to choose the encoder's filters. `reduced(image, weight)`: the levels, with a 1x1 convolution of the
    finest by `weight`, so that the encoder need not hold that level as a whole.

    Attributes:
        strides: image pixels per map pixel of each level, finest first, each a multiple of the one before.
        channels: channels of each level.
        grid_px: image sizes and tile origins are multiples of it.
    """

    strides: Sequence[int]
    channels: Sequence[int]
    grid_px: int

    def __call__(self, image: torch.Tensor) -> list[torch.Tensor]:
        """(B, 3, H, W) -> list of (B, C_l, H / s_l, W / s_l)."""
        ...

    def input_margin_px(self, level: int, margin_px: int) -> int:
        """How far beyond a `grid_px`-aligned core the encoder reads the image, in pixels.

        Args:
            level: which of the feature maps.
            margin_px: how far beyond the core that map is needed, in image pixels.
        """
        ...
