"""PixNet: from an H&E image to a dense map of features, and from features to gene expression."""

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
from .ridge_branch import RidgeBranch
from .tta import FLIPS_AND_TURNS, mean_over

__all__ = ["ExpressionModel", "PixNet", "UnitExpression"]


class UnitExpression(NamedTuple):
    """Predicted expression of units.

    Attributes:
        log_cp10k: log1p CP10k, (U, G).
        rate: counts per µm² of each gene and, last, of all other genes together, (U, G + 1). None where the head
            predicts no rate.
    """

    log_cp10k: torch.Tensor
    rate: torch.Tensor | None


class ExpressionModel(nn.Module, ABC):
    """A network that maps an image to features, with a head that maps features to genes.

    The model pools features over a unit first and projects them to genes after, so that it never holds an
    (H, W, genes) array.

    Attributes:
        stride: image pixels per map pixel.
        grid_px: where image sizes and tile origins are multiples of it, the map is the same for every tiling.
        halo_px: how far beyond a `grid_px`-aligned core the image changes the map inside the core (in evaluation).
        channels: channels of `features`.
        n_genes: genes predicted, G.
        test_time_augmentation: the flips and turns that `features` averages over.
    """

    stride: int
    grid_px: int
    halo_px: int

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head
        self.channels = head.channels
        self.n_genes = head.n_genes
        self.test_time_augmentation: tuple[int, ...] = (0,)

    @abstractmethod
    def decode(self, image: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W), H and W multiples of `grid_px` -> the head's input (B, C, H / stride, W / stride)."""

    def initialize(self, *, mean: Any = None, std: Any = None, loadings: Any = None, components: Any = None) -> None:
        """Initialise the head from statistics of the training units; see `networks.heads.Head.initialize`."""
        self.head.initialize(mean=mean, std=std, loadings=loadings, components=components)

    def use_test_time_augmentation(self, numbers: Sequence[int]) -> ExpressionModel:
        """Let `features` average over flips and right-angle turns of the image.

        Tissue has no up or down. Each flip or turn costs one pass of the network. A region on the grid stays on it when
        turned, so `halo_px` and `grid_px` do not change.

        Args:
            numbers: some of `networks.tta.FLIPS_AND_TURNS`. (0,) is the image as it is.

        Returns:
            The model itself.

        Raises:
            ValueError: if `numbers` is empty, or a number is not from 0 to 7.
        """
        if not numbers or not set(numbers) <= set(FLIPS_AND_TURNS):
            raise ValueError(f"test_time_augmentation={list(numbers)}: name some of 0 to 7; [0] is the image as it is.")
        self.test_time_augmentation = tuple(dict.fromkeys(int(number) for number in numbers))
        return self

    def features(self, image: torch.Tensor) -> torch.Tensor:
        """Compute the map that is pooled over units.

        Where a side is not a multiple of `grid_px`, the method repeats the right and bottom border and crops the map
        again. Near that border the values differ from those of a larger image.

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
        features = mean_over(self.test_time_augmentation, self._map, image)
        return features[..., : -(-height // self.stride), : -(-width // self.stride)]

    def _map(self, image: torch.Tensor) -> torch.Tensor:
        """The map of an image on the grid, before any average."""
        return self.head.activate(self.decode(image))

    def pool(self, features: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Mean of `features` over the units of the mask `label` (B, L, H, W) -> (U, channels); see `pool_units`."""
        if isinstance(label, MetaTensor):
            label = label.as_tensor()
        return pool_units(features, label, self.stride)

    def project(self, pooled: torch.Tensor) -> torch.Tensor:
        """Means over units (..., channels) -> log1p CP10k (..., G), not clipped; see `Head.project`."""
        return self.head.project(pooled)

    def affine(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight (R, channels) and bias (R,) of the linear map from pooled features; see `Head.affine`."""
        return self.head.affine()

    def rate(self, pooled: torch.Tensor) -> torch.Tensor | None:
        """Means over units (..., channels) -> counts per µm² (..., G + 1), or None; see `Head.rate`."""
        return self.head.rate(pooled)

    def forward(self, image: torch.Tensor, label: torch.Tensor | None = None) -> torch.Tensor | UnitExpression:
        """Predict the expression of units or, without a mask, the dense map.

        Args:
            image: (B, 3, H, W), normalised intensities.
            label: (B, L, H, W) index mask of units.

        Returns:
            With a mask a `UnitExpression`, not clipped, for a loss. Without one log1p CP10k at each map pixel, clipped
            to 0..`MAX_LOG_CP10K`, (B, G, H / stride, W / stride). Use that for small regions: its memory grows with the
            number of genes.
        """
        features = self.features(image)
        if label is None:
            return self.project(features.movedim(1, -1)).movedim(-1, 1).clamp(0, MAX_LOG_CP10K)
        pooled = self.pool(features, label)
        return UnitExpression(self.project(pooled), self.rate(pooled))


class PixNet(ExpressionModel):
    """Dense gene expression from histology, after Zhang, Yang, Pan (https://arxiv.org/abs/2503.01347).

    A U-Net decoder with separable attention fusion brings the encoder's features to its finest stride. The head
    predicts expression from their mean over each unit. In evaluation no layer normalises over space, so tiles agree.

    With a ridge branch, the network predicts the mean of two: its head's prediction, and a ridge regression on frozen
    features, which `RidgeBranch.fit` solves for. In training mode the network leaves the branch out, so that the two
    stay independent.

    Args:
        n_genes: genes of the panel, G.
        encoder: an `Encoder`; `SwinEncoder()` if None.
        decoder_channels: the decoder's channels at each of the encoder's levels, finest first.
        head: `linear` for one unit size, or `programs` for rates that add up over units of any size.
        n_programs: programs of the head `programs`.
        fusion: how the decoder joins a skip and the upsampled path: `safb`, or `conv`, a 3x3 convolution of both.
        ridge: a `RidgeBranch` of the encoder's finest stride, for the head `linear` only; None adds none.

    Raises:
        ValueError: if the branch's stride is not the encoder's finest, or the head is not `linear`.
    """

    def __init__(
        self,
        n_genes: int = 250,
        encoder: nn.Module | None = None,
        decoder_channels: Sequence[int] = (64, 96, 128, 192),
        head: Literal["linear", "programs"] = "linear",
        n_programs: int = 32,
        fusion: Literal["safb", "conv"] = "safb",
        ridge: nn.Module | None = None,
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
        self.ridge = cast("RidgeBranch | None", ridge)
        if self.ridge is not None:
            self._join(self.ridge, head)

    def _join(self, ridge: RidgeBranch, head: str) -> None:
        if head != "linear" or ridge.stride != self.stride:
            raise ValueError(
                f"A ridge branch of stride {ridge.stride} and the head {head!r} do not go with an encoder of stride "
                f"{self.stride}: the head must be 'linear' and the strides equal, or network_def#ridge null."
            )
        self.channels += ridge.channels
        self.grid_px = math.lcm(self.grid_px, ridge.grid_px)
        self.halo_px = max(self.halo_px, ridge.halo_px)

    def decode(self, image: torch.Tensor) -> torch.Tensor:
        """See `ExpressionModel`."""
        return self.decoder(self.encoder(image))

    def _map(self, image: torch.Tensor) -> torch.Tensor:
        own = super()._map(image)
        if self.ridge is None or self.training:
            return own
        return torch.cat([own, self.ridge(image)], dim=1)

    def project(self, pooled: torch.Tensor) -> torch.Tensor:
        """See `ExpressionModel`; the mean of head and ridge branch where `pooled` holds the channels of both."""
        own = self.head.project(pooled[..., : self.head.channels])
        if self.ridge is None or pooled.shape[-1] == self.head.channels:
            return own
        return (own + self.ridge.project(pooled[..., self.head.channels :])) / 2

    def affine(self) -> tuple[torch.Tensor, torch.Tensor]:
        """See `ExpressionModel`; with a ridge branch, the channels of head and branch side by side."""
        weight, bias = self.head.affine()
        if self.ridge is None:
            return weight, bias
        return torch.cat([weight, self.ridge.loadings], dim=1) / 2, (bias + self.ridge.bias) / 2
