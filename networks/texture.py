"""Expression from frozen filters, in closed form: the second opinion of `PixNet`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional as F

from .encoders import Encoder
from .pooling import pool_units

__all__ = ["TextureExpert"]


class TextureExpert(nn.Module):
    """Reduced-rank ridge regression on the features of an encoder that is not trained.

    With some hundred units, what a network learns and what frozen filters tell are wrong in different places, and their
    mean is better than either. All features of the encoder, brought to its finest stride, are pooled over units,
    standardised, and regressed on standardised expression with a penalty; the fit is cut to its leading components
    (Mukherjee & Zhu 2011, https://doi.org/10.1002/sam.10138). It is linear, so it can be applied to cells of the map
    first and averaged over any unit after.

    Args:
        n_genes: genes of the panel.
        encoder: an `Encoder`; frozen here.
        rank: components kept, and channels of the map.
        shrinkage: ridge penalty, as a share of the features' total variance.
        context_px: side of the neighbourhood whose mean features of the coarsest level are told too; 0 is none. An odd
            number of its cells.

    Attributes:
        stride: pixels per cell of the map, the encoder's finest.
        channels: of the map, the rank.
        grid_px: as in `ExpressionModel`.
        halo_px: likewise.
    """

    mean: torch.Tensor
    std: torch.Tensor
    bias: torch.Tensor

    def __init__(
        self, n_genes: int, encoder: nn.Module, rank: int = 20, shrinkage: float = 0.01, context_px: int = 0
    ) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False)
        spec = cast(Encoder, encoder)
        self.stride, self.grid_px, self.channels, self.shrinkage = spec.strides[0], spec.grid_px, rank, shrinkage
        coarsest = spec.strides[-1]
        if context_px and context_px % (2 * coarsest) != coarsest:
            raise ValueError(f"context_px={context_px} is no odd number of cells of {coarsest} px.")
        self.context = context_px // coarsest
        reach_px = [stride if level else 0 for level, stride in enumerate(spec.strides)]  # bilinear
        reach_px[-1] += self.context // 2 * coarsest
        self.halo_px = max(spec.input_margin_px(level, margin) for level, margin in enumerate(reach_px))
        n_features = sum(spec.channels) + (spec.channels[-1] if self.context else 0)
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("std", torch.ones(n_features))
        self.register_buffer("bias", torch.zeros(n_genes))
        self.components = nn.Parameter(torch.zeros(rank, n_features), requires_grad=False)
        self.loadings = nn.Parameter(torch.zeros(n_genes, rank), requires_grad=False)

    def train(self, mode: bool = True) -> TextureExpert:
        """Nothing here changes with training."""
        return super().train(False)

    def levels(self, image: torch.Tensor) -> list[torch.Tensor]:
        """The frozen features, finest first, and the neighbourhood's last."""
        found = list(self.encoder(image))
        if self.context:
            found.append(
                F.avg_pool2d(found[-1], self.context, stride=1, padding=self.context // 2, count_include_pad=False)
            )
        return found

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> (B, rank, H / stride, W / stride); each level is reduced first and brought up after."""
        levels = self.levels(image)
        size = levels[0].shape[-2:]
        weight = self.components / self.std
        bias = -weight @ self.mean
        total: Any = bias[:, None, None]
        start = 0
        for level in levels:
            part = weight[:, start : start + level.shape[1], None, None]
            start += level.shape[1]
            total = total + _up(F.conv2d(level, part), size)
        return total

    def project(self, pooled: torch.Tensor) -> torch.Tensor:
        """Means over units (..., rank) -> standardised expression (..., G)."""
        return F.linear(pooled, self.loadings, self.bias)

    @torch.no_grad()
    def fit(self, batches: Iterable[Mapping[str, torch.Tensor]], mean: torch.Tensor, std: torch.Tensor) -> int:
        """Solve for the weights.

        Args:
            batches: each with `image` (B, 3, H, W), the unit mask `label` (B, L, H, W) and `target` (U, G), log1p of
                counts per 10 000. A unit may come again, its picture augmented in another way.
            mean: (G,) of the target.
            std: (G,) likewise.

        Returns:
            How many units were seen.

        Raises:
            ValueError: if none was.
        """
        seen = 0
        sums: list[torch.Tensor] = []
        device = self.components.device
        for batch in batches:
            levels = self.levels(batch["image"].to(device))
            size = levels[0].shape[-2:]
            features = torch.cat([_up(level, size) for level in levels], dim=1)
            x = pool_units(features, batch["label"].to(device), self.stride).double()
            y = (batch["target"].to(device) - mean.to(device)).double() / std.to(device)
            now = [x.sum(0), x.T @ x, y.sum(0), x.T @ y]
            sums = [a + b for a, b in zip(sums, now, strict=True)] if sums else now
            seen += len(x)
        if seen == 0:
            raise ValueError("There is no unit to learn from.")
        x_mean, y_mean = sums[0] / seen, sums[2] / seen
        x_cov, xy_cov = sums[1] / seen - torch.outer(x_mean, x_mean), sums[3] / seen - torch.outer(x_mean, y_mean)
        x_std = x_cov.diagonal().clamp_min(0).sqrt() + 1e-6
        x_cov, xy_cov = x_cov / torch.outer(x_std, x_std), xy_cov / x_std[:, None]
        penalty = self.shrinkage * x_cov.trace()
        coefficients = torch.linalg.solve(x_cov + penalty * torch.eye(len(x_cov), device=device), xy_cov)
        # The leading components of the fitted values are those of coefficients' cov coefficients.
        fitted = coefficients.T @ x_cov @ coefficients
        rank = min(self.channels, *coefficients.shape)
        loadings = torch.linalg.eigh(fitted).eigenvectors[:, -rank:]
        self.mean.copy_(x_mean)
        self.std.copy_(x_std)
        self.bias.copy_(y_mean)
        self.loadings.zero_()[:, :rank] = loadings.to(self.loadings)
        self.components.zero_()[:rank] = (coefficients @ loadings).T.to(self.components)
        return seen


def _up(level: torch.Tensor, size: tuple[int, int] | torch.Size) -> torch.Tensor:
    if level.shape[-2:] == size:
        return level
    return F.interpolate(level, size=tuple(size), mode="bilinear", align_corners=False)
