from __future__ import annotations

import json

import pytest

from bundle.data.manifest import check_splits, read_manifest, read_split, slide_records, write_manifest
from bundle.errors import InputError


def _record(name: str, patient: str) -> dict:
    return {"image": f"{name}.tif", "label": f"{name}.h5ad", "patient": patient}


def _write(tmp_path, manifest: dict) -> None:
    for split in ("training", "validation", "test"):
        for record in manifest.get(split, []):
            (tmp_path / record["image"]).touch()
            (tmp_path / record["label"]).touch()
    write_manifest(tmp_path, manifest)


def test_a_patient_in_two_splits_is_refused_unless_the_split_is_by_section():
    manifest = {"training": [_record("A1", "A")], "test": [_record("A2", "A")]}
    with pytest.raises(InputError, match='patient "A" is in both training and test'):
        check_splits(manifest, "dataset.json")
    check_splits({**manifest, "split_by": "section"}, "dataset.json")


def test_a_slide_listed_twice_is_refused():
    with pytest.raises(InputError, match="list it once"):
        check_splits({"training": [_record("A1", "A")], "test": [_record("A1", "A")]}, "dataset.json")


def test_what_is_written_is_read_back_with_absolute_paths(tmp_path):
    _write(tmp_path, {"training": [_record("A1", "A")], "test": [_record("B1", "B")]})
    assert read_manifest(tmp_path)["training"][0]["image"] == str(tmp_path / "A1.tif")
    (record,) = read_split(tmp_path, "test")
    assert record["label"] == [str(tmp_path / "B1.h5ad")]
    assert record["section"] == "B1"
    assert record["split_by"] == "patient"
    assert read_split(tmp_path, "validation") == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        (json.dumps({"training": [_record("missing", "A")]}), "does not exist"),
        (json.dumps({"split_by": "luck"}), "must be one of"),
    ],
)
def test_a_bad_manifest_is_reported_in_a_sentence(tmp_path, content, message):
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(InputError, match=message):
        read_manifest(tmp_path)


def test_no_data_set_and_no_slides(tmp_path):
    with pytest.raises(InputError, match=r"dataset\.json is missing"):
        read_manifest(tmp_path)
    with pytest.raises(InputError, match="No slide in"):
        slide_records(str(tmp_path))
    (tmp_path / "a.tif").touch()
    (tmp_path / "b.svs").touch()
    assert len(slide_records(str(tmp_path))) == 2
    with pytest.raises(InputError, match="one slide"):
        slide_records(str(tmp_path), units="u.h5ad")


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ({"validation": None}, '"validation" is null; it must be a list of slides'),
        ({"training": {}}, "must be a list of slides"),
        ({"training": [3]}, r'"training#0" is 3; it must be a slide such as'),
        ({"training": [{"label": "a.h5ad"}]}, r'lacks "training#0#image"\. A slide is such as'),
        ({"training": [{"image": 1}]}, "must be the path of a slide"),
        ({"training": [{"image": "a.tif", "label": 1e308}]}, "must be the path of a file of units"),
        ({"training": [{"image": "a.tif", "label": "q" * 100_000}]}, r"q\.\.\. \(100,002 characters\)"),
        ({"training": [{"image": "q" * 4000}]}, "does not exist"),
        ({"training": [{"image": "a\0.tif"}]}, "does not exist"),
        ({"training": [{"image": "a.tif", "mpp": "x"}]}, '"mpp" of a.tif is "x"; it must be a number of µm per pixel'),
        ({"training": [{"image": "a.tif", "mpp": 1e-300}]}, "no scale of a slide"),
        ({"training": [{"image": "a.tif", "section": "../x"}]}, "the name of a file"),
        ({"training": [{"image": "a.tif", "section": ".."}]}, "the name of a file"),
        ({"training": [{"image": "a.tif", "block": [0, 0, 1]}]}, "must be a rectangle"),
        ({"training": [{"image": "a.tif", "patient": ["A"]}]}, "must be a name or a number"),
        ({"transcriptome": 7}, 'must be "whole" or "panel"'),
        ({"training": float("nan")}, "holds NaN"),
    ],
)
def test_what_has_not_the_form_of_a_data_set_is_reported_with_its_place(tmp_path, manifest, message):
    (tmp_path / "dataset.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=message) as raised:
        read_manifest(tmp_path)
    assert len(str(raised.value)) < 800


def test_what_is_null_counts_as_left_out(tmp_path):
    (tmp_path / "a.tif").touch()
    record = {"image": "a.tif", "label": None, "patient": None, "mpp": None, "section": None}
    (tmp_path / "dataset.json").write_text(json.dumps({"training": [record]}))
    (read,) = read_split(tmp_path, "training")
    assert not {"patient", "mpp"} & set(read)
    assert read["label"] == []


def test_no_slide_is_predicted_at_a_scale_that_none_has():
    with pytest.raises(InputError, match="no scale of a slide"):
        slide_records("a.tif", mpp=1e-300)
