"""Space Ranger's folders as it writes them, and the traps in them."""

from __future__ import annotations

import gzip
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image

from bundle.data.manifest import read_manifest
from bundle.data.read_units import read_units
from bundle.errors import InputError
from bundle.importing import prepare
from bundle.readers import recognise

LETTERS = np.array(list("ACGT"))
COLUMNS = ["barcode", "in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres"]


@pytest.fixture
def outs(tmp_path: Path, specimen, write_10x) -> Callable[..., Path]:
    """Writes the `outs` of Space Ranger: version 1 names positions `_list` and gives them no header."""

    def write(
        version: int = 2, prefix: str = "", form: str = ".h5", picture: bool = True, folder: str = "S1/outs"
    ) -> Path:
        root = tmp_path / folder
        place, centers = specimen.hexagonal(100 / specimen.mpp)
        rng = np.random.default_rng(3)
        barcodes = ["".join(row) + "-1" for row in rng.choice(LETTERS, (len(place), 16))]
        on = specimen.amount(centers) > 0
        table = pd.DataFrame({"barcode": barcodes, "in_tissue": on.astype(int)})
        table[["array_row", "array_col"]] = place
        table[["pxl_row_in_fullres", "pxl_col_in_fullres"]] = np.rint(centers[:, ::-1]).astype(int)
        spatial = root / "spatial"
        spatial.mkdir(parents=True)
        first = np.flatnonzero(on)[0]  # so that losing the first line loses a spot with counts
        table = pd.concat([table.iloc[[first]], table.drop(index=first)])
        name = "tissue_positions_list.csv" if version == 1 else "tissue_positions.csv"
        table.to_csv(spatial / f"{prefix}{name}", index=False, header=version > 1)
        factors = {"spot_diameter_fullres": 65 / specimen.mpp, "tissue_hires_scalef": 0.5, "tissue_lowres_scalef": 0.25}
        (spatial / f"{prefix}scalefactors_json.json").write_text(json.dumps(factors))
        for which, scale in (("hires", 2), ("lowres", 4)):
            small = Image.fromarray(specimen.picture).reduce(scale)
            small.save(spatial / f"{prefix}tissue_{which}_image.png")
        names = [f"G{i}" for i in range(19)] + ["G0"]
        kinds = ["Gene Expression"] * 20
        counts = specimen.counts(centers[on])
        write_10x(
            root / f"{prefix}filtered_feature_bc_matrix{form}", counts, np.array(barcodes)[on].tolist(), names, kinds
        )
        if picture:
            Image.fromarray(specimen.picture).save(root / "slide.jpg", quality=92)
        return root

    return write


def units_of(out: Path):
    return read_units(read_manifest(out)["training"][0]["label"][0])


@pytest.mark.parametrize("prefix", ["", "S1_"])
@pytest.mark.parametrize("form", [".h5", ""])
@pytest.mark.parametrize("version", [1, 2])
def test_space_ranger_1_and_2_with_and_without_prefix_h5_and_mtx(outs, tmp_path, specimen, version, form, prefix):
    root = outs(version, prefix, form)
    assert recognise(root) == "visium"
    prepare(root, tmp_path / "out")
    units = units_of(tmp_path / "out")
    record = read_manifest(tmp_path / "out")["training"][0]
    assert (record["section"], units.size_um, units.shape) == ("S1", 55.0, "circle")
    assert record["mpp"] == units.mpp == pytest.approx(specimen.mpp, rel=1e-3)
    assert (specimen.amount(units.centers_px) > 0).mean() > 0.98
    assert len(units.genes) == 19  # G0 was there twice
    got, want = units.total, specimen.amount(units.centers_px) * 400
    assert np.corrcoef(got, want)[0, 1] > 0.9


def test_a_patient_that_nothing_names_is_warned_of(outs, tmp_path, caplog):
    root = outs()
    with caplog.at_level(logging.WARNING):
        prepare(root, tmp_path / "out")
    assert "Nothing names the patient of S1" in caplog.text
    caplog.clear()
    prepare(root, tmp_path / "out", patient="P")
    assert "Nothing names" not in caplog.text
    assert read_manifest(tmp_path / "out")["training"][0]["patient"] == "P"


def test_the_first_spot_of_a_table_without_header_is_not_lost(outs, tmp_path):
    root = outs(version=1)
    first = (root / "spatial" / "tissue_positions_list.csv").read_text().partition(",")[0]
    prepare(root, tmp_path / "out")
    assert first in units_of(tmp_path / "out").barcodes


def test_a_header_is_recognised_by_content_and_not_by_the_files_name(outs, tmp_path):
    root = outs(version=2)
    spatial = root / "spatial"
    (spatial / "tissue_positions.csv").rename(spatial / "tissue_positions_list.csv")
    prepare(root, tmp_path / "out")
    assert len(units_of(tmp_path / "out")) > 100


