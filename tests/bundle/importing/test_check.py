"""The check after every import: what lies wrong is named with its numbers, what lies right is left in peace."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bundle.data.spacing import nearest_um
from bundle.data.tissue import TissueMap
from bundle.errors import InputError
from bundle.importing import prepare
from bundle.importing.check import ORIENTATIONS, check_units, doubts_of
from bundle.importing.prepare import preparation_tools
from bundle.writers.tiff_pyramid import write_pyramid


@pytest.fixture(scope="module")
def tissue(specimen, tmp_path_factory):
    path = write_pyramid(tmp_path_factory.mktemp("check") / "s.tif", specimen.picture, specimen.mpp)
    tools = preparation_tools()
    return TissueMap(tools.reader.open(str(path)), tools.tissue)


@pytest.fixture
def units(specimen):
    x, y = np.meshgrid(np.arange(25, 1200, 50.0), np.arange(25, 900, 50.0))
    centers = np.column_stack([x.ravel(), y.ravel()])
    centers = centers[specimen.amount(centers) > 0]
    totals = np.random.default_rng(0).poisson(specimen.amount(centers) * 400)
    return centers, totals


def looked_at(tissue, specimen, centers, totals, unit_um=55.0):
    size_um = specimen.width_px * specimen.mpp, specimen.height_px * specimen.mpp
    return check_units(tissue, size_um, centers * specimen.mpp, totals, unit_um)


def test_units_that_lie_right_raise_no_doubt(tissue, specimen, units):
    evidence = looked_at(tissue, specimen, *units)
    assert evidence.on_tissue > 0.95
    assert evidence.darkness_r > 0.8
    assert doubts_of(evidence) == []
    assert len(evidence.others) == 7


@pytest.mark.parametrize("name", list(ORIENTATIONS)[1:])
def test_each_flip_and_turn_is_named_by_its_evidence(tissue, specimen, units, name):
    centers, totals = units
    width, height = specimen.width_px, specimen.height_px
    wrong = {
        "flipped left to right": lambda x, y: (width - x, y),
        "flipped top to bottom": lambda x, y: (x, height - y),
        "turned by 180°": lambda x, y: (width - x, height - y),
        "x and y swapped": lambda x, y: (y, x),
        "turned by 90° clockwise": lambda x, y: (y, width - x),
        "turned by 90° counter-clockwise": lambda x, y: (height - y, x),
        "x and y swapped, and turned by 180°": lambda x, y: (height - y, width - x),
    }[name](*centers.T)
    evidence = looked_at(tissue, specimen, np.column_stack(wrong), totals)
    (doubt, *_) = doubts_of(evidence)
    assert doubt.startswith(f"The positions may be wrong: {name}, ")
    assert evidence.others[name][0] > 0.95


def test_units_off_the_tissue_are_counted(tissue, specimen, units):
    centers, totals = units
    evidence = looked_at(tissue, specimen, centers / 4, totals)
    assert any("Only" in doubt and "of the units lie on tissue" in doubt for doubt in doubts_of(evidence))


def test_fine_bins_are_summed_before_they_are_compared(tissue, specimen):
    x, y = np.meshgrid(np.arange(2, 1200, 4.0), np.arange(2, 900, 4.0))
    centers = np.column_stack([x.ravel(), y.ravel()])
    centers = centers[specimen.amount(centers) > 0]
    totals = np.random.default_rng(0).poisson(specimen.amount(centers) * 0.3)
    evidence = looked_at(tissue, specimen, centers, totals, 8.0)
    assert evidence.units < len(centers) / 20
    assert evidence.darkness_r > 0.4
    assert doubts_of(evidence) == []


def test_counts_that_do_not_follow_the_stain_at_all_are_no_flip(tissue, specimen, units):
    centers, totals = units
    evidence = looked_at(tissue, specimen, centers, np.random.default_rng(3).permutation(totals))
    assert not any("positions may be wrong" in doubt for doubt in doubts_of(evidence))


@pytest.fixture
def tables(specimen, tmp_path):
    """Two tables of any program's, and a picture."""
    x, y = np.meshgrid(np.arange(25, 1200, 50.0), np.arange(25, 900, 50.0))
    centers = np.column_stack([x.ravel(), y.ravel()])
    centers = centers[specimen.amount(centers) > 0]
    names = [f"u{i}" for i in range(len(centers))]
    counts = pd.DataFrame(specimen.counts(centers).toarray(), index=names, columns=[f"G{i}" for i in range(20)])
    counts.to_csv(tmp_path / "counts.tsv", sep="\t")
    pd.DataFrame({"barcode": names, "x": centers[:, 0], "y": centers[:, 1]}).to_csv(tmp_path / "where.csv", index=False)
    Image.fromarray(specimen.picture).save(tmp_path / "he.png", compress_level=1)
    return {
        "counts": tmp_path / "counts.tsv",
        "positions": tmp_path / "where.csv",
        "image": tmp_path / "he.png",
        "size_um": 55,
    }


