"""`inspect`: what a path holds, in one screen."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bundle.errors import InputError
from bundle.importing import describe, inspect, prepare


def test_a_data_set(phantom: Path):
    found = inspect(phantom)
    assert (found["kind"], len(found["slides"])) == ("data set", 3)
    spots = found["slides"][0]["units"][0]
    assert spots["shape"] == "circle"
    assert 0 < spots["reliability"] < 1
    text = describe(found)
    assert "a data set split by patient; 3 slides" in text
    assert "reliability 0." in text
    json.dumps(found)


def test_doubts_of_the_import_are_kept(her2st: Path, tmp_path: Path):
    prepare(her2st, tmp_path / "out", source="her2st")
    state = tmp_path / "out" / "checks" / "A1.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "doubts": ["Look here."]}))
    found = inspect(tmp_path / "out")
    assert "A1: Look here." in found["doubts"]
    assert "There is no test split, so nothing can be scored in the end." in found["doubts"]
    assert found["slides"][0]["mpp_from"] == "spots 200 µm apart"


def test_a_folder_of_a_known_layout(her2st: Path):
    found = inspect(her2st)
    assert (found["kind"], found["layout"], found["patients"]) == ("layout", "st", ["A", "B"])
    assert [s["name"] for s in found["slides"]] == ["A1", "A2", "B1"]
    assert f"Import it: pixnet prepare {her2st} OUT" in describe(found)


def test_a_layout_that_lacks_something_is_reported_and_not_raised(her2st: Path):
    (her2st / "ST-cnts" / "A1.tsv.gz").write_bytes(b"\x1f\x8b broken")
    found = inspect(her2st)
    assert any("A1" in doubt and "cannot be read" in doubt for doubt in found["doubts"])


def test_a_table_without_its_picture_is_reported_once(tmp_path: Path):
    table = tmp_path / "detected_transcripts.csv"
    table.write_text("global_x,global_y,gene\n1,2,A\n")
    found = inspect(table)
    assert found["doubts"] == ["detected_transcripts: a table of transcripts has no H&E with it. Name it with --image."]
    assert "genes on all" not in describe(found)


def test_a_slide_and_a_plain_picture(phantom: Path, tmp_path: Path):
    found = inspect(next((phantom / "slides").glob("*.tif")))
    assert found["kind"] == "slide"
    assert found["mpp"] == pytest.approx(1.0)
    assert found["tissue"] > 0.1
    Image.fromarray(np.full((40, 50, 3), 200, np.uint8)).save(tmp_path / "p.png")
    plain = inspect(tmp_path / "p.png")
    assert (plain["size_px"], plain["mpp"]) == ([50, 40], None)
    assert "scale not known" in describe(plain)


def test_units_and_a_run(phantom: Path, tiny_run: Path):
    units = inspect(next((phantom / "units").glob("*.h5ad")))
    assert units["kind"] == "units"
    run = inspect(tiny_run)
    assert (run["kind"], run["doubts"]) == ("run", [])
    assert "a trained run for 30 genes" in describe(run)


def test_what_is_not_there_is_reported(tmp_path: Path):
    with pytest.raises(InputError, match="There is no file or folder"):
        inspect(tmp_path / "absent")


@pytest.mark.real
def test_real_folders(real_data: Path):
    found = inspect(real_data / "her2st_a1")
    (slide,) = found["slides"]
    assert slide["mpp"] == pytest.approx(3.19, abs=0.01)
    assert (slide["units"][0]["units"], found["doubts"]) == (346, [])
