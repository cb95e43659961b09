"""Ridge regression on the features of a frozen encoder: the branch of `PixNet` that is solved for, not trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional as F

from .encoders import Encoder
from .encoders.errors import TooLittleError

__all__ = ["FrozenFeatures", "RidgeBranch"]


class FrozenFeatures(nn.Module):
    """The features of an encoder that is not trained, all brought to its finest stride.

    Args:
        encoder: an `Encoder`. This class freezes it.
        context_px: side of a square neighbourhood, in image pixels. Its mean features of the coarsest level become
            further channels. It must be an odd number of map pixels of that level; 0 adds none.

    Attributes:
        stride: image pixels per map pixel, the encoder's finest.
        sizes: channels of each of `levels`.
        channels: channels of the map, the sum of `sizes`.
        grid_px: as in `ExpressionModel`.
        halo_px: as in `ExpressionModel`.

    Raises:
        ValueError: if `context_px` is not an odd number of the coarsest level's map pixels.
    """

    def __init__(self, encoder: nn.Module, context_px: int = 0) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False).eval()
        spec = cast(Encoder, encoder)
        coarsest = spec.strides[-1]
        if context_px and context_px % (2 * coarsest) != coarsest:
            raise ValueError(f"context_px={context_px} must be an odd multiple of {coarsest} px, the coarsest stride.")
        self.context = context_px // coarsest
        self.stride, self.grid_px = spec.strides[0], spec.grid_px
        self.sizes = [*spec.channels, *([spec.channels[-1]] if self.context else [])]
        self.channels = sum(self.sizes)
        reach_px = [stride if level else 0 for level, stride in enumerate(spec.strides)]  # bilinear
        reach_px[-1] += self.context // 2 * coarsest
        self.halo_px = max(spec.input_margin_px(level, margin) for level, margin in enumerate(reach_px))

    def train(self, mode: bool = True) -> FrozenFeatures:
        """Stay in evaluation mode, whatever `mode` is."""
        return super().train(False)

    def levels(self, image: torch.Tensor, weight: torch.Tensor | None = None) -> list[torch.Tensor]:
        """The encoder's features, finest first, and the neighbourhood's mean last.

        Args:
            image: (B, 3, H, W).
            weight: (R, channels of the finest level, 1, 1), for a 1x1 convolution of the finest level; None for none.
        """
        encoder: Any = self.encoder
        at_once = weight is not None and hasattr(encoder, "reduced") and len(encoder.strides) > 1
        found = list(encoder.reduced(image, weight) if at_once else encoder(image))
        if self.context:
            found.append(
                F.avg_pool2d(found[-1], self.context, stride=1, padding=self.context // 2, count_include_pad=False)
            )
        if weight is not None and not at_once:
            found[0] = F.conv2d(found[0], weight)
        return found

    def features(self, image: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> (B, channels, H / stride, W / stride)."""
        levels = self.levels(image)
        return torch.cat([_up(level, levels[0].shape[-2:]) for level in levels], dim=1)


class RidgeBranch(nn.Module):
    """Reduced-rank ridge regression on frozen features.

    With a few hundred units, a trained network and a regression on frozen features err in different places. Their mean
    is better than either. `fit` standardises the features pooled over units and the expression, regresses one on the
    other with a ridge penalty, and keeps the leading components of the fit (Mukherjee & Zhu 2011,
    https://doi.org/10.1002/sam.10138). The regression is linear, so the branch applies it to the map, and pooling over
    units comes after.

    Args:
        n_genes: genes of the panel, G.
        encoder: an `Encoder`. This class freezes it.
        rank: components kept, which are the channels of the map.
        shrinkage: ridge penalty, as a share of the features' total variance.
        context_px: see `FrozenFeatures`.

    Attributes:
        filters: the frozen features.
        channels: channels of the map, the rank.
        stride: image pixels per map pixel.
        grid_px: as in `ExpressionModel`.
        halo_px: as in `ExpressionModel`.
    """

    mean: torch.Tensor
    components: torch.Tensor
    loadings: torch.Tensor
    bias: torch.Tensor

    def __init__(
        self, n_genes: int, encoder: nn.Module, rank: int = 20, shrinkage: float = 0.01, context_px: int = 0
    ) -> None:
        super().__init__()
        self.filters = FrozenFeatures(encoder, context_px)
        self.channels, self.shrinkage = rank, shrinkage
        self.stride, self.grid_px, self.halo_px = self.filters.stride, self.filters.grid_px, self.filters.halo_px
        # Buffers, since no optimiser trains them.
        self.register_buffer("mean", torch.zeros(self.filters.channels))
        self.register_buffer("components", torch.zeros(rank, self.filters.channels))
        self.register_buffer("loadings", torch.zeros(n_genes, rank))
        self.register_buffer("bias", torch.zeros(n_genes))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> (B, rank, H / stride, W / stride).

        Each level is reduced to `rank` channels before it is resampled to the finest stride, which saves memory.
        """
        first, *others = self.components[..., None, None].split(self.filters.sizes, dim=1)
        total, *levels = self.filters.levels(image, first)
        total = total - (self.components @ self.mean)[:, None, None]
        for level, part in zip(levels, others, strict=True):
            total = total + _up(F.conv2d(level, part), total.shape[-2:])
        return total

    def project(self, pooled: torch.Tensor) -> torch.Tensor:
        """Means over units (..., rank) -> log1p CP10k (..., G)."""
        return F.linear(pooled, self.loadings, self.bias)

    @property
    def is_fitted(self) -> bool:
        """Whether the weights were solved for, or loaded."""
        return bool(self.loadings.any())

    @torch.no_grad()
    def fit(self, features: torch.Tensor, target: torch.Tensor) -> None:
        """Solve for the weights.

        Args:
            features: means of `filters.features` over units, (U, F).
            target: measured log1p CP10k, (U, G).

        Raises:
            TooLittleError: if there are fewer than two units.
        """
        if len(features) < 2:
            raise TooLittleError(f"A regression needs at least two units; there are {len(features)}.")
        x, y = features.double(), target.to(features.device).double()
        x_mean, y_mean = x.mean(0), y.mean(0)
        x_std, y_std = x.std(0, correction=0) + 1e-6, y.std(0, correction=0) + 1e-6
        x, y = (x - x_mean) / x_std, (y - y_mean) / y_std
        covariance = x.T @ x / len(x)
        penalty = self.shrinkage * covariance.trace() * torch.eye(len(covariance), device=x.device)
        coefficients = torch.linalg.solve(covariance + penalty, x.T @ y / len(x))
        fitted = coefficients.T @ covariance @ coefficients
        rank = min(self.channels, len(fitted))
        leading = torch.linalg.eigh(fitted).eigenvectors[:, -rank:]
        self.mean.copy_(x_mean)
        self.components.zero_()[:rank] = ((coefficients @ leading) / x_std[:, None]).T.to(self.components)
        self.loadings.zero_()[:, :rank] = (leading * y_std[:, None]).to(self.loadings)
        self.bias.copy_(y_mean)


def _up(level: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    if level.shape[-2:] == tuple(size):
        return level
    return F.interpolate(level, size=list(size), mode="bilinear", align_corners=False)
