from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from bundle.data.manifest import SPLITS, read_manifest, read_split
from bundle.data.read_units import read_units
from bundle.data.slide_units import load_units
from bundle.errors import InputError
from bundle.importing import prepare


def moved(source: Path, target: Path, layout: str) -> Path:
    """The same files in another layout."""
    for path in sorted(p for p in source.rglob("*") if p.is_file()):
        name = path.name.split(".")[0]
        into = target / path.name
        if layout == "folders" and path.suffix == ".jpg":
            into = target / "ST-imgs" / name[0] / name / "HE_BT12345.jpg"
        elif layout == "folders":
            into = target / path.parent.name / path.name
        into.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, into)
    return target


@pytest.mark.parametrize("layout", ["flat", "folders"])
def test_every_layout_gives_the_same_data_set(her2st: Path, tmp_path: Path, layout: str) -> None:
    known = prepare(her2st, tmp_path / "known", source="her2st")
    other = prepare(moved(her2st, tmp_path / layout, layout), tmp_path / "other", source="her2st")
    assert json.loads(known.read_text()) == json.loads(other.read_text())
    for record in read_split(tmp_path / "known", "training"):
        slide = Path(record["image"])
        assert slide.read_bytes() == (tmp_path / "other" / "slides" / slide.name).read_bytes()


def test_slides_and_units_are_those_of_the_source(her2st: Path, tmp_path: Path) -> None:
    manifest = read_manifest(prepare(her2st, tmp_path / "out", source="her2st", validation=["B"]).parent)
    assert (manifest["numTraining"], manifest["numValidation"], manifest["numTest"]) == (2, 1, 0)
    assert manifest["transcriptome"] == "whole"
    for record in manifest["training"] + manifest["validation"]:
        with tifffile.TiffFile(record["image"]) as tiff:
            pixels = tiff.pages.first.asarray()
            resolution = tiff.pages.first.tags["XResolution"].value
        assert 1e4 / (resolution[0] / resolution[1]) == pytest.approx(record["mpp"], rel=1e-5)
        jpg = np.asarray(Image.open(her2st / "ST-imgs" / f"{record['section']}.jpg"))
        assert np.abs(pixels.astype(int) - jpg).mean() < 3
        units = read_units(record["label"][0])
        assert (len(units), units.size_um, units.shape) == (48, 100.0, "circle")
        assert units.mpp == record["mpp"]
        array = np.array([name.split("x") for name in units.barcodes], dtype=int)
        np.testing.assert_allclose(units.centers_px, (array - (2, 3)) * 30, atol=5)


def test_a_second_run_keeps_what_is_done_and_remakes_what_is_not(her2st: Path, tmp_path: Path) -> None:
    def times() -> dict[str, int]:
        return {p.name: p.stat().st_mtime_ns for p in out.rglob("A*") if p.is_file()}

    out = tmp_path / "out"
    prepare(her2st, out, source="her2st")
    first = times()
    prepare(her2st, out, source="her2st", test=["B"])
    assert times() == first

    (out / "slides" / "A1.tif").unlink()
    (out / "spots" / "A2.h5ad").write_bytes(b"cut short")
    prepare(her2st, out, source="her2st")
    remade = {name for name, time in times().items() if time > first[name]}
    assert {"A1.tif", "A1.h5ad", "A2.h5ad"} <= remade  # A1's units are those of its slide
    assert "A2.tif" not in remade
    assert len(read_units(out / "spots" / "A2.h5ad")) == 48

    prepare(her2st, out, source="her2st", spot_diameter_um=110)
    assert read_units(out / "spots" / "A1.h5ad").size_um == 110
    table = her2st / "ST-spotfiles" / "A1_selection.tsv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))
    prepare(her2st, out, source="her2st", spot_diameter_um=110)
    assert len(read_units(out / "spots" / "A1.h5ad")) == 47


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"source": "stnet"}, "choose one of her2st, mob, xfuse"),
        ({"test": ["A1"]}, "--split-by section"),
        ({"test": ["Z"]}, "there are the patients A, B"),
        ({"test": ["A"], "split_by": "section"}, "there are the sections A1, A2, B1"),
        ({"split_by": "spot"}, "choose one of patient"),
        ({"split_by": "block", "test": ["A1"]}, "by itself"),
    ],
)
def test_splits_that_cannot_be_are_reported_before_anything_is_written(
    her2st: Path, tmp_path: Path, asked: dict, says: str
) -> None:
    with pytest.raises(InputError, match=says):
        prepare(**{"source": "her2st", "src": her2st, "out": tmp_path / "out", **asked})
    assert not (tmp_path / "out").exists()


