"""Tables of transcripts, Xenium's folder: counted where they lie, controls dropped, the picture's own pixels."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bundle.data.manifest import read_manifest
from bundle.data.read_units import read_units
from bundle.errors import InputError
from bundle.importing import prepare
from bundle.readers import recognise
from bundle.readers.transcripts import is_control

GENES = np.array(["ACTB", "EPCAM", "NEGR1", "CD3E", "BLANK-3", "NegControlProbe_00041", "antisense_X"])


@pytest.fixture
def molecules(specimen) -> pd.DataFrame:
    """Transcripts, `x` and `y` in pixels of the picture."""
    rng = np.random.default_rng(7)
    at = rng.uniform(0, (specimen.width_px, specimen.height_px), (60_000, 2))
    at = at[rng.uniform(size=len(at)) < specimen.amount(at)]
    gene = GENES[rng.choice(len(GENES), len(at), p=[0.4, 0.2, 0.1, 0.1, 0.1, 0.05, 0.05])]
    qv = np.where(rng.uniform(size=len(at)) < 0.1, 12.0, 35.0)
    return pd.DataFrame({"x": at[:, 0], "y": at[:, 1], "gene": gene, "qv": qv})


@pytest.fixture
def image(specimen, tmp_path) -> Path:
    path = tmp_path / "pictures" / "he.png"
    path.parent.mkdir()
    Image.fromarray(specimen.picture).save(path, compress_level=1)
    return path


def units_of(out: Path) -> list:
    return [read_units(label) for label in read_manifest(out)["training"][0]["label"]]


def counted(table: pd.DataFrame, size_px: float, gene: str) -> dict[tuple[int, int], int]:
    of_gene = table[table["gene"] == gene]
    place = np.floor(of_gene[["x", "y"]].to_numpy() / size_px).astype(int)
    return pd.Series(map(tuple, place)).value_counts().to_dict()


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "tsv", "parquet"])
def test_any_table_is_counted_in_bins_of_any_sizes(molecules, image, tmp_path, specimen, ending):
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / f"molecules.{ending}"
    named = molecules.rename(columns={"x": "col", "y": "row", "gene": "what"})
    named.to_parquet(path) if ending == "parquet" else named.to_csv(
        path, sep="\t" if ending == "tsv" else ",", index=False
    )
    messages: list[str] = []
    prepare(
        path,
        tmp_path / "out",
        image=image,
        mpp=specimen.mpp,
        unit_um=0,
        columns={"x": "col", "y": "row", "gene": "what", "qv": "qv"},
        sizes_um=[16, 40],
        progress=messages.append,
    )
    good = molecules[molecules["qv"] >= 20]
    for units, size_um in zip(units_of(tmp_path / "out"), (16, 40), strict=True):
        assert (units.shape, units.size_um, units.mpp) == ("square", size_um, specimen.mpp)
        assert sorted(units.genes) == ["ACTB", "CD3E", "EPCAM", "NEGR1"]
        size_px = size_um / specimen.mpp
        place = np.floor(units.centers_px / size_px).astype(int)
        want = counted(good, size_px, "EPCAM")
        got = units.counts_of(["EPCAM"]).ravel()
        assert {tuple(p): n for p, n in zip(place.tolist(), got, strict=True) if n} == want
        np.testing.assert_allclose(units.centers_px, (place + 0.5) * size_px)
    assert "transcripts of a quality below 20 were left out" in messages[0]
    assert "transcripts of controls were left out" in messages[0]


def test_empty_bins_inside_the_tissue_are_zeros(molecules, image, tmp_path, specimen):
    molecules.to_csv(tmp_path / "m.csv", index=False)
    prepare(tmp_path / "m.csv", tmp_path / "out", image=image, mpp=2.0, unit_um=0, sizes_um=[8])
    (units,) = units_of(tmp_path / "out")
    assert (units.total == 0).mean() > 0.2
    assert (specimen.amount(units.centers_px) > 0).mean() > 0.85


@pytest.mark.parametrize(
    ("name", "vendor"),
    [
        ("detected_transcripts.csv", "merscope"),
        ("S0_tx_file.csv.gz", "cosmx"),
        ("chip.gem.gz", "stereo-seq"),
    ],
)
def test_vendors_tables_are_known_by_their_names(molecules, image, tmp_path, specimen, name, vendor):
    folder = tmp_path / vendor
    folder.mkdir()
    table, origin = molecules.copy(), np.array([0.0, 0.0])
    at_um = molecules[["x", "y"]].to_numpy() * specimen.mpp
    if vendor == "merscope":
        origin = np.array([6400.0, 4700.0])
        table[["global_x", "global_y"]] = at_um + origin
        table = table.rename(columns={"x": "x_local", "y": "y_local"})
    elif vendor == "cosmx":  # fields of 500 px, whose local positions begin anew
        table[["x_global_px", "y_global_px"]] = at_um / 0.12028
        table["x_local_px"], table["y_local_px"] = table["x_global_px"] % 500, table["y_global_px"] % 500
        table["cell_ID"], table["cell_id"] = 1, "c_1_1"
        table = table.rename(columns={"gene": "target"}).drop(columns=["x", "y"])
    else:
        table[["x", "y"]] = np.round(at_um / 0.5).astype(int)
        table = table.rename(columns={"gene": "geneID"}).assign(MIDCount=2)
    text = table.drop(columns="qv").to_csv(index=False, sep="\t" if vendor == "stereo-seq" else ",")
    if vendor == "stereo-seq":
        text = "#FileFormat=GEMv0.1\n#OffsetX=0\n" + text
    data = text.encode()
    (folder / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    assert recognise(folder) == "transcripts"
    prepare(folder, tmp_path / "out", image=image, mpp=specimen.mpp, origin=tuple(origin), sizes_um=[20])
    (units,) = units_of(tmp_path / "out")
    want = counted(molecules, 10, "ACTB")
    got = dict(
        zip(
            map(tuple, np.floor(units.centers_px / 10).astype(int).tolist()),
            units.counts_of(["ACTB"]).ravel(),
            strict=True,
        )
    )
    times = 2 if vendor == "stereo-seq" else 1
    off = sum(abs(got.get(place, 0) - times * n) for place, n in want.items())
    assert off < 0.1 * times * sum(want.values())  # positions were rounded


def test_micrometres_are_not_taken_for_pixels(molecules, image, tmp_path, specimen):
    table = molecules.copy()
    table[["x", "y"]] = molecules[["x", "y"]] * specimen.mpp + 3000
    table.to_csv(tmp_path / "m.csv", index=False)
    with pytest.raises(InputError, match="say what x and y are: --unit-um 1 for micrometres"):
        prepare(tmp_path / "m.csv", tmp_path / "out", image=image, mpp=specimen.mpp)
    with pytest.raises(InputError, match="of its transcripts lie outside the picture"):
        prepare(tmp_path / "m.csv", tmp_path / "out", image=image, mpp=specimen.mpp, unit_um=0)
    prepare(tmp_path / "m.csv", tmp_path / "out", image=image, mpp=specimen.mpp, unit_um=1, origin=(3000, 3000))


def matrix_of(specimen, degrees: float = 90.0) -> np.ndarray:
    """Pixels of the picture to micrometres: turned, moved, scaled."""
    a = np.deg2rad(degrees)
    spin = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    return np.array([[1, 0, 2500], [0, 1, 700], [0, 0, 1.0]]) @ spin @ np.diag([specimen.mpp, specimen.mpp, 1])


def test_a_3_by_3_file_takes_positions_to_pixels(molecules, image, tmp_path, specimen):
    matrix = matrix_of(specimen)
    table = molecules.copy()
    at = np.column_stack([molecules[["x", "y"]], np.ones(len(molecules))]) @ matrix.T
    table["x"], table["y"] = at[:, 0], at[:, 1]
    table.to_csv(tmp_path / "m.csv", index=False)
    np.savetxt(tmp_path / "to_px.csv", np.linalg.inv(matrix), delimiter=",")
    options = {"image": image, "unit_um": 1, "sizes_um": [20]}
    prepare(tmp_path / "m.csv", tmp_path / "out", transform=tmp_path / "to_px.csv", **options)
    (units,) = units_of(tmp_path / "out")
    assert units.mpp == pytest.approx(specimen.mpp)
    np.savetxt(tmp_path / "back.txt", matrix)
    prepare(tmp_path / "m.csv", tmp_path / "back", transform=tmp_path / "back.txt", transform_inverted=True, **options)
    (again,) = units_of(tmp_path / "back")
    assert (units.counts != again.counts).nnz == 0
    with pytest.raises(InputError, match="--transform-inverted"):
        prepare(tmp_path / "m.csv", tmp_path / "no", transform=tmp_path / "back.txt", mpp=specimen.mpp, **options)


def test_controls_have_other_names_in_other_panels():
    controls = [
        "BLANK_0012",
        "Blank-100",
        "NegControlProbe_00041",
        "NegControlCodeword_0500",
        "UnassignedCodeword_0001",
    ]
    controls += ["antisense_SCRIB", "DeprecatedCodeword_0318", "NegPrb3", "Negative1", "SystemControl12", "FalseCode7"]
    controls += ["Intergenic_Region_1", "GenomicControl_Codeword_1", "negative_control_4"]
    genes = ["NEGR1", "BLNK", "ACTB", "NEDD4", "INTS1", "SYS1", "DEPDC5", "UNC5B", "FALZ"]
    assert is_control(controls).all()
    assert not is_control(genes).any()


# Xenium --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def xenium(molecules, specimen, tmp_path, write_10x):
    """Writes a folder of Xenium Ranger, its H&E turned by 90° against the morphology picture."""

    def write(form: str = "parquet", inverted: bool = False, zipped: bool = False) -> Path:
        if form == "parquet":
            pytest.importorskip("pyarrow")
        root = tmp_path / "XEN1"
        root.mkdir()
        to_um = matrix_of(specimen)
        (root / "experiment.xenium").write_text(json.dumps({"pixel_size": 0.2125, "analysis_sw_version": "R&D"}))
        table = pd.DataFrame({"transcript_id": np.arange(len(molecules)), "feature_name": molecules["gene"]})
        at = np.column_stack([molecules[["x", "y"]], np.ones(len(molecules))]) @ to_um.T
        table["x_location"], table["y_location"], table["qv"] = at[:, 0], at[:, 1], molecules["qv"]
        table["is_gene"] = ~is_control(molecules["gene"])
        rng = np.random.default_rng(2)
        centers = rng.uniform((300, 300), (650, 480), (50, 2))
        angle = np.linspace(0, 2 * np.pi, 13)
        rings = centers[:, None] + np.stack([5 * np.cos(angle), 4 * np.sin(angle)], axis=1)
        ids = [f"cell{i:03d}-1" for i in range(50)]
        flat = np.column_stack([rings.reshape(-1, 2), np.ones(50 * 13)]) @ to_um.T
        polygons = pd.DataFrame({"cell_id": np.repeat(ids, 13), "vertex_x": flat[:, 0], "vertex_y": flat[:, 1]})
        middle = np.column_stack([centers, np.ones(50)]) @ to_um.T
        cells = pd.DataFrame({"cell_id": ids, "x_centroid": middle[:, 0], "y_centroid": middle[:, 1]})
        for name, content in (("transcripts", table), ("cells", cells), ("cell_boundaries", polygons)):
            if form == "parquet":
                content.to_parquet(root / f"{name}.parquet")
            else:
                content.to_csv(root / f"{name}.csv.gz", index=False)
        kinds = ["Gene Expression"] * 4 + ["Negative Control Codeword"] * 3
        write_10x(root / "cell_feature_matrix.h5", specimen.counts(centers, 7, 50), ids, list(GENES), kinds)
        Image.fromarray(specimen.picture).save(root / "XEN1_he_image.ome.tif")
        matrix = np.diag([1 / 0.2125, 1 / 0.2125, 1]) @ to_um
        text = "\n".join(",".join(map(str, row)) for row in (np.linalg.inv(matrix) if inverted else matrix))
        if zipped:
            with zipfile.ZipFile(root / "XEN1_he_imagealignment.zip", "w") as archive:
                archive.writestr("matrix.csv", text)
        else:
            (root / "XEN1_he_imagealignment.csv").write_text(text)
        write.centers, write.ids = centers, ids
        return root

    return write


@pytest.mark.parametrize(("form", "zipped"), [("parquet", False), ("csv.gz", True)])
def test_xeniums_transcripts_lie_on_its_h_and_e(xenium, molecules, tmp_path, specimen, form, zipped):
    root, messages = xenium(form, zipped=zipped), []
    assert recognise(root) == "xenium"
    prepare(root, tmp_path / "out", sizes_um=[20], progress=messages.append)
    (units,) = units_of(tmp_path / "out")
    assert units.mpp == pytest.approx(specimen.mpp)
    assert sorted(units.genes) == ["ACTB", "CD3E", "EPCAM", "NEGR1"]
    place = np.floor(units.centers_px / 10).astype(int)
    got = {tuple(p): n for p, n in zip(place.tolist(), units.counts_of(["ACTB"]).ravel(), strict=True) if n}
    want = counted(molecules[molecules["qv"] >= 20], 10, "ACTB")
    assert sum(abs(got.get(key, 0) - want.get(key, 0)) for key in got.keys() | want.keys()) <= 4  # at bins' edges
    assert "quality below 20" in messages[0]
    assert read_manifest(tmp_path / "out")["transcriptome"] == "panel"


def test_an_alignment_of_the_other_direction_is_reported(xenium, tmp_path):
    root = xenium(inverted=True)
    with pytest.raises(InputError, match=r"puts \d+% of the cells on the picture .* 100% if it is the way back"):
        prepare(root, tmp_path / "out")
    prepare(root, tmp_path / "out", transform_inverted=True, sizes_um=[20])


def test_xeniums_cells_have_their_polygons(xenium, tmp_path, specimen):
    root = xenium()
    prepare(root, tmp_path / "out", units="cells")
    (cells,) = units_of(tmp_path / "out")
    assert (cells.shape, list(cells.barcodes)) == ("polygon", xenium.ids)
    np.testing.assert_allclose(cells.centers_px, xenium.centers, atol=0.01)
    assert list(cells.genes) == list(GENES[:4])
    assert cells.size_um == pytest.approx(2 * np.sqrt(20) * specimen.mpp, rel=0.05)


@pytest.mark.parametrize(
    ("remove", "says"),
    [
        ("XEN1_he_image.ome.tif", "its morphology pictures are fluorescence"),
        ("XEN1_he_imagealignment.csv", "holds no alignment of its H&E"),
        ("transcripts.parquet", "does not read transcripts.zarr"),
    ],
)
def test_what_a_xenium_folder_lacks_is_named(xenium, tmp_path, remove, says):
    root = xenium()
    (root / remove).unlink()
    with pytest.raises(InputError, match=says):
        prepare(root, tmp_path / "out")


@pytest.mark.real
def test_real_merfish_transcripts_keep_their_counts(real_data: Path, tmp_path: Path) -> None:
    """The real transcripts on a generated picture, since theirs are fluorescence."""
    with gzip.open(real_data / "merfish_mini" / "vizgen_transcripts.gz", "rb") as file:
        table = pd.read_csv(io.BytesIO(file.read()))
    mpp, size_px = 0.10862, (4603, 4143)
    at = np.column_stack([(table["global_x"] - 6400.029) / mpp, (table["global_y"] - 4699.967) / mpp])
    crowd = np.histogram2d(at[:, 1], at[:, 0], bins=(41, 46), range=((0, 4143), (0, 4603)))[0]
    grey = np.clip(crowd / np.percentile(crowd, 95), 0, 1)[..., None]
    small = (np.array([235, 190, 215.0]) - grey * np.array([130, 150, 80])).astype(np.uint8)
    Image.fromarray(small).resize(size_px).save(tmp_path / "he.png", compress_level=1)
    prepare(
        real_data / "merfish_mini" / "vizgen_transcripts.gz",
        tmp_path / "out",
        preset="merscope",
        image=tmp_path / "he.png",
        mpp=mpp,
        origin=(6400.029, 4699.967),
        sizes_um=[8, 16],
    )
    fine, coarse = units_of(tmp_path / "out")
    assert not any(gene.lower().startswith("blank") for gene in fine.genes)
    real = table[~table["gene"].str.lower().str.startswith("blank")]
    assert fine.total.sum() == pytest.approx(len(real), rel=0.02)
    assert coarse.total.sum() == pytest.approx(len(real), rel=0.05)
    state = json.loads((tmp_path / "out" / "checks" / "vizgen_transcripts.json").read_text())
    assert state["doubts"] == []
