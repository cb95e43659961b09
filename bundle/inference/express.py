"""The third verb: genes from features. A head is a weight and a bias, so no network is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from ..data.normalisation import bounded
from ..errors import InputError, did_you_mean

__all__ = ["Expression", "Projection", "express", "expression_of"]


@dataclass(frozen=True)
class Projection:
    """The linear map of a head, as plain arrays.

    Without a rate, log1p CP10k is F · loadings + bias. With one, a gene's rate is F · loadings + bias in counts per
    µm², that of all genes F · total + total_bias, and log1p CP10k is log1p(1e4 · rate / all).

    Attributes:
        genes: names, (G,).
        loadings: float32 (G, C).
        bias: float32 (G,).
        total: float32 (C,) where the head gives rates, else None.
        total_bias: likewise.
    """

    genes: tuple[str, ...]
    loadings: np.ndarray
    bias: np.ndarray
    total: np.ndarray | None = None
    total_bias: float = 0.0

    @classmethod
    def of(cls, genes: Sequence[str], network: Any) -> Projection:
        """Ask a network for its weight and bias.

        Args:
            genes: the panel, (G,), in the network's order.
            network: `affine()` gives weight (R, C) and bias (R,): R is G for log1p CP10k, or G + 1 for counts per µm²,
                the last row being all other genes together.

        Raises:
            ValueError: if the network has another number of genes.
        """
        with torch.no_grad():
            weight, bias = (values.detach().cpu().double().numpy() for values in network.affine())
        n = len(genes)
        if len(weight) not in (n, n + 1) or bias.shape != weight.shape[:1]:
            raise ValueError(f"A head of {weight.shape} weights and {bias.shape} biases is not one of {n} genes.")
        own = (tuple(genes), weight[:n].astype(np.float32), bias[:n].astype(np.float32))
        return cls(*own) if len(weight) == n else cls(*own, weight.sum(0).astype(np.float32), float(bias.sum()))

    @property
    def has_rate(self) -> bool:
        """Whether the head gives rates per µm²."""
        return self.total is not None

    def columns(self, genes: Sequence[str]) -> Projection:
        """The same for some genes alone."""
        place = {gene: i for i, gene in enumerate(self.genes)}
        at = [place[gene] for gene in genes]
        return Projection(tuple(genes), self.loadings[at], self.bias[at], self.total, self.total_bias)

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


class Expression(NamedTuple):
    """Genes of some units or map pixels.

    Attributes:
        y: log1p CP10k, float32 (..., G), before it is clipped to its range: what may be averaged.
        rate: counts per µm², float32 (..., G); None where the head knows no rate.
    """

    y: np.ndarray
    rate: np.ndarray | None

    @property
    def clipped(self) -> np.ndarray:
        """`y` clipped to the range of log1p CP10k."""
        return bounded(self.y)


def express(features: np.ndarray, head: Projection) -> Expression:
    """Genes from features.

    Args:
        features: means over units, or a map, (..., C).
        head: the genes and their weights.

    Returns:
        log1p CP10k and, where the head knows them, counts per µm², float32 (..., G).
    """
    linear = _product(features, head.loadings.T) + head.bias
    if head.total is None:
        return Expression(linear, None)
    everything = _product(features, head.total) + np.float32(head.total_bias)
    return Expression(np.log1p(np.float32(1e4) * linear / everything[..., None]), linear)


def expression_of(adata: Any, genes: Sequence[str]) -> np.ndarray:
    """Read log1p CP10k of some genes from a prediction, whichever way it keeps them.

    Args:
        adata: a prediction with `obsm["features"]` or `X`, or some of its units.
        genes: with features any genes of the model (`adata.uns["pixnet"]["projection"]["genes"]`), else those of X.

    Returns:
        float32 (units, genes).

    Raises:
        InputError: if PixNet did not predict it, or it does not hold a gene.
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
    return express(np.asarray(adata.obsm["features"], np.float32), projection.columns(list(genes))).clipped


def _product(features: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """`features @ weights` by torch: NumPy's OpenBLAS keeps its threads busy long after each product."""
    dtype = np.result_type(features, weights)
    left, right = (torch.from_numpy(np.require(m, dtype, ["C", "W"])) for m in (features, weights))
    return torch.matmul(left, right).numpy()
