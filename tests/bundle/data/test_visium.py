"""A Visium spot is 55 µm wide whatever its file says of drawing it, and its pitch of 100 µm gives the mpp."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from bundle.data.build_units import build_units
from bundle.data.read_units import read_units
from bundle.errors import InputError

MPP = 0.36


def visium(path: Path, pitch_px: float = 100 / MPP, turn: float = 0.4, array: bool = True) -> ad.AnnData:
    """Spots of a Visium slide as Space Ranger and scanpy keep them: no unit, no mpp, a diameter of 65 µm."""
    row, column = np.divmod(np.arange(12 * 20), 20)
    column = 2 * column + row % 2
    at = np.column_stack([column * pitch_px / 2, row * pitch_px * np.sqrt(3) / 2])
    at = at @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) + 5000
    adata = ad.AnnData(np.ones((len(at), 2), np.float32), obs=pd.DataFrame(index=[f"s{i}" for i in range(len(at))]))
    if array:
        adata.obs["array_row"], adata.obs["array_col"] = row, column
    adata.obsm["spatial"] = at
    adata.uns["spatial"] = {"S": {"scalefactors": {"spot_diameter_fullres": 0.65 * pitch_px}}}
    adata.write_h5ad(path)
    return adata


@pytest.mark.parametrize("array", [True, False])
def test_a_spot_is_the_capture_disk_and_the_pitch_gives_the_mpp(tmp_path, array: bool, caplog):
    visium(tmp_path / "u.h5ad", array=array)
    with caplog.at_level(logging.INFO):
        units = read_units(tmp_path / "u.h5ad")
    assert (units.shape, units.size_um) == ("circle", 55.0)
    assert units.mpp == pytest.approx(MPP, rel=1e-3)
    assert "55 µm across" in caplog.text
    assert "WARNING" not in caplog.text


def test_an_mpp_that_the_pitch_contradicts_is_refused(tmp_path):
    adata = visium(tmp_path / "u.h5ad")
    adata.uns["spatial"]["S"]["metadata"] = {"mpp": MPP}
    adata.write_h5ad(tmp_path / "u.h5ad")
    assert read_units(tmp_path / "u.h5ad").mpp == MPP
    adata.obsm["spatial"] *= 0.09  # those of the hires picture
    adata.uns["spatial"]["S"]["scalefactors"]["spot_diameter_fullres"] *= 0.09
    adata.write_h5ad(tmp_path / "u.h5ad")
    with pytest.raises(InputError, match=r"states 0.36 µm per pixel, but its Visium spots .* only at 4"):
        read_units(tmp_path / "u.h5ad")


def test_positions_of_a_smaller_picture_show_in_the_diameter(tmp_path, caplog):
    adata = visium(tmp_path / "u.h5ad")
    letters = np.random.default_rng(0).choice(list("ACGT"), (adata.n_obs, 16))
    adata.obs_names = ["".join(row) + "-1" for row in letters]
    adata.obsm["spatial"] *= 0.09
    adata.write_h5ad(tmp_path / "u.h5ad")
    assert read_units(tmp_path / "u.h5ad").size_um == 55
    assert "of a smaller picture" in caplog.text


def test_other_arrays_are_taken_at_their_diameter_with_a_message(tmp_path, caplog):
    places = np.stack(np.meshgrid(np.arange(6), np.arange(5)), -1).reshape(-1, 2)
    adata = build_units(
        np.ones((30, 2)),
        ["A", "B"],
        [f"u{i}" for i in range(30)],
        places * 290.0 + 100,
        shape="circle",
        size_um=100.0,
        mpp=0.69,
        section="S",
        array_xy=places,
    )
    del adata.uns["unit"]
    adata.write_h5ad(tmp_path / "u.h5ad")
    assert read_units(tmp_path / "u.h5ad").size_um == pytest.approx(100)
    assert "PixNet takes disks of 100 µm" in caplog.text
    del adata.uns["spatial"]
    adata.write_h5ad(tmp_path / "u.h5ad")
    with pytest.raises(InputError, match="does not say how large its units are"):
        read_units(tmp_path / "u.h5ad")


def test_a_hexagonal_array_of_another_make_is_not_taken_for_visium(tmp_path, caplog):
    adata = visium(tmp_path / "u.h5ad")
    adata.uns["spatial"]["S"] = {"scalefactors": {"spot_diameter_fullres": 90.0}, "metadata": {"mpp": 0.5}}
    adata.write_h5ad(tmp_path / "u.h5ad")
    assert read_units(tmp_path / "u.h5ad").size_um == 45
    assert "PixNet takes disks of 45 µm" in caplog.text
    del adata.uns["spatial"]
    adata.write_h5ad(tmp_path / "u.h5ad")
    with pytest.raises(InputError, match="does not say how large its units are"):
        read_units(tmp_path / "u.h5ad")


def test_a_real_slide(real_data, tmp_path):
    outs = real_data / "visium_muscle" / "Vis5A_2dpi" / "spatial"
    if not outs.is_dir():
        pytest.skip(f"no Visium slide at {outs}")
    place = pd.read_csv(outs / "tissue_positions_list.csv", header=None, index_col=0)
    place.index = place.index.astype(str).rename(None)
    adata = ad.AnnData(np.ones((len(place), 1), np.float32), obs=pd.DataFrame(index=place.index))
    adata.obs["in_tissue"], adata.obs["array_row"], adata.obs["array_col"] = place[1], place[2], place[3]
    adata.obsm["spatial"] = place[[5, 4]].to_numpy(float)
    adata.uns["spatial"] = {"Vis5A": {"scalefactors": json.loads((outs / "scalefactors_json.json").read_text())}}
    adata.write_h5ad(tmp_path / "v.h5ad")
    units = read_units(tmp_path / "v.h5ad")
    assert units.size_um == 55
    assert units.mpp == pytest.approx(100 / 277.35, rel=1e-3)
