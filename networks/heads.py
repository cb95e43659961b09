"""Heads: from pooled features to expression. Both are linear, up to the final logarithm."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["MAX_LOG_CP10K", "Head", "LinearHead", "ProgramsHead", "build_head"]

#: Largest possible log1p CP10k: one gene has all counts.
MAX_LOG_CP10K = math.log1p(1e4)


class Head(nn.Module, ABC):
    """The part of a model that turns features into genes.

    Attributes:
        channels: channels of the map that is pooled, which `activate` gives.
        n_genes: genes of the panel, G.
    """

    channels: int
    n_genes: int

    @abstractmethod
    def activate(self, features: torch.Tensor) -> torch.Tensor:
        """The decoder's map (B, C_decoder, h, w) -> the map that is pooled over units, (B, channels, h, w)."""

    @abstractmethod
    def project(self, pooled: torch.Tensor) -> torch.Tensor:
        """Means over units (..., channels) -> log1p CP10k (..., G).

        The result is not clipped to 0..`MAX_LOG_CP10K`, so that training has a gradient everywhere.
        """

    @abstractmethod
    def rate(self, pooled: torch.Tensor) -> torch.Tensor | None:
        """Means over units (..., channels) -> counts per µm² (..., G + 1), the last for all other genes together.

        None for a head that predicts no rate.
        """

    @abstractmethod
    def affine(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight and bias of the head's linear map, so that nobody has to probe it.

        A head without a rate gives weight (G, channels) and bias (G,), with `project(x) = x @ weight.T + bias`, log1p
        CP10k. A head with a rate gives weight (G + 1, channels) and bias (G + 1,), with `rate(x) = x @ weight.T + bias`
        in counts per µm²; the last row is all other genes together.
        """

    @abstractmethod
    def initialize(self, *, mean: Any = None, std: Any = None, loadings: Any = None, components: Any = None) -> None:
        """Start from statistics of the training units. Each head takes those that it needs.

        Args:
            mean: mean log1p CP10k of each gene, (G,).
            std: its standard deviation, (G,).
            loadings: (G + 1, K), non-negative; row sums are the mean counts per µm².
            components: (G, K), principal components of standardised log1p CP10k, with K at most `channels`.

        Raises:
            ValueError: if a statistic that the head needs is missing, or has the wrong shape or range.
        """


class LinearHead(Head):
    """Predicts log1p CP10k as std * (W F + b) + mean, where F is a unit's mean features.

    It fits units of the size trained on. For other sizes it is an approximation, since the logarithm of a mean is not
    the mean of logarithms.

    Args:
        channels: channels of the decoder.
        n_genes: genes of the panel.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, channels: int, n_genes: int) -> None:
        super().__init__()
        self.channels = channels
        self.n_genes = n_genes
        self.weight = nn.Linear(channels, n_genes)
        nn.init.normal_(self.weight.weight, std=0.01)  # the start is the training mean
        nn.init.zeros_(self.weight.bias)
        self.register_buffer("mean", torch.zeros(n_genes))
        self.register_buffer("std", torch.ones(n_genes))

    def activate(self, features: torch.Tensor) -> torch.Tensor:
        """The map itself."""
        return features

    def project(self, pooled: torch.Tensor) -> torch.Tensor:
        """See `Head`."""
        return self.std * self.weight(pooled) + self.mean

    def rate(self, pooled: torch.Tensor) -> None:
        """None: a head in log space predicts no rate."""
        return None

    def affine(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight (G, channels) and bias (G,) of log1p CP10k; see `Head`."""
        return self.std[:, None] * self.weight.weight, self.std * self.weight.bias + self.mean

    def initialize(self, *, mean: Any = None, std: Any = None, loadings: Any = None, components: Any = None) -> None:
        """Take `mean`, `std` and, where given, `components` as the weights of the first channels; see `Head`."""
        self.mean.copy_(_as_stat("mean", mean, (self.n_genes,)))
        self.std.copy_(_as_stat("std", std, (self.n_genes,), non_negative=True))
        if components is not None:
            n = np.shape(components)[-1]
            if n > self.channels:
                raise ValueError(
                    f"{n} components do not fit a decoder of {self.channels} channels: lower their number."
                )
            with torch.no_grad():
                self.weight.weight[:, :n] = _as_stat("components", components, (self.n_genes, n))


class ProgramsHead(Head):
    """Expression programs F >= 0 and a rate density λ = W F + b in counts per µm², with W, b >= 0.

    The expected count of a region is the integral of λ over it. So the counts of a region's parts add up exactly, and
    one map serves units of every size. The last of the G + 1 rows of W stands for all genes outside the panel, so that
    log1p(1e4 * Λ_g / ΣΛ) is normalised by the whole transcriptome, as the targets are.

    Args:
        channels: channels of the decoder.
        n_genes: genes of the panel.
        n_programs: programs, K.
    """

    scale: torch.Tensor

    def __init__(self, channels: int, n_genes: int, n_programs: int = 32) -> None:
        super().__init__()
        self.channels = n_programs
        self.n_genes = n_genes
        self.programs = nn.Conv2d(channels, n_programs, 1)
        nn.init.normal_(self.programs.weight, std=0.01)
        self.programs.bias = nn.Parameter(_inverse_softplus(torch.ones(n_programs)))  # F starts at 1
        start = _inverse_softplus(torch.tensor(1 / n_programs)).item()
        self.raw_loadings = nn.Parameter(start + 0.1 * torch.randn(n_genes + 1, n_programs))
        self.raw_bias = nn.Parameter(torch.full((n_genes + 1,), math.log(1e-3)))
        # Rates of genes differ by orders of magnitude, so the parameters are relative to each gene's mean rate.
        self.register_buffer("scale", torch.ones(n_genes + 1))

    def activate(self, features: torch.Tensor) -> torch.Tensor:
        """The programs F (B, K, h, w)."""
        return F.softplus(self.programs(features))

    def rate(self, pooled: torch.Tensor) -> torch.Tensor:
        """See `Head`."""
        return self.scale * F.linear(pooled, F.softplus(self.raw_loadings), F.softplus(self.raw_bias))

    def affine(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight (G + 1, channels) and bias (G + 1,) of the counts per µm²; see `Head`."""
        return self.scale[:, None] * F.softplus(self.raw_loadings), self.scale * F.softplus(self.raw_bias)

    def project(self, pooled: torch.Tensor) -> torch.Tensor:
        """See `Head`."""
        rate = self.rate(pooled)
        return torch.log1p(1e4 * rate[..., :-1] / rate.sum(-1, keepdim=True))

    def initialize(self, *, mean: Any = None, std: Any = None, loadings: Any = None, components: Any = None) -> None:
        """Take `loadings`, so that F = 1 predicts the mean rates; see `Head`."""
        loadings = _as_stat("loadings", loadings, (self.n_genes + 1, self.channels), non_negative=True)
        scale = loadings.sum(1)
        if not bool((scale[:-1] > 0).all()):
            raise ValueError("loadings has genes of zero rate: leave genes without a count out of the panel.")
        # The last row may be zero: a panel can hold all measured genes.
        relative = loadings / torch.where(scale > 0, scale, 1).unsqueeze(1)
        floor = 1e-3 / self.channels  # an exact zero would have no gradient
        relative = relative.clamp_min(floor)
        with torch.no_grad():
            self.scale.copy_(scale)
            self.raw_loadings.copy_(_inverse_softplus(relative / relative.sum(1, keepdim=True)))


def build_head(
    name: Literal["linear", "programs"], channels: int, n_genes: int, n_programs: int
) -> LinearHead | ProgramsHead:
    """Build the head called `name`; only `programs` uses `n_programs`.

    Raises:
        ValueError: if no head has that name.
    """
    if name == "linear":
        return LinearHead(channels, n_genes)
    if name == "programs":
        return ProgramsHead(channels, n_genes, n_programs)
    raise ValueError(f"There is no head called {name!r}: choose 'linear' or 'programs'.")


def _inverse_softplus(value: torch.Tensor) -> torch.Tensor:
    return value + torch.log(-torch.expm1(-value))


def _as_stat(name: str, value: Any, shape: tuple[int, ...], non_negative: bool = False) -> torch.Tensor:
    if value is None:
        raise ValueError(f"This head needs the statistic {name}, of shape {shape}, which was not given.")
    tensor = torch.as_tensor(value, dtype=torch.float32)
    if tuple(tensor.shape) != shape:
        raise ValueError(
            f"{name} has shape {tuple(tensor.shape)} where this head needs {shape}: was the panel changed?"
        )
    if not bool(torch.isfinite(tensor).all()) or (non_negative and bool((tensor < 0).any())):
        raise ValueError(f"{name} holds a value that is {'negative or ' if non_negative else ''}not finite.")
    return tensor
