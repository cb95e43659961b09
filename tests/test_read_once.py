"""A command reads each file of a data set and of a model once."""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import anndata as ad
import numpy as np
import pytest

from bundle import workflows
from bundle.data.crop_dataset import CropDataset
from bundle.data.fit_panel import extend_panel, fit_panel
from bundle.data.manifest import read_split
from bundle.data.slide_dataset import SlideDataset
from bundle.training.head_start import head_statistics
from transforms import SlideReader

_counted: list[Counter[str]] = []


def _count(event: str, args: tuple) -> None:
    if event == "open" and _counted and isinstance(args[0], str) and args[1] == "r" and args[0].endswith(".json"):
        _counted[0][args[0]] += 1


sys.addaudithook(_count)  # there is no way to take it off again


@pytest.fixture
def opened(monkeypatch) -> Iterator[Counter[str]]:
    """How often each JSON file and each AnnData has been opened to be read."""
    count: Counter[str] = Counter()
    real = ad.read_h5ad

    def read(path, *args, **kwargs):
        count[str(path)] += 1
        return real(path, *args, **kwargs)

    monkeypatch.setattr(ad, "read_h5ad", read)
    _counted.append(count)
    yield count
    _counted.clear()


def test_a_training_reads_the_units_the_data_set_and_its_configuration_once(phantom, tiny, tmp_path, opened):
    data, override = shutil.copytree(phantom, tmp_path / "data"), tmp_path / "override.json"
    override.write_text(json.dumps({"max_epochs": 2}))  # two validations
    workflows.train(data, tmp_path / "run", [override], tiny | {"max_epochs": 2})
    assert opened[str(override)] == 1  # so what was checked is what ran
    of_data = {path: n for path, n in opened.items() if path.startswith(str(data))}
    manifest = json.loads((data / "dataset.json").read_text())
    used = [r["label"] for split in ("training", "validation") for r in manifest[split]]
    assert set(of_data) == {str(data / "dataset.json"), *(str(data / label) for labels in used for label in labels)}
    assert set(of_data.values()) == {1}


def test_an_evaluation_reads_units_data_set_and_model_once(phantom, tiny_run, tmp_path, opened):
    data, run = shutil.copytree(phantom, tmp_path / "data"), shutil.copytree(tiny_run, tmp_path / "run")
    workflows.evaluate(run, data)
    read = {Path(path).relative_to(tmp_path).as_posix(): n for path, n in opened.items() if str(tmp_path) in path}
    assert {"data/dataset.json", "run/configs/model.json", "run/models/panel.json"} <= set(read)
    assert {n for name, n in read.items() if not name.endswith(".pixnet.json")} == {1}


def _dataset(records, panel, **more) -> CropDataset:
    return CropDataset(records, panel, SlideReader(), lambda sample: sample, 1.0, 192, 3, **more)


@pytest.mark.parametrize("rates", [False, True])
def test_crops_are_of_the_very_units_that_the_panel_was_fitted_on(phantom, opened, rates, tmp_path):
    records = read_split(phantom, "training")
    panel = fit_panel(records, min_total=20, unit_sizes_um=[16])
    dataset = _dataset(records, panel, unit_sizes_um=[16], rates=rates)
    head_statistics(panel, n_programs=2, n_components=2)
    assert set(opened.values()) == {1}
    (units,) = panel.units_of(records[0], [16])
    assert units is dataset._slides[0].layers[0]  # held once, whatever is taken of it
    panel.save(tmp_path / "panel.json")
    again = extend_panel(tmp_path / "panel.json", records, [16])
    (units,) = again.units_of(records[0], [16])
    assert units is _dataset(records, again, unit_sizes_um=[16], rates=rates)._slides[0].layers[0]


def test_a_slide_keeps_what_is_scored_and_its_totals(phantom, opened):
    (record,) = read_split(phantom, "test")
    panel = fit_panel(read_split(phantom, "training"), n_mean=3, n_hvg=2, min_total=20)
    opened.clear()
    dataset = SlideDataset([record], SlideReader(), panel)
    slides = [dataset[0] for _ in range(2)]
    assert set(opened.values()) == {1}
    whole = next(u for u in panel.units_of(record) if u.shape == "circle")
    units = slides[0]["units"]
    assert set(units.genes) == set(panel.genes) < set(whole.genes)
    place = [whole.barcodes.tolist().index(name) for name in units.barcodes]
    np.testing.assert_array_equal(units.total, whole.total[place])
    np.testing.assert_array_equal(units.counts_of(panel.genes), whole.take(place).counts_of(panel.genes))
    assert len(units) + slides[0]["filtered_units"] == len(whole)
