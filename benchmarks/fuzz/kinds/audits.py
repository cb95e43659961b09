"""Predictions of any tool and tables of them, read by audit."""

from __future__ import annotations

import shutil
from pathlib import Path

import anndata as ad
import numpy as np
import scipy.sparse as sp

from ..case import Build, Case, Must, kind
from ..checks import all_of, finite_json, same_scores
from ..damage import damage
from .units import _about, _sparse, _surgery


@kind("audits", 65)
def audits(build: Build) -> Case:
    """A prediction that is none, or is the same, stored otherwise."""
    base = build.base
    pred, truth = build.copy(base.result("spots.h5ad"), "pred.h5ad"), build.copy(base.units, "P3_spot55.h5ad")
    out = build.out("audit")
    must: Must = "either"
    same = False
    more = ["--min-total", "20"]
    how = build.word(
        "same",
        "values",
        "values",
        "table",
        "csv",
        "csv",
        "damage",
        "surgery",
        "sparse",
        "about",
        "options",
        "against",
        "error",
    )
    adata = ad.read_h5ad(pred)
    if how == "same":
        how, same, must = _stored_otherwise(build, adata, pred), True, "right"
    elif how == "values":
        how, must = _values(build, adata, pred)
    elif how == "table":
        how = _table(build, adata, pred)
    elif how == "damage":
        how = damage(build.rng.choice([pred, truth]), build.rng)  # type: ignore[arg-type]
    elif how == "surgery":
        how = _surgery(build, pred)
    elif how == "sparse":
        adata.X = sp.csr_matrix(np.maximum(adata.X, 0))
        adata.write_h5ad(pred)
        how = _sparse(build, pred)
    elif how == "about":
        how = _about(build, adata)
        adata.write_h5ad(pred)
    elif how == "error":
        values = np.full(adata.shape, float(build.pick(np.nan, -1.0, 0.0, 1e30)), np.float32)  # type: ignore[arg-type]
        adata.layers["standard_error"] = values
        adata.write_h5ad(pred)
        how = f"standard errors of {values[0, 0]}"
    elif how == "options":
        more += build.word(
            "--scales-um 200", "--scales-um nan", "--scales-um -5", "--scales-um 1e-9", "--mpp 0", "--min-total 1e30",
            "--scales-um 1e30", "--unit-of-x counts", "--mpp 1e300", "--genes ,",
        ).split()  # fmt: skip
        how = " ".join(more[2:])
    elif how == "against":
        other = build.copy(base.result("spots.h5ad"), "other.h5ad")
        how = f"against: {_values(build, ad.read_h5ad(other), other)[0]}"
        more += ["--against", str(other)]
    arguments = ["audit", str(pred), str(truth), "--out", str(out), *more]
    if how == "csv":
        how, must, table = _csv(build, pred, truth)
        arguments = ["audit", str(table), "--out", str(out), *more]
    check = finite_json(out / "audit.json")
    if same:
        check = all_of(check, same_scores(out / "audit.json", base.result("audit") / "audit.json"))
    return Case(f"audit: {how}", arguments, must, [out], leaves=["out/audit"], check=check)


def _stored_otherwise(build: Build, a: ad.AnnData, path: Path) -> str:
    how = build.word("permuted units", "permuted genes", "CSR", "CSC", "float64", "gzip", "more")
    if how == "permuted units":
        a = a[build.rng.permutation(a.n_obs)].copy()
    elif how == "permuted genes":
        a = a[:, build.rng.permutation(a.n_vars)].copy()
    elif how in ("CSR", "CSC"):
        a.X = sp.csr_matrix(a.X) if how == "CSR" else sp.csc_matrix(a.X)
    elif how == "float64":
        a.X = a.X.astype(np.float64)
    elif how == "more":
        a.obs["leiden"] = "1"
        a.obsm["X_umap"] = np.zeros((a.n_obs, 2))
    a.write_h5ad(path, compression="gzip" if how == "gzip" else None)
    return how


def _values(build: Build, a: ad.AnnData, path: Path) -> tuple[str, Must]:
    how = build.word("nan", "inf", "too large", "negative", "counts", "text", "int", "constant", "complex")
    must: Must = "either"
    x = np.array(a.X, dtype=np.float64)
    if how in ("nan", "inf"):
        x[0, 0], must = float(how), "sentence"
    elif how == "too large":
        x[3, 3], must = 25.0, "sentence"
    elif how == "negative":
        x[3, 3] = -3.0
    elif how == "counts":
        x, must = np.expm1(x), "sentence"
    elif how == "constant":
        x[:] = 1.0
    a.X = x
    if how == "int":
        a.X = x.astype(np.int64)
    a.write_h5ad(path)
    if how in ("text", "complex"):
        import h5py

        with h5py.File(path, "r+") as file:
            attributes = dict(file["X"].attrs)
            del file["X"]
            file["X"] = x.astype(np.complex128) if how == "complex" else np.full(x.shape, b"text")
            file["X"].attrs.update(attributes)
        must = "sentence"
    return f"X: {how}", must