def test_sections_of_one_patient_may_be_split_on_request(her2st: Path, tmp_path: Path) -> None:
    prepare(her2st, tmp_path / "out", source="her2st", test=["A1"], split_by="section")
    records = {split: read_split(tmp_path / "out", split) for split in SPLITS}
    assert [r["section"] for r in records["test"]] == ["A1"]
    assert [r["section"] for r in records["training"]] == ["A2", "B1"]
    assert {r["split_by"] for r in records["training"]} == {"section"}


@pytest.mark.real
def test_bands_of_a_real_section(real_data: Path, tmp_path: Path) -> None:
    manifest = read_manifest(prepare(real_data / "xfuse_mob_tiny", tmp_path, source="xfuse", split_by="block").parent)
    assert manifest["transcriptome"] == "panel"
    units = {split: load_units(manifest[split][0])[0] for split in SPLITS}
    assert [len(units[split]) / 282 for split in SPLITS] == pytest.approx([0.6, 0.2, 0.2], abs=0.06)
    assert len(set(np.concatenate([u.barcodes for u in units.values()]))) == sum(map(len, units.values()))
    mpp = manifest["training"][0]["mpp"]
    assert mpp == pytest.approx(6.88, abs=0.02)

    pixels = tifffile.imread(manifest["training"][0]["image"], key=0).astype(int)
    colour = np.ptp(pixels, axis=-1)
    x, y = np.concatenate([u.centers_px for u in units.values()]).astype(int).T
    assert colour[y, x].mean() > 1.5 * colour.mean()  # the spots lie on tissue, x and y not swapped
    assert colour[y, x].mean() > 1.1 * colour[np.clip(x, 0, 989), np.clip(y, 0, 928)].mean()


def test_a_gene_that_a_section_never_saw_is_zero_there(her2st: Path, tmp_path: Path, write_section) -> None:
    write_section(
        her2st / "ST-cnts" / "A2.tsv.gz",
        her2st / "ST-spotfiles" / "A2_selection.tsv",
        her2st / "ST-imgs" / "A2.jpg",
        1,
        change_counts=lambda table: table.drop(columns="ACTB").assign(NEW=2),
    )
    prepare(her2st, tmp_path / "out", source="her2st")
    units = {name: read_units(tmp_path / "out" / "spots" / f"{name}.h5ad") for name in ("A1", "A2", "B1")}
    assert {name: set(u.genes) for name, u in units.items()} == {key: set(units["A1"].genes) for key in units}
    assert (units["A2"].counts_of(["ACTB"]) == 0).all()
    assert (units["A2"].counts_of(["NEW"]) == 2).all()
    assert (units["B1"].counts_of(["NEW"]) == 0).all()
    assert (units["B1"].counts_of(["ACTB"]) > 0).any()
    times = [path.stat().st_mtime_ns for path in sorted((tmp_path / "out" / "spots").iterdir())]
    prepare(her2st, tmp_path / "out", source="her2st")
    assert [path.stat().st_mtime_ns for path in sorted((tmp_path / "out" / "spots").iterdir())] == times


def test_a_data_set_of_an_earlier_version_is_added_to(her2st, tmp_path):
    prepare(her2st, tmp_path, source="her2st")
    (tmp_path / ".pixnet.json").unlink()
    prepare(her2st, tmp_path, source="her2st")
    assert (tmp_path / ".pixnet.json").is_file()


