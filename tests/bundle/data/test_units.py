from __future__ import annotations

import numpy as np
import pytest

from bundle.data.build_units import build_units
from bundle.data.read_units import read_units
from bundle.errors import InputError


def _build(**kwargs):
    options = {
        "counts": np.arange(12).reshape(3, 4),
        "genes": ["A", "B", "A", "C"],
        "barcodes": ["x", "y", "z"],
        "centers_px": np.array([[0.5, 1.0], [2, 3], [4, 5]]),
        "shape": "circle",
        "size_um": 55.0,
        "mpp": 0.5,
        "section": "S1",
    }
    return build_units(**{**options, **kwargs})


def test_units_survive_a_file(tmp_path):
    _build().write_h5ad(tmp_path / "u.h5ad")
    units = read_units(tmp_path / "u.h5ad")
    assert units.size_um == 55
    assert units.mpp == 0.5
    assert list(units.genes) == ["A", "B", "C"]
    np.testing.assert_array_equal(units.counts_of(["C", "A"]), [[3, 2], [7, 10], [11, 18]])
    np.testing.assert_array_equal(units.total, [6, 22, 38])
    np.testing.assert_array_equal(units.centers_px[1], [2, 3])


def test_the_form_is_scanpys():
    library = _build(hires=np.zeros((4, 4, 3), np.uint8), hires_scale=0.1).uns["spatial"]["S1"]
    assert library["scalefactors"] == {"spot_diameter_fullres": 110.0, "tissue_hires_scalef": 0.1}
    assert library["images"]["hires"].shape == (4, 4, 3)


def test_rows_and_columns_of_the_array_are_told_apart(tmp_path):
    _build(array_xy=np.array([[7, 1], [8, 2], [9, 3]])).write_h5ad(tmp_path / "u.h5ad")
    table = read_units(tmp_path / "u.h5ad").obs
    assert table is not None
    assert (list(table["array_col"]), list(table["array_row"])) == ([7, 8, 9], [1, 2, 3])


def test_visium_files_of_others_need_a_size(tmp_path):
    adata = _build()
    del adata.uns["unit"]
    adata.write_h5ad(tmp_path / "u.h5ad")
    assert read_units(tmp_path / "u.h5ad").size_um == pytest.approx(55)  # from the scale factors and mpp
    del adata.uns["spatial"]
    adata.write_h5ad(tmp_path / "v.h5ad")
    with pytest.raises(InputError, match="how large its units are"):
        read_units(tmp_path / "v.h5ad")


def test_what_stands_beside_the_library_is_passed_over(tmp_path):
    adata = _build(section="slide")
    adata.uns["spatial"] = {"is_single": np.bool_(True), **adata.uns["spatial"]}  # CELLxGENE's schema
    adata.write_h5ad(tmp_path / "u.h5ad")
    assert read_units(tmp_path / "u.h5ad").mpp == 0.5


def test_bad_units_are_reported_in_a_sentence(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        read_units(tmp_path / "none.h5ad")
    (tmp_path / "junk.h5ad").write_bytes(b"junk")
    with pytest.raises(InputError, match="cannot be read as AnnData"):
        read_units(tmp_path / "junk.h5ad")
    with pytest.raises(InputError, match="occur twice"):
        _build(barcodes=["x", "x", "y"])
    adata = _build(centers_px=np.array([[np.nan, 1], [2, 3], [4, 5]]))
    adata.write_h5ad(tmp_path / "nan.h5ad")
    with pytest.raises(InputError, match="no finite position"):
        read_units(tmp_path / "nan.h5ad")
    adata = _build()
    adata.write_h5ad(tmp_path / "u.h5ad")
    with pytest.raises(InputError, match="lacks 1 of the 2 genes"):
        read_units(tmp_path / "u.h5ad").counts_of(["A", "Z"])


def test_genes_that_were_not_measured_are_nan_on_request(tmp_path):
    _build().write_h5ad(tmp_path / "u.h5ad")
    units = read_units(tmp_path / "u.h5ad")
    np.testing.assert_array_equal(units.measures(["C", "Z", "A"]), [True, False, True])
    np.testing.assert_array_equal(
        units.counts_of(["C", "Z", "A"], partly=True), [[3, np.nan, 2], [7, np.nan, 10], [11, np.nan, 18]]
    )