def _table(build: Build, a: ad.AnnData, path: Path) -> str:
    how = build.word(
        "twice a unit",
        "twice a gene",
        "few units",
        "no unit",
        "other names",
        "other genes",
        "moved",
        "no positions",
        "code",
    )
    if how == "twice a unit":
        a.obs_names = [a.obs_names[0], *a.obs_names[:-1]]
    elif how == "twice a gene":
        a.var_names = [a.var_names[0], *a.var_names[:-1]]
    elif how == "few units":
        a = a[: int(build.rng.integers(1, 5))].copy()
    elif how == "no unit":
        a = a[:0].copy()
    elif how == "other names":
        a.obs_names = [f"unit {i}" for i in range(a.n_obs)]
    elif how == "other genes":
        a.var_names = [f"OTHER{i}" for i in range(a.n_vars)]
    elif how == "moved":
        a.obs_names = [f"unit {i}" for i in range(a.n_obs)]
        a.obsm["spatial"] = a.obsm["spatial"] + 17.0
    elif how == "no positions":
        del a.obsm["spatial"]
        a.obs_names = [f"unit {i}" for i in range(a.n_obs)]
    else:
        a.var_names = [f"${build.payload}", "@x", *a.var_names[2:]]
        a.uns["pixnet"]["panels"] = {f"${build.payload}": np.array([f"${build.payload}"])}
        a.uns["pixnet"]["panel"] = f"${build.payload}"
    a.write_h5ad(path)
    return how


def _csv(build: Build, pred: Path, truth: Path) -> tuple[str, Must, Path]:
    """A table of several slides."""
    table = build.input("slides.csv")
    shutil.copyfile(pred, pred.with_name("pred 2.h5ad"))
    rows = [("pred.h5ad", "P3_spot55.h5ad", "P3")]
    header, join, encoding = "pred,truth,patient", ",", "utf-8"
    must: Must = "either"
    how = build.word(
        "plain", "BOM", "CRLF", "spaces", "semicolons", "no header", "no patient", "more columns", "fewer columns",
        "missing file", "empty", "header alone", "latin-1", "twice", "code", "quotes", "nul", "damage", "swapped",
        "folder", "absolute",
    )  # fmt: skip
    if how in ("plain", "BOM", "CRLF", "absolute"):
        must = "right"
    if how == "BOM":
        encoding = "utf-8-sig"
    elif how == "spaces":
        rows = [("pred 2.h5ad", " P3_spot55.h5ad ", "P3")]
    elif how == "semicolons":
        header, join = header.replace(",", ";"), ";"
    elif how == "no patient":
        rows = [("pred.h5ad", "P3_spot55.h5ad", "")]
    elif how == "more columns":
        rows = [(*rows[0], "x", "y")]  # type: ignore[list-item]
    elif how == "fewer columns":
        rows = [("pred.h5ad",)]  # type: ignore[list-item]
    elif how == "missing file":
        rows = [("nothing.h5ad", "P3_spot55.h5ad", "P3")]
        must = "sentence"
    elif how == "twice":
        rows *= 2
    elif how == "code":
        rows = [("pred.h5ad", "P3_spot55.h5ad", f'"${build.payload}"'), (f'"${build.payload}"', "P3_spot55.h5ad", "x")]
    elif how == "quotes":
        rows = [('"pred.h5ad', "P3_spot55.h5ad", "P3")]
    elif how == "nul":
        rows = [("pred.h5ad\x00", "P3_spot55.h5ad", "P3")]
    elif how == "swapped":
        rows = [("P3_spot55.h5ad", "pred.h5ad", "P3")]
        must = "sentence"
    elif how == "folder":
        rows = [(".", "..", "P3")]
        must = "sentence"
    elif how == "absolute":
        rows = [(str(pred), str(truth), "P3")]
    elif how == "latin-1":
        rows = [("pred.h5ad", "P3_spot55.h5ad", "Jérôme")]
        encoding = "latin-1"
    lines = [header, *(join.join(row) for row in rows)]
    if how == "no header":
        lines = lines[1:]
    elif how == "header alone":
        lines = lines[:1]
    elif how == "empty":
        lines = []
    table.write_bytes(("\r\n" if how == "CRLF" else "\n").join([*lines, ""]).encode(encoding))
    if how == "damage":
        how = damage(table, build.rng)
    return f"csv: {how}", must, table