def two_folders(her2st: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Sections A1 and A2 in one folder, B1 in another."""
    other = tmp_path / "other"
    for path in sorted(her2st.rglob("B1*")):
        (other / path.parent.name).mkdir(parents=True, exist_ok=True)
        path.rename(other / path.parent.name / path.name)
    return her2st, other


def test_several_folders_are_one_data_set(her2st: Path, tmp_path: Path) -> None:
    manifest = read_manifest(prepare(two_folders(her2st, tmp_path), tmp_path / "out", test=["B"]).parent)
    assert [r["section"] for r in manifest["training"]] == ["A1", "A2"]
    assert [r["section"] for r in manifest["test"]] == ["B1"]


def test_a_second_patient_is_added_beside_the_first(her2st: Path, tmp_path: Path) -> None:
    first, second = two_folders(her2st, tmp_path)
    prepare(first, tmp_path / "out")
    prepare(second, tmp_path / "out", add=True, test=["B"])
    manifest = read_manifest(tmp_path / "out")
    assert [r["section"] for r in manifest["training"]] == ["A1", "A2"]
    assert [(r["section"], r["patient"]) for r in manifest["test"]] == [("B1", "B")]
    with pytest.raises(InputError, match='patient "A" is in both'):
        prepare(first, tmp_path / "out", add=True, test=["A1"])


def test_what_is_added_is_split_as_the_data_set_is(her2st: Path, tmp_path: Path) -> None:
    first, second = two_folders(her2st, tmp_path)
    prepare(first, tmp_path / "out", split_by="section", test=["A2"])
    prepare(second, tmp_path / "out", add=True)
    manifest = read_manifest(tmp_path / "out")
    assert manifest["split_by"] == "section"
    assert [[r["section"] for r in manifest[split]] for split in ("training", "test")] == [["A1", "B1"], ["A2"]]


def test_the_failure_of_a_single_sample_is_said_once(her2st: Path, tmp_path: Path, caplog) -> None:
    (her2st / "ST-spotfiles" / "A2_selection.tsv").write_text("x\ty\n")
    with pytest.raises(InputError, match="A2_selection"):
        prepare(her2st, tmp_path / "out", only=["A2"])
    assert "was not imported" not in caplog.text


def test_a_csv_says_who_is_who(her2st: Path, tmp_path: Path) -> None:
    first, second = two_folders(her2st, tmp_path)
    table = tmp_path / "samples.csv"
    table.write_text(
        "path,only,patient,name,split,size_um\n"
        f"{first.name},A1,P1,one,,110\n"
        f"{first.name},A2,P1,two,,\n"
        f"{second.name},,P2,three,validation,\n"
    )
    manifest = read_manifest(prepare(table, tmp_path / "out").parent)
    assert [(r["section"], r["patient"]) for r in manifest["training"]] == [("one", "P1"), ("two", "P1")]
    assert [(r["section"], r["patient"]) for r in manifest["validation"]] == [("three", "P2")]
    sizes = {r["section"]: read_units(r["label"][0]).size_um for r in manifest["training"]}
    assert sizes == {"one": 110.0, "two": 100.0}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("path,patent\nx,y\n", 'a column patent .* Did you mean "patient"'),
        ("path,mpp\nhere,fast\n", 'line 2: mpp is "fast"'),
        ("path,split\nhere,train\n", 'line 2: the split is "train"'),
        ("path,mpp\n,2\n", "line 2: the path is missing"),
        ("path\nhere\nthere\n", r"2 samples could not be imported.*There is no file or folder .*here"),
    ],
)
def test_a_faulty_csv_is_reported(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "samples.csv").write_text(content)
    with pytest.raises(InputError, match=says):
        prepare(tmp_path / "samples.csv", tmp_path / "out")
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_a_sample_that_fails_is_reported_and_the_rest_are_done(her2st: Path, tmp_path: Path) -> None:
    table = her2st / "ST-spotfiles" / "A2_selection.tsv"
    whole = table.read_text()
    table.write_text(whole.replace("pixel_x", "px"))
    with pytest.raises(InputError, match=r"1 sample could not be imported\. A2: .*no column pixel_x.*the other 2"):
        prepare(her2st, tmp_path / "out")
    assert [r["section"] for r in read_manifest(tmp_path / "out")["training"]] == ["A1", "B1"]
    before = (tmp_path / "out" / "spots" / "A1.h5ad").stat().st_mtime_ns
    table.write_text(whole)
    prepare(her2st, tmp_path / "out")
    assert [r["section"] for r in read_manifest(tmp_path / "out")["training"]] == ["A1", "A2", "B1"]
    assert (tmp_path / "out" / "spots" / "A1.h5ad").stat().st_mtime_ns == before


def test_an_option_that_changes_what_is_written_remakes_it(her2st: Path, tmp_path: Path) -> None:
    prepare(her2st, tmp_path / "out")
    before = (tmp_path / "out" / "spots" / "A1.h5ad").stat().st_mtime_ns
    prepare(her2st, tmp_path / "out", patients={"A1": "Z", "A2": "Z"})  # a name alone needs no new import
    assert (tmp_path / "out" / "spots" / "A1.h5ad").stat().st_mtime_ns == before
    assert {r["patient"] for r in read_manifest(tmp_path / "out")["training"]} == {"Z", "B"}
    prepare(her2st, tmp_path / "out", pitch_um=100)
    assert (tmp_path / "out" / "spots" / "A1.h5ad").stat().st_mtime_ns > before


def test_nothing_of_others_is_overwritten(her2st: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "slides").mkdir(parents=True)
    with pytest.raises(InputError, match="does not recognise as its own"):
        prepare(her2st, tmp_path / "out")


@pytest.mark.real
def test_a_real_second_patient_beside_the_first(real_data: Path, tmp_path: Path) -> None:
    sources = [real_data / "her2st", real_data / "her2st_a1"]
    manifest = read_manifest(prepare(sources, tmp_path, test=["A"]).parent)
    assert [r["section"] for r in manifest["training"]] == ["C2", "C3", "C4", "C5"]
    assert manifest["test"][0]["mpp"] == pytest.approx(3.19, abs=0.01)
