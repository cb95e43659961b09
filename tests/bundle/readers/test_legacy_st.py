from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from bundle.errors import InputError
from bundle.importing.import_sample import Imported, import_sample
from bundle.importing.prepare import preparation_tools
from bundle.readers.legacy_st import SOURCES, Section, find_sections, read_measurements
from bundle.readers.sample import Options, Place

HER2ST = SOURCES["her2st"]
MPP = 200 / 30


@pytest.fixture
def section(tmp_path: Path) -> Section:
    return Section("A1", "A", tmp_path / "A1.tsv", tmp_path / "A1_selection.tsv", tmp_path / "A1.jpg")


def files(section: Section) -> tuple[Path, Path, Path]:
    return section.counts, section.spots, section.image


def imported(section: Section, **options: float) -> Imported:
    place = Place(section.name, section.counts.parent, files(section), ("her2st", section, (section.counts,)), "A")
    out = section.counts.parent / "out"
    return import_sample("st", place, Options(**options), out, preparation_tools())


def rotated(degrees: float, flip: bool = False) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Turns (and mirrors) the picture under the array."""
    a = np.deg2rad(degrees)
    matrix = np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]]) @ np.diag([-1 if flip else 1, 1])

    def change(table: pd.DataFrame) -> pd.DataFrame:
        table[["pixel_x", "pixel_y"]] = table[["pixel_x", "pixel_y"]].to_numpy() @ matrix + 300
        return table

    return change


def test_each_spot_has_the_counts_of_its_name(section: Section, write_section: Callable) -> None:
    write_section(*files(section), change_spots=lambda t: t.iloc[::-1])
    measured = read_measurements(section, HER2ST.array)
    table = pd.read_csv(section.counts, sep="\t", index_col=0)
    np.testing.assert_array_equal(measured.counts.toarray(), table.loc[measured.spots.index].to_numpy())
    np.testing.assert_array_equal(measured.spots.index, [f"{x}x{y}" for x, y in measured.spots[["x", "y"]].to_numpy()])


def test_spots_without_counts_or_unselected_are_left_out(section: Section, write_section: Callable) -> None:
    def unselect(table: pd.DataFrame) -> pd.DataFrame:
        table.loc[table["x"] == 3, "selected"] = 0
        return table

    write_section(*files(section), change_counts=lambda t: t.drop(["4x4", "5x5"]), change_spots=unselect)
    names = set(read_measurements(section, HER2ST.array).spots.index)
    assert len(names) == 48 - 6 - 2
    assert not names & {"4x4", "5x5", "3x4"}


def test_ensembl_ids_lose_their_version_and_symbols_keep_theirs(section: Section, write_section: Callable) -> None:
    write_section(*files(section))
    adata = ad.read_h5ad(section.counts.parent / "out" / imported(section).record["label"])
    assert list(adata.var_names) == ["ACTB", "ENSG00000141736", "ENSMUSG00000064339", "FO538757.1", "TWICE"]
    assert list(adata.var["gene_ids"]) == list(adata.var_names)
    table = pd.read_csv(section.counts, sep="\t", index_col=0).loc[adata.obs_names]
    np.testing.assert_array_equal(adata[:, "TWICE"].X.toarray().ravel(), table.iloc[:, -2:].sum(axis=1))


def test_a_header_without_its_corner_is_the_same_table(section: Section, write_section: Callable) -> None:
    write_section(*files(section))
    whole = read_measurements(section, HER2ST.array)
    section.counts.write_text(section.counts.read_text()[1:])
    bare = read_measurements(section, HER2ST.array)
    assert bare.genes == whole.genes
    np.testing.assert_array_equal(bare.counts.toarray(), whole.counts.toarray())


# Scale ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("degrees", "flip"), [(0, False), (7, False), (90, False), (180, True)])
def test_scale_does_not_depend_on_how_the_picture_lies(
    section: Section, write_section: Callable, degrees: float, flip: bool
) -> None:
    write_section(*files(section), change_spots=rotated(degrees, flip))
    assert read_measurements(section, HER2ST.array).mpp == pytest.approx(MPP, rel=1e-4)


def test_scale_follows_the_pitch(section: Section, write_section: Callable) -> None:
    write_section(*files(section))
    assert imported(section, pitch_um=100).record["mpp"] == pytest.approx(MPP / 2, rel=1e-4)
    assert imported(section).record["mpp"] == pytest.approx(MPP, rel=1e-4)


def test_scale_withstands_misplaced_spots(section: Section, write_section: Callable) -> None:
    def misplace(table: pd.DataFrame) -> pd.DataFrame:
        table.loc[[0, 47], ["pixel_x", "pixel_y"]] = 170.0, 10.0
        return table

    write_section(*files(section), change_spots=misplace)
    assert read_measurements(section, HER2ST.array).mpp == pytest.approx(MPP, rel=0.01)


def test_scale_without_fitted_places_is_nearly_the_same(section: Section, write_section: Callable) -> None:
    write_section(*files(section), change_spots=lambda t: t.drop(columns=["new_x", "new_y", "selected"]))
    assert read_measurements(section, HER2ST.array).mpp == pytest.approx(MPP, rel=0.02)


def test_spots_on_a_line_need_a_given_scale(section: Section, write_section: Callable) -> None:
    write_section(*files(section), change_spots=lambda t: t[t["y"] == 5])
    with pytest.raises(InputError, match="--mpp"):
        read_measurements(section, HER2ST.array)
    assert read_measurements(section, HER2ST.array, mpp=1.5).mpp == 1.5


def test_a_stretched_picture_is_reported(section: Section, write_section: Callable) -> None:
    write_section(*files(section), change_spots=lambda t: t.assign(pixel_x=t["pixel_x"] * 1.1))
    with pytest.raises(InputError, match="stretched"):
        read_measurements(section, HER2ST.array)
    write_section(*files(section), change_spots=lambda t: t.assign(pixel_x=t["pixel_x"] * 1.03))
    assert read_measurements(section, HER2ST.array).mpp == pytest.approx(MPP / 1.03**0.5, rel=1e-3)


def test_a_given_scale_that_contradicts_the_array_is_reported(section: Section, write_section: Callable) -> None:
    write_section(*files(section))
    with pytest.raises(InputError, match=r"--mpp says 0\.5 .* 6\.67"):
        read_measurements(section, HER2ST.array, mpp=0.5)
    assert read_measurements(section, HER2ST.array, mpp=6.5).mpp == 6.5


@pytest.mark.parametrize("figures", [{"mpp": 0.0}, {"pitch_um": -1.0}, {"size_um": float("nan")}])
def test_figures_must_be_positive(section: Section, write_section: Callable, figures: dict[str, float]) -> None:
    write_section(*files(section))
    with pytest.raises(InputError, match="positive"):
        imported(section, **figures)


# Files that do not belong together, or cannot be read -----------------------------------------------------------------


def renamed(table: pd.DataFrame) -> pd.DataFrame:
    return table.set_axis([f"{i}x99" for i in range(len(table))])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (renamed, "only 0 of the 48"),
        (lambda t: pd.concat([t.iloc[:20], renamed(t.iloc[20:])]), "only 20 of the 48"),
        (lambda t: t.iloc[:, :-1].T, "genes columns"),
        (lambda t: t - 10, "negative"),
        (lambda t: t / 7, "fractional"),
        (lambda t: t.assign(ACTB="many"), "not a table of counts"),
        (lambda t: pd.concat([t, t.iloc[:3]]), "3 spots occur twice"),
        (lambda t: t.iloc[:0], "not a table of counts|cannot be read"),
    ],
)
def test_unusable_counts_are_reported(section: Section, write_section: Callable, change: Callable, says: str) -> None:
    write_section(*files(section), change_counts=change)
    with pytest.raises(InputError, match=says):
        read_measurements(section, HER2ST.array)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.drop(columns="pixel_x"), "no column pixel_x"),
        (lambda t: t.assign(pixel_y=np.where(t["x"] == 3, np.nan, t["pixel_y"])), "6 of 48 rows"),
        (lambda t: pd.concat([t, t.iloc[:2]]), "2 spots occur twice"),
        (lambda t: t.assign(selected=0), "selected = 1"),
        (lambda t: t.iloc[:0], "0 of 0 rows"),
    ],
)
def test_unusable_spots_are_reported(section: Section, write_section: Callable, change: Callable, says: str) -> None:
    write_section(*files(section), change_spots=change)
    with pytest.raises(InputError, match=says):
        read_measurements(section, HER2ST.array)


@pytest.mark.parametrize("which", ["counts", "spots"])
@pytest.mark.parametrize("content", [b"", b"\x1f\x8b broken", bytes(range(256))])
def test_broken_tables_are_reported(section: Section, write_section: Callable, which: str, content: bytes) -> None:
    write_section(*files(section))
    getattr(section, which).write_bytes(content)
    with pytest.raises(InputError, match=getattr(section, which).name):
        read_measurements(section, HER2ST.array)


def test_a_cut_short_gzip_is_reported(section: Section, write_section: Callable, tmp_path: Path) -> None:
    packed = Section("A1", "A", tmp_path / "A1.tsv.gz", section.spots, section.image)
    write_section(*files(packed))
    packed.counts.write_bytes(packed.counts.read_bytes()[:200])
    with pytest.raises(InputError, match="cannot be read"):
        read_measurements(packed, HER2ST.array)


def test_spots_outside_the_picture_are_counted(section: Section, write_section: Callable) -> None:
    write_section(*files(section), change_spots=lambda t: t.assign(pixel_x=t["pixel_x"] + 100))
    with pytest.raises(InputError, match=r"of 48 spots lie outside A1\.jpg \(300 x 240 px\).*full-resolution"):
        imported(section)


@pytest.mark.parametrize("keep", [0, 100, 2000])
def test_a_cut_short_picture_is_reported_and_nothing_is_written(
    section: Section, write_section: Callable, keep: int
) -> None:
    write_section(*files(section))
    section.image.write_bytes(section.image.read_bytes()[:keep])
    out = section.counts.parent / "out"
    with pytest.raises(InputError, match=r"A1\.jpg (cannot be decoded|is empty)"):
        imported(section)
    assert not [p for p in out.rglob("*") if p.is_file()]


# Finding --------------------------------------------------------------------------------------------------------------


def test_sections_come_in_natural_order(tmp_path: Path) -> None:
    for name in ("MOB10", "MOB2", "MOB1"):
        for file in (f"{name}.tsv", f"alignment_table_{name}.tsv", f"{name}.jpg"):
            (tmp_path / file).touch()
    found = find_sections(SOURCES["mob"], tmp_path)
    assert [s.name for s in found] == ["MOB1", "MOB2", "MOB10"]
    assert {s.patient for s in found} == {"MOB"}


@pytest.mark.parametrize(
    ("remove", "says"),
    [("ST-imgs/A2.jpg", "picture of section A2"), ("ST-spotfiles/B1_selection.tsv", "table of spots of section B1")],
)
def test_a_missing_file_is_named(her2st: Path, remove: str, says: str) -> None:
    (her2st / remove).unlink()
    with pytest.raises(InputError, match=says):
        find_sections(HER2ST, her2st)


def test_two_pictures_of_a_section_are_reported(her2st: Path) -> None:
    (her2st / "copy").mkdir()
    (her2st / "copy" / "A1.jpg").touch()
    with pytest.raises(InputError, match="keep one"):
        find_sections(HER2ST, her2st)


def test_a_folder_without_sections_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No counts of her2st"):
        find_sections(HER2ST, tmp_path)
    with pytest.raises(InputError, match="no folder"):
        find_sections(HER2ST, tmp_path / "absent")


# Real tissue ----------------------------------------------------------------------------------------------------------


@pytest.mark.real
def test_her2st_tables_say_what_is_known_of_them(real_data: Path) -> None:
    section = find_sections(HER2ST, real_data / "her2st")[0]
    measured = read_measurements(section, HER2ST.array)
    assert (section.name, section.patient) == ("C2", "C")
    assert measured.counts.shape == (187, 15706)
    assert measured.mpp == pytest.approx(0.69, abs=0.005)


@pytest.mark.real
def test_the_dense_arrays_steps_make_its_pixels_square(real_data: Path) -> None:
    for section in find_sections(SOURCES["mob"], real_data / "mob"):
        measured = read_measurements(section, SOURCES["mob"].array)
        assert (measured.spots["selected"] == 1).all()
        assert all(gene.startswith("ENSMUSG") and "." not in gene for gene in measured.genes)
        place, pixels = (measured.spots[c].to_numpy() for c in (["new_x", "new_y"], ["pixel_x", "pixel_y"]))
        step_px = [np.polyfit(place[:, i], pixels[:, i], 1)[0] for i in (0, 1)]
        along = np.array(SOURCES["mob"].array.step_um) / step_px
        assert along[0] == pytest.approx(along[1], rel=0.003)
        assert measured.mpp == pytest.approx(4.56, abs=0.01)
