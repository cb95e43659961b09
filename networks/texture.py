"""Expression from frozen filters, in closed form: the second opinion of `PixNet`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional as F

from .encoders import Encoder
from .encoders.errors import TooLittleError

__all__ = ["FrozenFeatures", "TextureExpert"]


class FrozenFeatures(nn.Module):
    """The features of an encoder that is not trained, all brought to its finest stride.

    Args:
        encoder: an `Encoder`; frozen here.
        context_px: side of the neighbourhood whose mean features of the coarsest level are told too, an odd number of
            its cells; 0 is none.

    Attributes:
        stride: pixels per cell of the map, the encoder's finest.
        sizes: channels of each of `levels`.
        channels: of the map.
        grid_px: as in `ExpressionModel`.
        halo_px: likewise.

    Raises:
        ValueError: if `context_px` is no odd number of cells.
    """

    def __init__(self, encoder: nn.Module, context_px: int = 0) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False).eval()
        spec = cast(Encoder, encoder)
        coarsest = spec.strides[-1]
        if context_px and context_px % (2 * coarsest) != coarsest:
            raise ValueError(f"context_px={context_px} is no odd number of cells of {coarsest} px.")
        self.context = context_px // coarsest
        self.stride, self.grid_px = spec.strides[0], spec.grid_px
        self.sizes = [*spec.channels, *([spec.channels[-1]] if self.context else [])]
        self.channels = sum(self.sizes)
        reach_px = [stride if level else 0 for level, stride in enumerate(spec.strides)]  # bilinear
        reach_px[-1] += self.context // 2 * coarsest
        self.halo_px = max(spec.input_margin_px(level, margin) for level, margin in enumerate(reach_px))

    def train(self, mode: bool = True) -> FrozenFeatures:
        """Nothing here changes with training."""
        return super().train(False)

    def levels(self, image: torch.Tensor, weight: torch.Tensor | None = None) -> list[torch.Tensor]:
        """The encoder's features, finest first, and the neighbourhood's last.

        With `weight`, (R, channels of the finest level, 1, 1), the finest level is multiplied by it.
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


class TextureExpert(nn.Module):
    """Reduced-rank ridge regression on frozen features.

    With some hundred units, what a network learns and what frozen filters tell are wrong in different places, and their
    mean is better than either. Features pooled over units are standardised and regressed on standardised expression
    with a penalty, and the fit is cut to its leading components (Mukherjee & Zhu 2011,
    https://doi.org/10.1002/sam.10138). It is linear, so it is applied to the map first and averaged over units after.

    Args:
        n_genes: genes of the panel.
        encoder: an `Encoder`; frozen here.
        rank: components kept, and channels of the map.
        shrinkage: ridge penalty, as a share of the features' total variance.
        context_px: see `FrozenFeatures`.

    Attributes:
        filters: the frozen features.
        channels: of the map, the rank.
        stride: pixels per cell of the map.
        grid_px: as in `ExpressionModel`.
        halo_px: likewise.
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
        # Solved for and not trained, so buffers.
        self.register_buffer("mean", torch.zeros(self.filters.channels))
        self.register_buffer("components", torch.zeros(rank, self.filters.channels))
        self.register_buffer("loadings", torch.zeros(n_genes, rank))
        self.register_buffer("bias", torch.zeros(n_genes))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> (B, rank, H / stride, W / stride); each level is reduced first and brought up after."""
        first, *others = self.components[..., None, None].split(self.filters.sizes, dim=1)
        total, *levels = self.filters.levels(image, first)
        total = total - (self.components @ self.mean)[:, None, None]
        for level, part in zip(levels, others, strict=True):
            total = total + _up(F.conv2d(level, part), total.shape[-2:])
        return total

    def project(self, pooled: torch.Tensor) -> torch.Tensor:
        """Means over units (..., rank) -> log1p of counts per 10 000, (..., G)."""
        return F.linear(pooled, self.loadings, self.bias)

    @torch.no_grad()
    def fit(self, features: torch.Tensor, target: torch.Tensor) -> None:
        """Solve for the weights.

        Args:
            features: of `filters`, pooled over units, (U, F).
            target: log1p of counts per 10 000, (U, G).

        Raises:
            TooLittleError: if there are fewer than two units.
        """
        if len(features) < 2:
            raise TooLittleError(f"A regression needs two units at least; there are {len(features)}.")
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
