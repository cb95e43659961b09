"""Is an output plausible, or equal to that of the unchanged input? Each check returns what is wrong, or None."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import scipy.sparse as sp
import zarr

from .case import Check

__all__ = ["all_of", "finite_json", "predicted", "prepared", "region", "same_scores", "trained", "whole_map"]

#: log1p of all of a unit's 10,000 counts, and rounding.
_HIGHEST = math.log1p(1e4) + 1e-4
#: The same pixels and units give the same values but for the order of float32 sums.
EXACT = 1e-3


def all_of(*checks: Check) -> Check:
    """The first problem of several checks."""
    return lambda: next((problem for check in checks if (problem := check())), None)


def read(path: Path) -> ad.AnnData:
    """A prediction of either form."""
    return ad.read_zarr(path) if path.suffix == ".zarr" else ad.read_h5ad(path)


def predicted(
    path: Path,
    like: Path | None = None,
    tolerance: float = EXACT,
    *,
    within: bool = False,
    names: Iterable[str] | None = None,
    genes: Iterable[str] | None = None,
    n: int | None = None,
    unique: bool = True,
) -> Check:
    """A prediction is whole: finite, from 0 to log1p(1e4), every unit on a finite place.

    Args:
        path: the prediction.
        like: the prediction of the unchanged input, to which each unit of the same name has to be equal.
        tolerance: largest difference; of the mean where it is above 0.01, for pixels that are not quite the same.
        within: units may be missing or new.
        names: of the units, in any order.
        genes: that it holds, in any order.
        n: how many units it has.
        unique: no name may occur twice.
    """

    def check() -> str | None:
        found = read(path)
        x = found.X.toarray() if sp.issparse(found.X) else np.asarray(found.X)
        if x.shape != (found.n_obs, found.n_vars) or (not x.size and found.n_obs):
            return f"X has the shape {x.shape}"
        if not np.isfinite(x).all():
            return f"{np.mean(~np.isfinite(x)):.0%} of X is not finite"
        if x.size and (x.min() < -1e-6 or x.max() > _HIGHEST):
            return f"X goes from {x.min():.3g} to {x.max():.3g}"
        if not np.isfinite(found.obsm["spatial"]).all():
            return "positions are not finite"
        if unique and not found.obs_names.is_unique:
            return "names of units occur twice"
        for what, wanted, there in (("units", names, found.obs_names), ("genes", genes, found.var_names)):
            if wanted is not None and set(wanted) != set(there):
                return f"{what} differ: {len(set(there))}, not {len(set(wanted))}"
        if n is not None and n != found.n_obs:
            return f"{found.n_obs} units, not {n}"
        return None if like is None else _unlike(found, x, read(like), tolerance, within)

    return check


def _unlike(found: ad.AnnData, x: np.ndarray, right: ad.AnnData, tolerance: float, within: bool) -> str | None:
    if not within and set(found.obs_names) != set(right.obs_names):
        return f"{found.n_obs} units, not the {right.n_obs} of the unchanged input"
    shared = [name for name in right.obs_names if name in set(found.obs_names)]
    genes = [gene for gene in right.var_names if gene in set(found.var_names)]
    if not shared or not genes:
        return "nothing is shared with the prediction of the unchanged input"
    rows, columns = found.obs_names.get_indexer(shared), found.var_names.get_indexer(genes)
    off = np.abs(x[np.ix_(rows, columns)] - np.asarray(right[shared, genes].X))
    size = float(off.mean() if tolerance > 0.01 else off.max())
    if size > tolerance:
        return f"differs from the prediction of the unchanged input by {size:.3g}"
    places = np.abs(found.obsm["spatial"][rows] - right[shared].obsm["spatial"]).max()
    return f"positions are {places:.3g} px off" if places > 1.0 else None


def whole_map(path: Path, like: Path | None = None, tolerance: float = EXACT) -> Check:
    """An OME-Zarr map can be read whole, has values, and is that of the unchanged input."""

    def check() -> str | None:
        values = np.asarray(zarr.open_group(str(path), mode="r")["0"][:])  # type: ignore[index]
        known = np.isfinite(values)
        if not known.any():
            return "the map has no value"
        if like is not None:
            right = np.asarray(zarr.open_group(str(like), mode="r")["0"][:])  # type: ignore[index]
            if right.shape != values.shape or (np.isfinite(right) != known).any():
                return "the map covers another part of the slide"
            off = float(np.abs(right[known] - values[known]).max())
            return f"the map is off by {off:.3g}" if off > tolerance else None
        return None

    return check


def region(path: Path) -> Check:
    """A NIfTI of genes can be read, and its values are possible; NaN where nothing was computed."""

    def check() -> str | None:
        import nibabel

        values = np.asarray(nibabel.load(path).dataobj)  # type: ignore[attr-defined]
        known = values[np.isfinite(values)]
        if not known.size:
            return "the region has no value"
        possible = known.min() >= -1e-6 and known.max() <= _HIGHEST + 0.01  # of half precision
        return None if possible else f"values from {known.min():.5g} to {known.max():.5g}"

    return check


def _numbers(value: Any, place: str = "") -> dict[str, float]:
    if isinstance(value, dict):
        return {k: v for key, part in value.items() for k, v in _numbers(part, f"{place}/{key}").items()}
    if isinstance(value, list):
        return {k: v for key, part in enumerate(value) for k, v in _numbers(part, f"{place}/{key}").items()}
    return {place: float(value)} if isinstance(value, (int, float)) and not isinstance(value, bool) else {}


def finite_json(path: Path) -> Check:
    """JSON whose correlations lie in [-1, 1]."""

    def check() -> str | None:
        for place, value in _numbers(json.loads(path.read_text())).items():
            if not math.isfinite(value):
                return f"{path.name}: {place} is {value}"
            if "pcc" in place.lower().rpartition("/")[2] and abs(value) > 1 + 1e-6:
                return f"{path.name}: {place} is {value}"
        return None

    return check


def same_scores(path: Path, like: Path, tolerance: float = 1e-4) -> Check:
    """The figures of the unchanged input, but for those that are drawn, unit by unit."""

    def check() -> str | None:
        found, right = (_numbers(json.loads(p.read_text())) for p in (path, like))
        for place, value in right.items():
            if any(word in place for word in ("interval", "bootstrap", "block", "seconds", "ceiling", "share")):
                continue
            if place not in found or abs(found[place] - value) > tolerance * max(1.0, abs(value)):
                return f"{path.name}: {place} is {found.get(place)}, not {value}"
        return None

    return check


def trained(run: Path, like: Path | None = None, tolerance: float = 1e-4) -> Check:
    """A finished run: finite weights, a panel, and the weights of the unchanged input's."""

    def check() -> str | None:
        import torch

        weights = torch.load(run / "models" / "model.pt", weights_only=True)
        for name, value in weights.items():
            if not torch.isfinite(value.double()).all():
                return f"{name} of the weights is not finite"
        if not json.loads((run / "models" / "panel.json").read_text())["genes"]:
            return "the panel is empty"
        if like is None:
            return None
        right = torch.load(like / "models" / "model.pt", weights_only=True)
        if set(right) != set(weights):
            return "the weights have other names than those of the unchanged input"
        off = max(float((weights[name].double() - right[name].double()).abs().max()) for name in right)
        return f"the weights differ from those of the unchanged input by {off:.3g}" if off > tolerance else None

    return check


def prepared(folder: Path, like: Path, match: Callable[[str], bool] = lambda name: True) -> Check:
    """A data set whose units are those of the unchanged input."""

    def check() -> str | None:
        for right in sorted(path for path in like.glob("*/*.h5ad") if match(path.name)):
            path = folder / right.relative_to(like)
            if not path.is_file():
                return f"{path.name} is missing"
            a, b = ad.read_h5ad(path), ad.read_h5ad(right)
            if set(a.obs_names) != set(b.obs_names) or set(a.var_names) != set(b.var_names):
                return f"{path.name}: units or genes differ from those of the unchanged input"
            a = a[b.obs_names, b.var_names]
            if np.abs(np.asarray((a.X - b.X).todense())).max() > 0:
                return f"{path.name}: counts differ from those of the unchanged input"
            if np.abs(a.obsm["spatial"] - b.obsm["spatial"]).max() > 0.5:
                return f"{path.name}: positions differ from those of the unchanged input"
        return None

    return check
