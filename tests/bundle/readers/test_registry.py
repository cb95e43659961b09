"""Recognising layouts, and the page that shows how to add one."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bundle.data.manifest import read_manifest
from bundle.data.read_units import read_units
from bundle.errors import InputError
from bundle.importing import prepare
from bundle.readers import READERS, recognise, register, registry

PAGE = Path(__file__).parents[3] / "docs" / "developer" / "add_a_reader.md"


def test_every_reader_has_a_title_and_two_functions():
    for name in READERS:
        reader = registry.reader_of(name)
        assert reader.TITLE
        assert callable(reader.find)
        assert callable(reader.read)


def test_an_unknown_folder_is_refused_with_the_known_layouts(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"does not recognise the files of .* It knows Space Ranger, Visium HD"):
        recognise(tmp_path)
    with pytest.raises(InputError, match="holds no sample of HEST-1k"):
        prepare(tmp_path, tmp_path / "out", as_="hest")
    with pytest.raises(InputError, match=r'no layout "visum"; choose one of .* Did you mean "visium"'):
        prepare(tmp_path, tmp_path / "out", as_="visum")
    with pytest.raises(InputError, match="There is no file or folder"):
        recognise(tmp_path / "absent")


@pytest.fixture
def slide_seq(monkeypatch):
    """The module that the page shows, added as the page says."""
    code = re.search(r"```python file=slide_seq\.py\n(.*?)```", PAGE.read_text(), re.DOTALL)[1]
    assert len([line for line in code.splitlines() if line.strip()]) <= 60
    module = types.ModuleType("slide_seq")
    exec(compile(code, str(PAGE), "exec"), module.__dict__)
    monkeypatch.setitem(sys.modules, "slide_seq", module)
    monkeypatch.setattr(registry, "READERS", READERS.copy())
    monkeypatch.setattr(registry, "_added", {})
    register("slide-seq", module)
    return module


def test_the_page_that_shows_how_to_add_a_reader_is_true(slide_seq, tmp_path, specimen):
    rng = np.random.default_rng(0)
    centers = rng.uniform((200, 200), (800, 600), (300, 2))
    centers = centers[specimen.amount(centers) > 0]
    names = [f"bead{i}" for i in range(len(centers))]
    puck = tmp_path / "puck"
    puck.mkdir()
    at = pd.DataFrame(centers * specimen.mpp, columns=["x", "y"], index=pd.Index(names, name="barcode"))
    at.sample(frac=1, random_state=0).to_csv(puck / "P1_bead_locations.csv")
    counts = pd.DataFrame(specimen.counts(centers).toarray().T, columns=names, index=[f"G{i}" for i in range(20)])
    counts.to_csv(puck / "P1_expression.csv.gz")
    Image.fromarray(specimen.picture).save(tmp_path / "he.png", compress_level=1)
    assert recognise(puck) == "slide-seq"
    prepare(puck, tmp_path / "out", image=tmp_path / "he.png", mpp=specimen.mpp)
    units = read_units(read_manifest(tmp_path / "out")["training"][0]["label"][0])
    np.testing.assert_allclose(units.centers_px, centers)
    np.testing.assert_array_equal(units.counts.toarray(), counts.to_numpy().T)
    assert (units.shape, units.size_um) == ("circle", 10.0)


def test_links_that_lead_back_are_not_walked_for_ever(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "back").symlink_to(tmp_path / "a")
    (tmp_path / "elsewhere").symlink_to(tmp_path / "a" / "b")
    with pytest.raises(InputError, match="does not recognise"):
        recognise(tmp_path)
