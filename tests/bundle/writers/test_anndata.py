from __future__ import annotations

import json

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from bundle.writers import anndata as streamed
from bundle.writers.anndata import StreamedAnnData


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(streamed, "CHUNK_UNITS", 16)


def _table(n: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "obs/_index": np.array([f"u{i:05d}".encode() for i in range(n)]),
        "obs/array_row": np.arange(n, dtype=np.int32),
        "obs/in_tissue": rng.random(n) > 0.5,
        "obsm/spatial": rng.random((n, 2)),
        "obsm/features": rng.random((n, 3)).astype(np.float16),
        "X": rng.random((n, 2), np.float32),
    }


HEADER = {
    "var": pd.DataFrame({"pcc_val": [0.1, np.nan]}, index=["a", "b"]),
    "varm": {"loadings": np.ones((2, 3), np.float32)},
    "uns": {"pixnet": {"version": "1", "warnings": np.array(["w"])}},
}


def _write(path, n: int, steps: list[int], identity: str = "i", stop: int | None = None) -> StreamedAnnData:
    out = StreamedAnnData(path, n, HEADER, {"of": identity})
    table, first = _table(n), out.written
    for step in steps:
        last = min(first + step, n)
        out.append({name: values[first:last] for name, values in table.items()})
        first = last
        if stop is not None and first >= stop:
            out._settle()
            return out
    out.close()
    return out


def _files(path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def _read(path) -> ad.AnnData:
    return ad.read_zarr(path) if path.suffix == ".zarr" else ad.read_h5ad(path)


@pytest.mark.parametrize("ending", [".h5ad", ".zarr"])
@pytest.mark.parametrize("n", [0, 5, 16, 100])
def test_pieces_of_any_size_make_the_same_anndata(tmp_path, ending, n):
    table = _table(n)
    for number, steps in enumerate(([n or 1], [7] * 20, [1] * 101)):
        path = tmp_path / f"{number}{ending}"
        _write(path, n, steps)
        adata = _read(path)
        assert list(adata.obs_names) == [name.decode() for name in table["obs/_index"]]
        assert list(adata.var_names) == ["a", "b"]
        np.testing.assert_array_equal(adata.X, table["X"])
        np.testing.assert_array_equal(adata.obsm["features"], table["obsm/features"])
        np.testing.assert_array_equal(adata.obs["in_tissue"].to_numpy(), table["obs/in_tissue"])
        assert list(adata.obs.columns) == ["array_row", "in_tissue"]
        assert adata.uns["pixnet"]["version"] == "1"


def test_an_unfinished_zarr_goes_on_after_its_last_whole_chunk(tmp_path):
    path = tmp_path / "a.zarr"
    _write(path, 100, [10] * 10, stop=50)
    resumed = StreamedAnnData(path, 100, HEADER, {"of": "i"})
    assert resumed.written == 45  # seven chunks, of 15 units
    for begun in ("obsm/features/c/3/.1.part.0", "obs/array_row/c/3.0123456789abcdef.partial"):  # killed in the middle
        (path / begun).parent.mkdir(parents=True, exist_ok=True)
        (path / begun).write_bytes(b"half")
    _write(path, 100, [9] * 12)
    whole = tmp_path / "b.zarr"
    _write(whole, 100, [100])
    assert _files(path) == _files(whole)
    np.testing.assert_array_equal(_read(path).X, _table(100)["X"])
    assert list(_read(path).obs.columns) == ["array_row", "in_tissue"]
    assert not path.with_name("a.zarr.json").exists()


def test_what_another_command_left_is_not_gone_on_with(tmp_path):
    path = tmp_path / "a.zarr"
    _write(path, 100, [10] * 10, stop=50)
    assert StreamedAnnData(path, 100, HEADER, {"of": "another"}).written == 0


def test_missing_rows_are_reported(tmp_path):
    with pytest.raises(RuntimeError, match="90 of 100"):
        _write(tmp_path / "a.h5ad", 100, [90])


def test_what_another_version_began_goes_on_in_its_own_chunks(tmp_path, monkeypatch):
    path = tmp_path / "a.zarr"
    _write(path, 100, [10] * 10, stop=50)
    monkeypatch.setattr(streamed, "CHUNK_UNITS", 32)
    _write(path, 100, [10] * 10)
    np.testing.assert_array_equal(_read(path).obsm["features"], _table(100)["obsm/features"])
    state = path.with_name("b.zarr.json")
    _write(tmp_path / "b.zarr", 100, [10] * 10, stop=50)
    known = json.loads(state.read_text())
    del known["chunk"]  # as before chunks were of one size
    state.write_text(json.dumps(known))
    assert StreamedAnnData(tmp_path / "b.zarr", 100, HEADER, {"of": "i"}).written == 0