def test_columns_are_row_before_column(outs, tmp_path):
    root = outs()
    table = pd.read_csv(root / "spatial" / "tissue_positions.csv", index_col="barcode")
    prepare(root, tmp_path / "out")
    units = units_of(tmp_path / "out")
    at = table.loc[units.barcodes, ["pxl_col_in_fullres", "pxl_row_in_fullres"]]
    np.testing.assert_array_equal(units.centers_px, at)


def test_the_pitch_gives_the_scale_and_the_spot_diameter_is_a_cross_check(outs, tmp_path, specimen, caplog):
    root = outs()
    factors = json.loads((root / "spatial" / "scalefactors_json.json").read_text())
    (root / "spatial" / "scalefactors_json.json").write_text(json.dumps({**factors, "spot_diameter_fullres": 99.0}))
    with caplog.at_level(logging.WARNING):
        prepare(root, tmp_path / "out")
    assert units_of(tmp_path / "out").mpp == pytest.approx(specimen.mpp, rel=1e-3)
    assert "spot_diameter_fullres is 198 µm by the pitch" in caplog.text
    with pytest.raises(InputError, match="spot_diameter_fullres is 198"):
        prepare(root, tmp_path / "strict", strict=True)


def test_parts_of_outs_are_enough_and_the_picture_may_lie_elsewhere(outs, tmp_path, specimen):
    root = outs(picture=False)
    with pytest.raises(InputError, match="does not hold the full-resolution H&E"):
        prepare(root, tmp_path / "out")
    Image.fromarray(specimen.picture).save(tmp_path / "elsewhere.png")
    prepare(root, tmp_path / "out", image=tmp_path / "elsewhere.png")
    assert units_of(tmp_path / "out").mpp == pytest.approx(specimen.mpp, rel=1e-3)


