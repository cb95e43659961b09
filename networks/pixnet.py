"""PixNet: an H&E image to a dense map of features, and features to gene expression."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, cast

import torch
from monai.data import MetaTensor
from torch import nn
from torch.nn import functional as F

from .decoder import Decoder
from .encoders import Encoder, SwinEncoder
from .heads import MAX_LOG_CP10K, Head, build_head
from .pooling import pool_units
from .symmetry import SYMMETRIES, average_over
from .texture import TextureExpert

__all__ = ["ExpressionModel", "PixNet", "UnitExpression"]


class UnitExpression(NamedTuple):
    """Predicted expression of units.

    Attributes:
        log_cp10k: log1p of counts per 10 000, (U, G).
        rate: counts per µm² of each gene and, last, of all others (U, G + 1); None where the head knows no rate.
    """

    log_cp10k: torch.Tensor
    rate: torch.Tensor | None


class ExpressionModel(nn.Module, ABC):
    """An image-to-map network and a head on it.

    Features are pooled over a unit first and projected to genes after, so that no (H, W, genes) array is needed.

    Attributes:
        stride: image pixels per cell of the map.
        grid_px: inputs and tile origins that are multiples of it give the same values however the slide is tiled.
        halo_px: how far beyond a `grid_px`-aligned core the input matters to the map inside it (in evaluation).
        channels: channels of `features`.
        n_genes: genes predicted.
        symmetries: flips and turns that `features` averages over, see `use_symmetries`.
    """

    stride: int
    grid_px: int
    halo_px: int

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head
        self.channels = head.channels
        self.n_genes = head.n_genes
        self.symmetries: tuple[int, ...] = (0,)

    @abstractmethod
    def decode(self, image: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W), H and W multiples of `grid_px` -> what the head takes, (B, C, H / stride, W / stride)."""

    def initialize(self, *, mean: Any = None, std: Any = None, loadings: Any = None, components: Any = None) -> None:
        """Start the head from statistics of the training units; see `networks.heads.Head.initialize`."""
        self.head.initialize(mean=mean, std=std, loadings=loadings, components=components)

    def use_symmetries(self, numbers: Sequence[int]) -> ExpressionModel:
        """Let `features` be the mean over these of the eight flips and right-angle turns of the image.

        Tissue has no up or down. Each costs one pass of the network. Regions on the grid stay on it when turned, so
        `halo_px` and `grid_px` hold as before.

        Args:
            numbers: of `networks.symmetry.SYMMETRIES`; (0,) is the image as it is, all eight the full average.

        Returns:
            The model itself.

        Raises:
            ValueError: if there is none, or a number is not from 0 to 7.
        """
        if not numbers or not set(numbers) <= set(SYMMETRIES):
            raise ValueError(f"symmetries={list(numbers)}: name some of 0 to 7; [0] is the image as it is.")
        self.symmetries = tuple(dict.fromkeys(int(number) for number in numbers))
        return self

    def features(self, image: torch.Tensor) -> torch.Tensor:
        """The map that is pooled over units.

        Sizes that are no multiple of `grid_px` are filled up at the right and bottom by repeating the border, and the
        map is cropped again: usable, but not what a larger image gives there.

        Args:
            image: (B, 3, H, W), normalised intensities.

        Returns:
            (B, channels, ceil(H / stride), ceil(W / stride)).
        """
        if isinstance(image, MetaTensor):
            image = image.as_tensor()
        height, width = image.shape[-2:]
        fill_bottom, fill_right = -height % self.grid_px, -width % self.grid_px
        if fill_bottom or fill_right:
            image = F.pad(image, (0, fill_right, 0, fill_bottom), mode="replicate")
        features = average_over(self.symmetries, self._map, image)
        return features[..., : -(-height // self.stride), : -(-width // self.stride)]

    def _map(self, image: torch.Tensor) -> torch.Tensor:
        """What is pooled, for an image on the grid."""
        return self.head.activate(self.decode(image))

    def pool(self, features: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Mean of `features` over the units of the mask `label` (B, L, H, W) -> (U, channels); see `pool_units`."""
        if isinstance(label, MetaTensor):
            label = label.as_tensor()
        return pool_units(features, label, self.stride)

    def project(self, pooled: torch.Tensor) -> torch.Tensor:
        """Means over units (..., channels) -> log1p of counts per 10 000, (..., G), unclipped; see `Head.project`."""
        return self.head.project(pooled)

    def affine(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight (R, channels) and bias (R,) of the linear map from pooled features; see `Head.affine`."""
        return self.head.affine()

    def rate(self, pooled: torch.Tensor) -> torch.Tensor | None:
        """Means over units (..., channels) -> counts per µm² (..., G + 1), or None where the head knows no rate."""
        return self.head.rate(pooled)

    def forward(self, image: torch.Tensor, label: torch.Tensor | None = None) -> torch.Tensor | UnitExpression:
        """Expression of units, or without a mask the dense map.

        Args:
            image: (B, 3, H, W), normalised intensities.
            label: (B, L, H, W) index mask of units.

        Returns:
            `UnitExpression` with a mask, unclipped, for a loss; else log1p of counts per 10 000 at each cell, clipped
            to 0..`MAX_LOG_CP10K`, (B, G, H / stride, W / stride), whose memory grows with the genes: meant for small
            regions.
        """
        features = self.features(image)
        if label is None:
            return self.project(features.movedim(1, -1)).movedim(-1, 1).clamp(0, MAX_LOG_CP10K)
        pooled = self.pool(features, label)
        return UnitExpression(self.project(pooled), self.rate(pooled))


class PixNet(ExpressionModel):
    """Dense gene expression from histology, after Zhang, Yang, Pan (https://arxiv.org/abs/2503.01347).

    An encoder's features go up a U-Net decoder with separable attention fusion to its finest stride, and a head reads
    expression off the mean over each unit. Nothing is normalised over space in evaluation, so tiles agree.

    With `texture`, the answer is the mean of two: the head's, and that of frozen filters, which `TextureExpert.fit`
    solves for. In training mode the head alone answers, so that the two stay independent.

    Args:
        n_genes: genes of the panel.
        encoder: an `Encoder`; `SwinEncoder()` if None.
        decoder_channels: the decoder's channels at each of the encoder's levels, finest first.
        head: `linear` for one unit size or `programs` for rates that add up over any.
        n_programs: programs of the head `programs`.
        fusion: what joins a skip and the upsampled path: `safb`, or `conv`, a plain 3x3 convolution of both.
        texture: a `TextureExpert` of the encoder's finest stride; None is none. For the head `linear` alone.

    Raises:
        ValueError: if the texture's stride is not the encoder's finest, or the head is not `linear`.
    """

    def __init__(
        self,
        n_genes: int = 250,
        encoder: nn.Module | None = None,
        decoder_channels: Sequence[int] = (64, 96, 128, 192),
        head: Literal["linear", "programs"] = "linear",
        n_programs: int = 32,
        fusion: Literal["safb", "conv"] = "safb",
        texture: nn.Module | None = None,
    ) -> None:
        super().__init__(build_head(head, decoder_channels[0], n_genes, n_programs))
        self.encoder = SwinEncoder() if encoder is None else encoder
        spec = cast(Encoder, self.encoder)
        self.decoder = Decoder(spec.channels, spec.strides, decoder_channels, fusion)
        self.stride = spec.strides[0]
        self.grid_px = spec.grid_px
        self.halo_px = max(
            spec.input_margin_px(level, margin_px) for level, margin_px in enumerate(self.decoder.margins_px)
        )
        self.texture = cast("TextureExpert | None", texture)
        if self.texture is not None:
            self._join(self.texture, head)

    def _join(self, texture: TextureExpert, head: str) -> None:
        if head != "linear" or texture.stride != self.stride:
            raise ValueError(
                f"A texture of stride {texture.stride} and the head {head!r} do not go with an encoder of stride "
                f"{self.stride}: the head must be 'linear' and the strides equal, or network_def#texture null."
            )
        self.channels += texture.channels
        self.grid_px = math.lcm(self.grid_px, texture.grid_px)
        self.halo_px = max(self.halo_px, texture.halo_px)

    def decode(self, image: torch.Tensor) -> torch.Tensor:
        """See `ExpressionModel`."""
        return self.decoder(self.encoder(image))

    def _map(self, image: torch.Tensor) -> torch.Tensor:
        own = super()._map(image)
        if self.texture is None or self.training:
            return own
        return torch.cat([own, self.texture(image)], dim=1)

    def project(self, pooled: torch.Tensor) -> torch.Tensor:
        """See `ExpressionModel`; the mean of head and texture where both were pooled."""
        own = self.head.project(pooled[..., : self.head.channels])
        if self.texture is None or pooled.shape[-1] == self.head.channels:
            return own
        return (own + self.texture.project(pooled[..., self.head.channels :])) / 2

    def affine(self) -> tuple[torch.Tensor, torch.Tensor]:
        """See `ExpressionModel`; with a texture, the channels of both side by side."""
        weight, bias = self.head.affine()
        if self.texture is None:
            return weight, bias
        return torch.cat([weight, self.texture.loadings], dim=1) / 2, (bias + self.texture.bias) / 2