def test_any_tables_of_counts_and_positions_by_flags(tables, tmp_path, specimen):
    prepare(tmp_path, tmp_path / "out", as_="st", pitch_um=100, **tables)
    state = json.loads((tmp_path / "out" / "checks" / "counts.json").read_text())
    assert state["record"]["mpp"] == pytest.approx(specimen.mpp)
    assert state["doubts"] == []
    turned = pd.read_csv(tables["counts"], sep="\t", index_col=0).T
    turned.to_csv(tables["counts"], sep="\t")
    prepare(tmp_path, tmp_path / "turned", as_="st", pitch_um=100, **tables)
    again = json.loads((tmp_path / "turned" / "checks" / "counts.json").read_text())
    assert "counts.tsv is gene × unit; PixNet turned it." in again["found"]


def test_a_likely_mistake_is_a_warning_and_strict_makes_it_an_error(tables, tmp_path, caplog):
    where = pd.read_csv(tables["positions"])
    where.assign(x=1200 - where["x"]).to_csv(tables["positions"], index=False)
    with caplog.at_level(logging.WARNING):
        prepare(tmp_path, tmp_path / "out", as_="st", pitch_um=100, **tables)
    assert "The positions may be wrong: flipped left to right, " in caplog.text
    with pytest.raises(InputError, match=r"flipped left to right, .* Leave --strict out"):
        prepare(tmp_path, tmp_path / "out", as_="st", pitch_um=100, strict=True, **tables)
    picture = Image.open(tmp_path / "out" / "checks" / "counts.png")
    assert picture.width > 1000


def test_an_mpp_that_the_pitch_contradicts_is_reported(tables, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        prepare(tmp_path, tmp_path / "out", as_="st", pitch_um=100, mpp=1.0, **tables)
    assert "Neighbouring units lie 50 µm apart at 1 µm per pixel, and should lie 100 µm apart" in caplog.text


@pytest.mark.real
@pytest.mark.parametrize("name", ["her2st", "her2st_a1", "mob", "xfuse_mob_tiny"])
def test_real_sections_raise_no_doubt(real_data: Path, tmp_path: Path, name: str) -> None:
    messages: list[str] = []
    only = {"her2st": ["C3"], "mob": ["MOB1"]}.get(name, [])
    prepare(real_data / name, tmp_path, only=only, progress=messages.append)
    (state,) = (json.loads(p.read_text()) for p in (tmp_path / "checks").glob("*.json"))
    assert state["doubts"] == []


@pytest.mark.parametrize("is_hexagonal", [False, True])
@pytest.mark.parametrize("jitter", [0.0, 0.05])
def test_the_pitch_is_that_of_the_array_though_units_lie_off_it(is_hexagonal, jitter):
    row, column = (v.ravel().astype(float) for v in np.meshgrid(np.arange(14), np.arange(13)))
    centers = np.column_stack([column, row])
    if is_hexagonal:
        centers = np.column_stack([column + row % 2 / 2, row * np.sqrt(3) / 2])
    centers += np.random.default_rng(0).normal(0, jitter, centers.shape)
    assert nearest_um(200 * centers) == pytest.approx(200, rel=0.01)


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_few_units_have_a_pitch_if_they_are_two(n):
    assert nearest_um(np.column_stack([np.arange(n) * 5.0, np.zeros(n)])) == pytest.approx(
        5 if n > 1 else np.nan, nan_ok=True
    )