def test_flat_files_with_prefixes_as_geo_keeps_them(outs, tmp_path, specimen):
    root, flat = outs(version=1), tmp_path / "geo"
    flat.mkdir()
    for name in ("GSM1", "GSM2"):
        for path in (*root.glob("*.h5"), *(root / "spatial").glob("*.[cj]s*")):
            (flat / f"{name}_{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        (flat / f"{name}_filtered_feature_bc_matrix.h5.gz").unlink()
        shutil.copy(root / "filtered_feature_bc_matrix.h5", flat / f"{name}_filtered_feature_bc_matrix.h5")
        Image.fromarray(specimen.picture).save(tmp_path / f"{name}.png")
    table = tmp_path / "samples.csv"
    pd.DataFrame(
        {"path": "geo", "only": ["GSM1", "GSM2"], "image": ["GSM1.png", "GSM2.png"], "patient": ["P", "Q"]}
    ).to_csv(table, index=False)
    manifest = read_manifest(prepare(table, tmp_path / "out", test=["Q"]).parent)
    assert [r["section"] for r in manifest["training"]] == ["GSM1"]
    assert [(r["section"], r["patient"]) for r in manifest["test"]] == [("GSM2", "Q")]


@pytest.mark.parametrize(("which", "scale"), [("hires", 2), ("lowres", 4)])
def test_a_reduced_picture_comes_on_request_alone_with_its_own_scale(outs, tmp_path, specimen, which, scale):
    root, messages = outs(), []
    prepare(root, tmp_path / "out", picture=which, progress=messages.append)
    record = read_manifest(tmp_path / "out")["training"][0]
    assert record["mpp"] == pytest.approx(specimen.mpp * scale, rel=1e-3)
    with tifffile.TiffFile(record["image"]) as tiff:
        assert tiff.pages.first.shape[1] == specimen.width_px / scale
    assert (specimen.amount(units_of(tmp_path / "out").centers_px * scale) > 0).mean() > 0.98
    assert f"tissue_{which}_image.png, which Space Ranger reduced" in messages[0]


def test_a_grey_cytassist_picture_is_no_h_and_e(outs, tmp_path, specimen):
    root = outs(picture=False)
    grey = Image.fromarray(specimen.picture).convert("L")
    grey.save(root / "spatial" / "cytassist_image.tiff")
    with pytest.raises(InputError, match=r"cytassist_image\.tiff is the CytAssist's grey picture, which is no H&E"):
        prepare(root, tmp_path / "out")
    grey.convert("RGB").save(tmp_path / "grey.png")
    with pytest.raises(InputError, match="is a grey picture and no H&E"):
        prepare(root, tmp_path / "out", image=tmp_path / "grey.png")


def test_features_that_are_no_genes_are_left_out_and_ids_lose_their_version(outs, tmp_path, specimen, write_10x):
    root, messages = outs(), []
    path = root / "filtered_feature_bc_matrix.h5"
    table = pd.read_csv(root / "spatial" / "tissue_positions.csv")
    on = table[table["in_tissue"] == 1]
    counts = specimen.counts(on[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy(float))
    kinds = ["Gene Expression"] * 18 + ["Antibody Capture"] * 2
    path.unlink()
    write_10x(path, counts, on["barcode"].tolist(), [f"G{i}" for i in range(20)], kinds)
    prepare(root, tmp_path / "out", progress=messages.append)
    adata = ad.read_h5ad(read_manifest(tmp_path / "out")["training"][0]["label"][0])
    assert list(adata.var_names) == [f"G{i}" for i in range(18)]
    assert list(adata.var["gene_ids"])[:2] == ["ENSG00000000000", "ENSG00000000001"]
    np.testing.assert_array_equal(adata.X.toarray(), counts[:, :18].toarray())
    assert "2 features that are no genes (Antibody Capture) were left out" in messages[0]


def test_an_mpp_that_the_pitch_contradicts_is_refused(outs, tmp_path):
    with pytest.raises(InputError, match=r"--mpp says 0\.5 .* makes 2"):
        prepare(outs(), tmp_path / "out", mpp=0.5)


@pytest.mark.parametrize("fault", ["cut", "other", "no scalefactors", "two pictures"])
def test_damaged_and_mixed_files_are_reported(outs, tmp_path, fault):
    root = outs()
    if fault == "cut":
        path = root / "filtered_feature_bc_matrix.h5"
        path.write_bytes(path.read_bytes()[:4000])
        says = "cannot be read as a feature-barcode matrix"
    elif fault == "other":
        path = root / "spatial" / "tissue_positions.csv"
        path.write_text(path.read_text().replace("-1,", "-2,"))
        says = "Are both of the same sample"
    elif fault == "no scalefactors":
        (root / "spatial" / "scalefactors_json.json").unlink()
        says = "lacks scalefactors_json.json"
    else:
        shutil.copy(root / "slide.jpg", root / "other.jpg")
        says = "holds 2 pictures"
    with pytest.raises(InputError, match=says):
        prepare(root, tmp_path / "out")


@pytest.mark.real
def test_a_real_visium_output(real_data: Path, tmp_path: Path) -> None:
    messages: list[str] = []
    src = real_data / "visium_muscle" / "Vis5A_2dpi"
    prepare(src, tmp_path, picture="lowres", progress=messages.append)
    units = units_of(tmp_path)
    assert (len(units), len(units.genes), units.size_um) == (982, 33006, 55.0)
    factors = json.loads((src / "spatial" / "scalefactors_json.json").read_text())
    full_mpp = units.mpp * factors["tissue_lowres_scalef"]
    assert full_mpp == pytest.approx(65 / factors["spot_diameter_fullres"], rel=0.01)
    state = json.loads((tmp_path / "checks" / "Vis5A_2dpi.json").read_text())
    assert state["doubts"] == []
    assert (tmp_path / "checks" / "Vis5A_2dpi.png").is_file()


@pytest.mark.real
def test_vendor_stubs_of_visium(real_data: Path, tmp_path: Path) -> None:
    prepare(real_data / "visiumio_fixture" / "10xVisium", tmp_path, picture="lowres")
    sizes = {r["section"]: len(read_units(r["label"][0])) for r in read_manifest(tmp_path)["training"]}
    assert sizes == {"section1": 50, "section2": 49}  # one barcode of section2 has no position


def test_the_hires_picture_given_as_the_full_one_is_reported(outs, tmp_path):
    root = outs(picture=False)
    with pytest.raises(InputError, match=r"lie outside tissue_hires_image\.png \(600 x 450 px\).*Is it a reduced"):
        prepare(root, tmp_path / "out", image=root / "spatial" / "tissue_hires_image.png")


def test_tags_that_the_pitch_contradicts_are_named_and_not_taken(outs, tmp_path, specimen, write_slide, caplog):
    root = outs(picture=False)
    path = write_slide(tmp_path / "he.tif", specimen.picture, specimen.mpp * 2.54, tile_px=256)  # px/cm as px/inch
    with caplog.at_level(logging.WARNING):
        prepare(root, tmp_path / "out", image=path)
    assert units_of(tmp_path / "out").mpp == pytest.approx(specimen.mpp, rel=1e-3)
    assert "The file says 5.08 µm per pixel" in caplog.text
    with pytest.raises(InputError, match=r"The file says 5\.08 µm per pixel"):
        prepare(root, tmp_path / "strict", image=path, strict=True)
