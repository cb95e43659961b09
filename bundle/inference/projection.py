"""From features to genes as plain arrays, so that a map or a table of features answers without the network."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..data.normalisation import bounded
from ..errors import InputError, did_you_mean

__all__ = ["Projection", "expression_of", "product_by_torch"]

_PROBE = 1024.0  # large beside the bias, which is taken off again in single precision


@dataclass(frozen=True)
class Projection:
    """What a head does to pooled features; both heads are linear before the log.

    Without a rate, y = F · loadings + bias, clipped to what log1p CP10k can be. With one, a gene's rate is F · loadings
    + bias in counts per µm², that of all genes F · total + total_bias, and y = log1p(1e4 · rate / all).

    Attributes:
        genes: names, (G,).
        loadings: (G, C).
        bias: (G,).
        total: (C,) where the head gives rates, else None.
        total_bias: likewise.
    """

    genes: tuple[str, ...]
    loadings: np.ndarray
    bias: np.ndarray
    total: np.ndarray | None = None
    total_bias: float = 0.0

    @classmethod
    def of(
        cls,
        genes: Sequence[str],
        channels: int,
        project: Callable[[torch.Tensor], torch.Tensor],
        rate: Callable[[torch.Tensor], torch.Tensor | None],
        like: torch.Tensor | None = None,
    ) -> Projection:
        """Read a head off its answers to no feature and to each feature alone.

        Args:
            genes: the panel, (G,).
            channels: C.
            project: pooled features (U, C) to y (U, G).
            rate: pooled features to rates (U, G + 1), or None.
            like: a tensor on the head's device.
        """
        probe = torch.cat([torch.zeros(1, channels), _PROBE * torch.eye(channels)])
        if like is not None:
            probe = probe.to(like)
        with torch.no_grad():
            density = rate(probe)
            answer = (project(probe) if density is None else density).cpu().double().numpy()
        bias, loadings = answer[0], (answer[1:] - answer[0]).T / _PROBE
        if density is None:
            return cls(tuple(genes), loadings.astype(np.float32), bias.astype(np.float32))
        part = (loadings[:-1].astype(np.float32), bias[:-1].astype(np.float32))
        return cls(tuple(genes), *part, loadings.sum(0).astype(np.float32), float(bias.sum()))

    @property
    def has_rate(self) -> bool:
        """Whether rates per µm² are known."""
        return self.total is not None

    def columns(self, genes: Sequence[str]) -> Projection:
        """The same for some genes alone."""
        place = {gene: i for i, gene in enumerate(self.genes)}
        at = [place[gene] for gene in genes]
        return Projection(tuple(genes), self.loadings[at], self.bias[at], self.total, self.total_bias)

    def rate(self, features: Any, product: Callable[[Any, np.ndarray], Any] = operator.matmul) -> Any:
        """Counts per µm², (..., G), from features (..., C); NumPy or dask."""
        return product(features, self.loadings.T) + self.bias

    def expression(self, features: Any, product: Callable[[Any, np.ndarray], Any] = operator.matmul) -> Any:
        """Y = log1p of counts per 10,000, (..., G), from features (..., C), clipped to its range; NumPy or dask."""
        return bounded(self.unbounded(features, product))

    def unbounded(self, features: Any, product: Callable[[Any, np.ndarray], Any] = operator.matmul) -> Any:
        """The same before it is clipped: what may be averaged."""
        linear = self.rate(features, product)
        if self.total is None:
            return linear
        everything = product(features, self.total) + np.float32(self.total_bias)
        return np.log1p(np.float32(1e4) * linear / everything[..., None])

    def to_dict(self) -> dict[str, Any]:
        """As arrays and plain values, for AnnData's `uns`."""
        content: dict[str, Any] = {"genes": np.array(self.genes), "loadings": self.loadings, "bias": self.bias}
        if self.total is not None:
            content |= {"total": self.total, "total_bias": self.total_bias}
        return content

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Projection:
        """The inverse of `to_dict`."""
        total = content.get("total")
        return cls(
            tuple(str(gene) for gene in content["genes"]),
            np.asarray(content["loadings"], np.float32),
            np.asarray(content["bias"], np.float32),
            None if total is None else np.asarray(total, np.float32),
            float(content.get("total_bias", 0.0)),
        )


def product_by_torch(features: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """`features @ weights`; NumPy's OpenBLAS keeps its threads busy long after each product."""
    dtype = np.result_type(features, weights)
    left, right = (torch.from_numpy(np.require(m, dtype, ["C", "W"])) for m in (features, weights))
    return torch.matmul(left, right).numpy()


def expression_of(adata: Any, genes: Sequence[str]) -> np.ndarray:
    """Y = log1p CP10k of some genes from a prediction, float32 (units, genes), whichever way it keeps them.

    Args:
        adata: a prediction with `obsm["features"]` or `X`, or some of its units.
        genes: with features any genes of the model (`adata.uns["pixnet"]["projection"]["genes"]`), else those of X.

    Raises:
        InputError: if it is no prediction of PixNet, or does not hold a gene.
    """
    if "pixnet" not in adata.uns:
        raise InputError('This AnnData is no prediction of PixNet: it has no uns["pixnet"].')
    content = adata.uns["pixnet"].get("projection")
    has_factors = content is not None and "features" in adata.obsm
    projection = Projection.from_dict(content) if has_factors else None
    known = list(adata.var_names) if projection is None else projection.genes
    unknown = [gene for gene in genes if gene not in known]
    if unknown:
        raise InputError(
            f"This prediction does not hold {', '.join(unknown[:5])}.{did_you_mean(unknown[0], known)} It holds "
            f"{len(known)} genes: {', '.join(known[:3])}, ..."
        )
    if projection is None:
        return np.asarray(adata[:, list(genes)].X, dtype=np.float32)
    return projection.columns(list(genes)).expression(np.asarray(adata.obsm["features"], np.float32))
