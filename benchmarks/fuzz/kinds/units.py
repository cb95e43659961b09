"""AnnData of measured units, read by predict, train, evaluate and audit."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp

from ..base import TINY, settings
from ..case import Build, Case, Must, kind
from ..checks import all_of, finite_json, predicted, same_scores, trained
from ..damage import damage
from .slides import work_of

_COMMANDS = ("predict", "predict", "evaluate", "evaluate", "train", "audit")


def read_by(build: Build, command: str, units: Path, what: str, must: Must, same: bool, weights: bool = True) -> Case:
    """A case of a command that reads units.

    Args:
        build: where.
        command: predict, evaluate, train or audit.
        units: the changed file.
        what: was done.
        must: see `Case`.
        same: whether the result has to be that of the unchanged units.
        weights: whether that goes for the weights of a training too, which depend on the order of units.
    """
    base = build.base
    if command == "predict":
        out = build.out("o.h5ad")
        arguments = ["predict", str(build.slide()), str(out), "--model", str(base.run), "--spots", str(units)]
        like = base.result("spots.h5ad") if same else None
        check = predicted(out, like, unique="twice a unit" not in what)
        return Case(what, [*arguments, "--set", "all_genes=true"], must, [out], leaves=work_of("o.h5ad"), check=check)
    if command == "audit":
        out = build.out("audit")
        pred = build.copy(base.result("spots.h5ad"), "pred.h5ad")
        arguments = ["audit", str(pred), str(units), "--out", str(out), "--min-total", "20"]
        figures = finite_json(out / "audit.json")
        if same:
            figures = all_of(figures, same_scores(out / "audit.json", base.result("audit") / "audit.json"))
        return Case(what, arguments, must, [out], leaves=["out/audit"], check=figures)
    dataset = build.copy(base.dataset, "data")
    if command == "evaluate":
        shutil.move(units, dataset / "units" / "P3_spot55.h5ad")
        run = build.out("run")
        shutil.copytree(base.run, run)
        scores = run / "evaluation" / "test.json"
        arguments = ["evaluate", str(run), "--dataset", str(dataset), "--size-um", "55"]
        figures = finite_json(scores)
        if same:
            figures = all_of(figures, same_scores(scores, base.run / "evaluation" / "test.json"))
        return Case(what, arguments, must, writes=of_evaluation("run"), leaves=["out/run/predictions*"], check=figures)
    shutil.move(units, dataset / "units" / "P1_spot55.h5ad")
    return train(build, dataset, what, must, base.result("run") if same and weights else None)


def of_evaluation(run: str) -> list[str]:
    """What an evaluation writes."""
    return [f"out/{run}/evaluation/test*", f"out/{run}/predictions*"]


def train(build: Build, dataset: Path, what: str, must: Must = "either", like: Path | None = None) -> Case:
    """Train for two short epochs."""
    run = build.out("run")
    arguments = ["train", str(dataset), str(run), *settings(TINY)]
    return Case(what, arguments, must, [run], leaves=of_training("run"), check=trained(run, like))


def of_training(run: str) -> list[str]:
    """Files that a failed training may leave, to continue from: anything but a model that looks finished."""
    kept = (
        "",
        "/configs*",
        "/checkpoints*",
        "/metrics.csv",
        "/tensorboard*",
        "/evaluation",
        "/models",
        "/*.log",
        "/.pixnet.json",
    )
    return [f"out/{run}{name}" for name in (*kept, "/models/panel.json")]


def _training_source(build: Build, command: str) -> Path:
    return build.base.dataset / "units" / ("P1_spot55.h5ad" if command == "train" else "P3_spot55.h5ad")


@kind("units-same", 60)
def harmless(build: Build) -> Case:
    """The same measurements, stored otherwise."""
    command = build.word(*_COMMANDS)
    adata = ad.read_h5ad(_training_source(build, command))
    rng, n = build.rng, adata.n_obs
    reorders = False

    def permuted_units(a: ad.AnnData) -> ad.AnnData:
        return a[rng.permutation(n)].copy()

    def permuted_genes(a: ad.AnnData) -> ad.AnnData:
        return a[:, rng.permutation(a.n_vars)].copy()

    def matrix(make: Callable[[sp.csr_matrix], Any]) -> Callable[[ad.AnnData], ad.AnnData]:
        def change(a: ad.AnnData) -> ad.AnnData:
            a.X = make(sp.csr_matrix(a.X))
            return a

        return change

    def more(a: ad.AnnData) -> ad.AnnData:
        a.obs["leiden"] = pd.Categorical(rng.integers(0, 4, n).astype(str))
        a.var["highly_variable"] = rng.random(a.n_vars) < 0.5
        a.layers["scaled"] = np.asarray(a.X.todense()) - 1.5
        a.obsm["X_pca"] = rng.normal(size=(n, 5))
        a.uns["leiden_colors"] = np.array(["#fff", "#000"])
        a.raw = a.copy()
        return a

    def in_tissue(a: ad.AnnData) -> ad.AnnData:
        a.obs["in_tissue"] = a.obs["in_tissue"].astype(int).astype(str)
        return a

    def whole_positions(a: ad.AnnData) -> ad.AnnData:
        a.obsm["spatial"] = np.asarray(a.obsm["spatial"], np.float64).astype(">f8")
        return a

    def a_third_axis(a: ad.AnnData) -> ad.AnnData:
        a.obsm["spatial"] = np.column_stack([a.obsm["spatial"], np.zeros(n)])
        return a

    def unsorted(a: ad.AnnData) -> ad.AnnData:
        x = sp.csr_matrix(a.X)
        for row in range(n):
            part = slice(x.indptr[row], x.indptr[row + 1])
            x.indices[part], x.data[part] = x.indices[part][::-1].copy(), x.data[part][::-1].copy()
        x.has_sorted_indices = False
        a.X = x
        return a

    def explicit_zeros(x: sp.csr_matrix) -> sp.csr_matrix:
        x = sp.csr_matrix(x + sp.csr_matrix(np.ones(x.shape)))
        x.data -= 1
        return x

    changes: list[tuple[str, Callable[[ad.AnnData], ad.AnnData]]] = [
        ("permuted units", permuted_units),
        ("permuted genes", permuted_genes),
        ("CSC", matrix(sp.csc_matrix)),
        ("dense", matrix(lambda x: np.asarray(x.todense()))),
        ("Fortran order", matrix(lambda x: np.asfortranarray(x.todense()))),
        ("int64", matrix(lambda x: x.astype(np.int64))),
        ("uint16", matrix(lambda x: x.astype(np.uint16))),
        ("float64", matrix(lambda x: x.astype(np.float64))),
        ("explicit zeros", matrix(explicit_zeros)),
        ("unsorted indices", unsorted),
        ("more tables", more),
        ("in_tissue as text", in_tissue),
        ("big-endian positions", whole_positions),
        ("a third axis", a_third_axis),
    ]
    what, change = changes[int(rng.integers(len(changes)))]
    reorders = what in ("permuted units", "permuted genes")
    path = build.input(_training_source(build, command).name)
    change(adata).write_h5ad(path, compression="gzip" if build.chance(0.3) else None)
    return read_by(build, command, path, f"{what}, {command}", "right", True, not reorders)


def _values(build: Build, a: ad.AnnData) -> tuple[str, bool]:
    """Counts that are none; returns whether commands that read counts must refuse them."""
    x = np.asarray(sp.csr_matrix(a.X).todense(), dtype=np.float64)
    row, column = int(build.rng.integers(x.shape[0])), int(build.rng.integers(x.shape[1]))
    how = build.word("nan", "inf", "negative", "fractional", "log", "scaled", "huge", "zero", "all nan", "text")
    if how == "nan":
        x[row, column] = np.nan
    elif how == "inf":
        x[row, column] = np.inf
    elif how == "negative":
        x[row, column] = -3
    elif how == "fractional":
        x[row] += 0.5
    elif how == "log":
        x = np.log1p(x / np.maximum(x.sum(1, keepdims=True), 1) * 1e4)
    elif how == "scaled":
        x = (x - x.mean(0)) / np.maximum(x.std(0), 1e-9)
    elif how == "huge":
        x[row, column] = float(build.pick(1e9, 1e30, 3e38))  # type: ignore[arg-type]
    elif how == "zero":
        x[:] = 0
    elif how == "all nan":
        x[:] = np.nan
    else:
        a.obs["total_counts"] = x.sum(1)
        a.uns["unit"]["kind"] = "log"
        return "kind=log", False
    a.X = sp.csr_matrix(x.astype(np.float32)) if build.chance(0.5) else x.astype(np.float32)
    return f"counts: {how}", how not in ("huge", "zero")


def _positions(build: Build, a: ad.AnnData) -> str:
    xy = np.array(a.obsm["spatial"], dtype=np.float64)
    n = len(xy)
    some = build.rng.random(n) < float(build.pick(0.02, 0.5, 1.0))  # type: ignore[arg-type]
    how = build.word(
        "nan", "inf", "1e9", "1e300", "-50", "swapped", "one place", "shifted", "times 10", "a tenth", "one column",
        "none", "text", "mirrored",
    )  # fmt: skip
    if how in ("nan", "inf", "1e9", "1e300", "-50"):
        xy[some] = float(how)
    elif how == "swapped":
        xy = xy[:, ::-1].copy()
    elif how == "one place":
        xy[:] = xy[0]
    elif how == "shifted":
        xy += build.rng.uniform(-300, 300, 2)
    elif how == "times 10":
        xy *= 10
    elif how == "a tenth":
        xy /= 10
    elif how == "mirrored":
        xy[:, 0] = 600 - xy[:, 0]
    if how == "none":
        del a.obsm["spatial"]
    elif how == "text":
        a.obsm["spatial"] = pd.DataFrame({"x": xy[:, 0].astype(str), "y": "left"}, index=a.obs_names)
    else:
        a.obsm["spatial"] = xy[:, :1] if how == "one column" else xy
    return f"positions: {how}"


def _about(build: Build, a: ad.AnnData) -> str:
    bad = [
        -1.0, 0.0, float("nan"), float("inf"), 1e12, "abc", "", np.array([55.0, 16.0]), np.array([]), {"a": 1}, True,
        "$" + build.payload, build.payload,
    ]  # fmt: skip
    value = bad[int(build.rng.integers(len(bad)))]
    how = build.word(
        "size", "shape", "kind", "unit", "no unit", "mpp", "diameter", "spatial", "library", "hires", "names"
    )
    spatial = a.uns["spatial"]["P3" if "P3" in a.uns["spatial"] else next(iter(a.uns["spatial"]))]
    if how in ("size", "shape", "kind"):
        a.uns["unit"]["size_um" if how == "size" else how] = value
    elif how == "unit":
        a.uns["unit"] = value
    elif how == "no unit":
        del a.uns["unit"]
        return "no unit"
    elif how == "mpp":
        spatial["metadata"]["mpp"] = value
    elif how == "diameter":
        del a.uns["unit"]
        spatial["scalefactors"]["spot_diameter_fullres"] = value
    elif how == "spatial":
        a.uns["spatial"] = value
    elif how == "library":
        name = "$" + build.payload.replace("/", "∕") if build.chance(0.5) else "../../evil"
        a.uns["spatial"] = {"another" if build.chance(0.3) else name.replace("/", "-"): spatial}
        return "a library of another name"
    elif how == "hires":
        spatial["images"]["hires"] = build.pick(np.zeros(3), np.zeros((0, 0, 3)), np.full((9, 9, 4), np.nan), "a.png")
        return "a hires picture that is none"
    else:
        a.obs_names = [f"${build.payload}", "@network", "%x", *a.obs_names[3:]]
        return "names of units that look like code"
    return f"uns: {how}={str(value)[:20]!r}"


def _table(build: Build, a: ad.AnnData) -> tuple[ad.AnnData, str, Must]:
    panel = build.base.genes
    how = build.word(
        "twice a unit", "twice a gene", "no units", "no genes", "one unit", "overlap", "one gene missing", "few genes",
        "no panel gene", "no X", "gene names", "none in tissue", "square", "ensembl",
    )  # fmt: skip
    if how == "twice a unit":
        a.obs_names = [a.obs_names[0], *a.obs_names[:-1]]
    elif how == "twice a gene":
        a.var_names = [a.var_names[0], *a.var_names[:-1]]
    elif how == "no units":
        a = a[:0].copy()
    elif how == "no genes":
        a = a[:, :0].copy()
    elif how == "one unit":
        a = a[:1].copy()
    elif how == "overlap":
        a.uns["unit"]["size_um"] = float(build.pick(62.0, 80.0, 120.0, 500.0))  # type: ignore[arg-type]
    elif how == "one gene missing":
        a = a[:, [g for g in a.var_names if g != panel[3]]].copy()
        return a, how, "right"
    elif how == "few genes":
        a = a[:, [g for g in a.var_names if g not in panel[5:]]].copy()
    elif how == "no panel gene":
        a.var_names = [f"OTHER{i}" for i in range(a.n_vars)]
    elif how == "no X":
        a = ad.AnnData(None, a.obs, a.var, a.uns, obsm=a.obsm)
    elif how == "gene names":
        a.var_names = [f"${build.payload}", "", "nan", *a.var_names[3:]]
    elif how == "none in tissue":
        a.obs["in_tissue"] = False
    elif how == "square":
        a.uns["unit"]["shape"] = "square"
    else:
        a.var_names = [f"ENSG{i:011d}" for i in range(a.n_vars)]
    return a, how, "either"


@kind("units", 110)
def changed(build: Build) -> Case:
    """Measurements that cannot be, or say too little."""
    command = build.word(*_COMMANDS)
    adata = ad.read_h5ad(_training_source(build, command))
    must: Must = "either"
    part = build.word("values", "positions", "about", "table", "table")
    if part == "values":
        what, impossible = _values(build, adata)
        must = "sentence" if impossible and command != "predict" else "either"
    elif part == "positions":
        what = _positions(build, adata)
    elif part == "about":
        what = _about(build, adata)
    else:
        adata, what, must = _table(build, adata)
        if must == "right" and command == "train":
            must = "either"
    path = build.input(_training_source(build, command).name)
    adata.write_h5ad(path)
    return read_by(build, command, path, f"{what}, {command}", must, False)


@kind("h5ad-damage", 60)
def damaged(build: Build) -> Case:
    """Files that are damaged, or that anndata would not write."""
    command = build.word(*_COMMANDS)
    path = build.input(_training_source(build, command).name)
    adata = ad.read_h5ad(_training_source(build, command))
    adata.X = sp.csc_matrix(adata.X) if build.chance(0.2) else sp.csr_matrix(adata.X)
    adata.write_h5ad(path, compression="gzip" if build.chance(0.3) else None)
    how = int(build.rng.integers(4))
    what = damage(path, build.rng) if how == 0 else _sparse(build, path) if how < 3 else _surgery(build, path)
    return read_by(build, command, path, f"{what}, {command}", "either", False)


def _sparse(build: Build, path: Path) -> str:
    """A sparse matrix whose parts do not fit."""
    with h5py.File(path, "r+") as file:
        name = build.word("indptr", "indptr", "indices", "indices", "data", "shape")
        if name == "shape":
            shape = np.array(file["X"].attrs["shape"])
            shape[int(build.rng.integers(2))] = int(build.pick(0, 1, 10**9, -5))  # type: ignore[call-overload]
            file["X"].attrs["shape"] = shape
            return f"X of the shape {shape.tolist()}"
        values = file[f"X/{name}"][:]
        how = build.word("huge", "negative", "falling", "short", "long", "float", "all zero")
        place = int(build.rng.integers(len(values)))
        if how == "huge":
            values[place] = 10**9
        elif how == "negative":
            values[place] = -(10**6)
        elif how == "falling":
            values = values[::-1].copy()
        elif how == "short":
            values = values[: len(values) // 2]
        elif how == "long":
            values = np.concatenate([values, values[:7]])
        elif how == "float":
            values = values.astype(np.float64) + 0.5
        else:
            values[:] = 0
        attributes = dict(file[f"X/{name}"].attrs)
        del file[f"X/{name}"]
        file[f"X/{name}"] = values
        file[f"X/{name}"].attrs.update(attributes)
    return f"X/{name}: {how}"


def _surgery(build: Build, path: Path) -> str:
    """A part of the file that is gone, or something else."""
    with h5py.File(path, "r+") as file:
        found: list[str] = []
        file.visit(found.append)
        name = build.word(*(n for n in found if "hires" not in n))
        how = build.word("gone", "scalar", "text", "wrong encoding", "no encoding", "half", "nan")
        item = file[name]
        if how == "gone":
            del file[name]
        elif how in ("wrong encoding", "no encoding"):
            if how == "no encoding":
                item.attrs.clear()
            else:
                item.attrs["encoding-type"] = build.word("awkward-array", "categorical", "csr_matrix", "dict", "string")
        elif how == "scalar" or isinstance(item, h5py.Group):
            del file[name]
            file[name] = int(build.rng.integers(100))
        else:
            values = item[()]
            attributes = dict(item.attrs)
            del file[name]
            if how == "text" or np.ndim(values) == 0:
                file[name] = "text"
            elif how == "half":
                file[name] = values[: len(values) // 2]
            else:
                file[name] = np.full(np.shape(values), np.nan)
            file[name].attrs.update(attributes)
    return f"{name}: {how}"
