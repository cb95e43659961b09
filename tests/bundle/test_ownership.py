from __future__ import annotations

import os
import zipfile
from pathlib import Path

import anndata as ad
import nibabel as nib
import numpy as np
import pytest
import zarr

from bundle import commands
from bundle.audit import audit
from bundle.demo import demo
from bundle.errors import InputError
from bundle.inference import inferer
from bundle.ownership import MARKER, check_output, claim, clear, remove_ours
from bundle.phantom import make_phantom


def foreign(folder: Path, name: str) -> Path:
    """A file or a Zarr of that name as other tools write them."""
    path = folder / name
    if name.endswith(".h5ad"):
        ad.AnnData(np.ones((2, 2), np.float32), uns={"spatial": {}}).write_h5ad(path)
    elif name.endswith(".zarr"):
        zarr.open_group(str(path), mode="w").create_array("0", data=np.ones(3))
    elif ".nii" in name:
        nib.save(nib.Nifti1Image(np.ones((2, 2, 2), np.float32), np.eye(4)), path)
    elif name.endswith(".zip"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("notes.txt", "mine")
    else:
        path.write_text("<html>mine</html>")
    return path


def state(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


NAMES = ["o.h5ad", "o.zarr", "o.nii", "o.nii.gz", "o.html", "o.onnx", "o.zip", "o.tif"]


@pytest.mark.parametrize("name", NAMES)
def test_what_others_wrote_is_refused_and_stays(tmp_path, name):
    path = foreign(tmp_path, name)
    before = state(tmp_path)
    with pytest.raises(InputError, match="was not written by PixNet"):
        check_output(path)
    assert state(tmp_path) == before
    check_output(tmp_path / f"new_{name}")


@pytest.mark.parametrize("link", [None, os.symlink, os.link])
def test_an_output_that_is_an_input_is_refused_under_any_name(tmp_path, link):
    (tmp_path / "a").mkdir()
    slide, out = tmp_path / "a" / "s.tif", tmp_path / "o.h5ad"
    slide.write_bytes(b"pixels")
    if link is None:
        out = tmp_path / "a" / ".." / "a" / "s.tif"
    else:
        link(slide, out)
    with pytest.raises(InputError, match="which this command reads"):
        check_output(out, [None, slide])


def test_an_output_that_holds_an_input_is_refused(tmp_path):
    path = tmp_path / "o.zarr"
    path.mkdir()
    with pytest.raises(InputError, match="which this command reads"):
        check_output(path, [path / "slide.tif"])
    with pytest.raises(InputError, match="which this command reads"):
        check_output(path / "o.h5ad", [path])


def test_pipes_and_devices_are_no_outputs(tmp_path):
    os.mkfifo(tmp_path / "pipe.h5ad")
    for path in (tmp_path / "pipe.h5ad", Path("/dev/null")):
        with pytest.raises(InputError, match="was not written by PixNet"):
            check_output(path)


def test_a_folder_is_claimed_once_and_only_where_nothing_is_lost(tmp_path):
    claim(tmp_path / "new")
    (tmp_path / "new" / "x").touch()
    claim(tmp_path / "new")
    (tmp_path / "log").touch()
    (tmp_path / "slides").mkdir()
    with pytest.raises(InputError, match="holds log, new, slides, which PixNet did not write"):
        claim(tmp_path)
    with pytest.raises(InputError, match="holds slides, which"):
        claim(tmp_path, ["slides"])
    claim(tmp_path, ["units"])
    with pytest.raises(InputError, match="not a folder"):
        claim(tmp_path / "log")
    assert not [p.name for p in clear(tmp_path / "new").iterdir() if p.name != MARKER]
    remove_ours(tmp_path / "slides")
    remove_ours(tmp_path / "new")
    assert sorted(p.name for p in tmp_path.iterdir()) == [MARKER, "log", "slides"]


def test_a_link_in_a_folder_of_ours_is_removed_and_not_what_it_leads_to(tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "picture.jpg").touch()
    ours = claim(tmp_path / "ours")
    (ours / "link").symlink_to(tmp_path / "theirs")
    clear(ours)
    assert (tmp_path / "theirs" / "picture.jpg").is_file()


def test_a_work_folder_of_someone_else_is_left_alone(tiny_run, phantom, tmp_path):
    """Her2ST's own layout has a folder of pictures for each section, named like it."""
    pictures = tmp_path / "images" / "P3"
    pictures.mkdir(parents=True)
    (pictures / "P3.jpg").write_bytes(b"picture")
    before = state(tmp_path)
    settings = {"bin_um": 55.0, "work_dir": str(pictures.parent)}
    with pytest.raises(InputError, match=r"P3 holds P3\.jpg, which PixNet did not write"):
        commands.predict(phantom / "slides" / "P3.tif", tmp_path / "o.h5ad", tiny_run, settings)
    assert state(tmp_path) == before


@pytest.mark.parametrize("of", ["slide", "units", "weights"])
def test_no_prediction_replaces_what_it_reads(tiny_run, phantom, tmp_path, of):
    slide, units = phantom / "slides" / "P3.tif", phantom / "units" / "P3_spot55.h5ad"
    out = tmp_path / "o.h5ad"
    os.link({"slide": slide, "units": units, "weights": tiny_run / "models" / "model.pt"}[of], out)
    before = out.read_bytes()
    with pytest.raises(InputError, match="which this command reads"):
        commands.predict(slide, out, tiny_run, {"units": str(units)})
    assert out.read_bytes() == before


def test_outputs_of_ours_are_replaced_and_those_of_others_are_not(tiny_run, phantom, tmp_path):
    slide = phantom / "slides" / "P3.tif"
    asked = {"map": str(tmp_path / "m.zarr"), "nifti": str(tmp_path / "n.nii.gz"), "bin_um": 110.0}
    for _ in range(2):
        commands.predict(slide, tmp_path / "o.h5ad", tiny_run, asked)
    for name, key in (("f.h5ad", None), ("f.zarr", "map"), ("f.nii.gz", "nifti")):
        path = foreign(tmp_path, name)
        before = state(tmp_path)
        with pytest.raises(InputError, match="was not written by PixNet"):
            commands.predict(slide, None if key else path, tiny_run, {key: str(path)} if key else {"bin_um": 110.0})
        assert state(tmp_path) == before


def test_folders_of_others_get_no_data_set_run_audit_or_demo(tmp_path, phantom):
    for name in ("slides", "phantom", "models"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").touch()
    (tmp_path / "audit.json").write_text("{}")
    before = state(tmp_path)
    units = phantom / "units" / "P3_spot55.h5ad"
    prediction = tmp_path.parent / f"{tmp_path.name}.h5ad"
    measured = ad.read_h5ad(units)
    measured.uns["unit"]["kind"] = "prediction"
    measured.X = measured.X.toarray()
    measured.write_h5ad(prediction)
    for call in (
        lambda: make_phantom(tmp_path, slides=3),
        lambda: demo(tmp_path),
        lambda: commands.train(phantom, tmp_path),
        lambda: audit(prediction, units, tmp_path, unit_of_x="counts", min_total=0),
    ):
        with pytest.raises(InputError, match="which PixNet did not write"):
            call()
    assert state(tmp_path) == before


def test_an_earlier_versions_work_folder_is_gone_on_with(tmp_path):
    (tmp_path / "plan.json").write_text('{"tiles": []}')
    claim(tmp_path, None, inferer._EARLIER)
    assert (tmp_path / MARKER).is_file()
