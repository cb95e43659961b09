from __future__ import annotations

import json
import os
import shutil
import zipfile
from pathlib import Path

import anndata as ad
import h5py
import nibabel as nib
import numpy as np
import pytest
import zarr

from bundle import workflows
from bundle.audit import audit
from bundle.datasets.phantom import make_phantom
from bundle.errors import InputError
from bundle.files.ownership import MARKER, check_output, claim, clear, remove_ours
from bundle.importing import prepare
from bundle.integrations.bundle_zip import export_bundle
from bundle.integrations.monai_label.models import fine_tune
from bundle.report import write_report
from bundle.workflows.demo import demo


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
    with pytest.raises(InputError, match="does not recognise"):
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
        with pytest.raises(InputError, match="does not recognise"):
            check_output(path)


def test_a_folder_is_claimed_once_and_only_where_nothing_is_lost(tmp_path):
    claim(tmp_path / "new", "work")
    (tmp_path / "new" / "x").touch()
    claim(tmp_path / "new", "work")
    (tmp_path / "log").touch()
    (tmp_path / "slides").mkdir()
    with pytest.raises(InputError, match="holds log, new, slides, which PixNet does not recognise"):
        claim(tmp_path, "work")
    with pytest.raises(InputError, match="holds slides, which"):
        claim(tmp_path, "phantom", ["slides"])
    claim(tmp_path, "phantom", ["units"])
    with pytest.raises(InputError, match="not a folder"):
        claim(tmp_path / "log", "work")
    assert not [p.name for p in clear(tmp_path / "new", "work", ["x"]).iterdir() if p.name != MARKER]
    remove_ours(tmp_path / "slides", "work", ["*"])
    remove_ours(tmp_path / "new", "work", ["x"])
    assert sorted(p.name for p in tmp_path.iterdir()) == [MARKER, "log", "slides"]


def test_a_folder_is_ours_only_as_what_it_was_made_and_only_what_we_write_is_deleted(tmp_path):
    folder = claim(tmp_path / "f", "run", ["models"])
    for name in ("models", "slides"):
        (folder / name).mkdir()
    (folder / "train.log").touch()
    before = state(tmp_path)
    for call in (
        lambda: claim(folder, "work"),
        lambda: clear(folder, "work", ["*"]),
        lambda: claim(folder, "phantom", ["slides"]),
    ):
        with pytest.raises(InputError, match="does not recognise"):
            call()
    remove_ours(folder, "work", ["*"])
    assert state(tmp_path) == before
    claim(folder, "phantom", ["units"])
    clear(folder, "run", ["mod*"])
    assert sorted(p.name for p in folder.iterdir()) == [MARKER, "slides", "train.log"]
    (folder / "units").mkdir()
    remove_ours(folder, "phantom", ["units"])
    assert sorted(p.name for p in folder.iterdir()) == [MARKER, "slides", "train.log"]


def test_a_link_in_a_folder_of_ours_is_removed_and_not_what_it_leads_to(tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "picture.jpg").touch()
    ours = claim(tmp_path / "ours", "work")
    (ours / "link").symlink_to(tmp_path / "theirs")
    clear(ours, "work", ["link"])
    assert (tmp_path / "theirs" / "picture.jpg").is_file()


def test_a_work_folder_of_someone_else_is_left_alone(tiny_run, phantom, tmp_path):
    """Her2ST's own layout has a folder of pictures for each section, named like it."""
    pictures = tmp_path / "images" / "P3"
    pictures.mkdir(parents=True)
    (pictures / "P3.jpg").write_bytes(b"picture")
    before = state(tmp_path)
    settings = {"bin_um": 55.0, "work_dir": str(pictures.parent)}
    with pytest.raises(InputError, match=r"P3 holds P3\.jpg, which PixNet does not recognise"):
        workflows.predict(phantom / "slides" / "P3.tif", tmp_path / "o.h5ad", tiny_run, settings)
    assert state(tmp_path) == before


@pytest.mark.parametrize("of", ["slide", "units", "weights"])
def test_no_prediction_replaces_what_it_reads(tiny_run, phantom, tmp_path, of):
    slide, units = phantom / "slides" / "P3.tif", phantom / "units" / "P3_spot55.h5ad"
    out = tmp_path / "o.h5ad"
    os.link({"slide": slide, "units": units, "weights": tiny_run / "models" / "model.pt"}[of], out)
    before = out.read_bytes()
    with pytest.raises(InputError, match="which this command reads"):
        workflows.predict(slide, out, tiny_run, {"units": str(units)})
    assert out.read_bytes() == before


def test_outputs_of_ours_are_replaced_and_those_of_others_are_not(tiny_run, phantom, tmp_path):
    slide = phantom / "slides" / "P3.tif"
    asked = {"map": str(tmp_path / "m.zarr"), "nifti": str(tmp_path / "n.nii.gz"), "bin_um": 110.0}
    for _ in range(2):
        workflows.predict(slide, tmp_path / "o.h5ad", tiny_run, asked)
    for name, key in (("f.h5ad", None), ("f.zarr", "map"), ("f.nii.gz", "nifti")):
        path = foreign(tmp_path, name)
        before = state(tmp_path)
        with pytest.raises(InputError, match="does not recognise"):
            workflows.predict(slide, None if key else path, tiny_run, {key: str(path)} if key else {"bin_um": 110.0})
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
        lambda: workflows.train(phantom, tmp_path),
        lambda: audit(prediction, units, tmp_path, unit_of_x="counts", min_total=0),
    ):
        with pytest.raises(InputError, match="which PixNet does not recognise"):
            call()
    assert state(tmp_path) == before


def test_an_earlier_versions_work_folder_is_gone_on_with(tmp_path):
    (tmp_path / "plan.json").write_text('{"tiles": []}')
    claim(tmp_path, "work", None, {"plan.json": "tiles"})
    assert (tmp_path / MARKER).is_file()


def test_a_work_folder_that_is_a_run_keeps_its_model(tiny_run, phantom, tmp_path):
    run = tmp_path / "P3"
    shutil.copytree(tiny_run, run)
    (run / "train.log").write_text("mine")
    before = state(tmp_path)
    assert MARKER in os.listdir(run)
    with pytest.raises(InputError, match="which PixNet does not recognise"):
        workflows.predict(
            phantom / "slides" / "P3.tif", tmp_path / "o.h5ad", run, {"bin_um": 55.0, "work_dir": str(tmp_path)}
        )
    assert state(tmp_path) == before


def test_a_run_folder_with_a_picture_gets_no_phantom(tiny_run, tmp_path):
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides" / "P1.tif").write_bytes(b"picture")
    shutil.copy(tiny_run / MARKER, tmp_path)
    before = state(tmp_path)
    with pytest.raises(InputError, match="holds slides, which"):
        make_phantom(tmp_path, slides=3)
    assert state(tmp_path) == before


def test_what_a_user_adds_to_a_work_folder_stays(tiny_run, phantom, tmp_path):
    work = claim(tmp_path / "work" / "P3", "work")
    (work / "notes.txt").write_text("mine")
    settings = {"bin_um": 110.0, "work_dir": str(work.parent)}
    workflows.predict(phantom / "slides" / "P3.tif", tmp_path / "o.h5ad", tiny_run, settings)
    assert sorted(p.name for p in work.iterdir()) == [MARKER, "notes.txt"]


@pytest.fixture(scope="module")
def written(tiny_run, phantom, tmp_path_factory) -> Path:
    """A folder with a prediction of each form, not to be changed."""
    folder = tmp_path_factory.mktemp("written")
    slide = phantom / "slides" / "P3.tif"
    asked = {"bin_um": 110.0, "map": str(folder / "m.zarr"), "nifti": str(folder / "n.nii.gz")}
    asked["genes"] = json.loads((tiny_run / "models" / "panel.json").read_text())["genes"][:2]
    workflows.predict(slide, folder / "o.h5ad", tiny_run, asked)
    workflows.predict(slide, folder / "o.zarr", tiny_run, {"bin_um": 110.0})
    workflows.predict(slide, folder / "s.h5ad", tiny_run, {"units": str(phantom / "units" / "P3_spot55.h5ad")})
    return folder


ADDED = {
    "obs": lambda a: a.obs.insert(0, "my_leiden", "1"),
    "var": lambda a: a.var.insert(0, "means", 1.0),
    "uns": lambda a: a.uns.update(neighbors={"k": 1}),
    "obsm": lambda a: a.obsm.update(X_pca=np.ones((a.n_obs, 2))),
    "varm": lambda a: a.varm.update(PCs=np.ones((a.n_vars, 2))),
    "layers": lambda a: a.layers.update(scaled=np.asarray(a.X)),
    "obsp": lambda a: a.obsp.update(distances=np.eye(a.n_obs)),
    "varp": lambda a: a.varp.update(links=np.eye(a.n_vars)),
    "raw": lambda a: setattr(a, "raw", a.copy()),
    None: lambda a: None,
}


@pytest.mark.parametrize("what", ADDED)
@pytest.mark.parametrize("ending", [".h5ad", ".zarr"])
@pytest.mark.filterwarnings("ignore:zarr v3 autosharding")
def test_an_analysis_of_a_prediction_is_the_users(written, tmp_path, ending, what):
    path = tmp_path / f"analysis{ending}"
    adata = ad.read_h5ad(written / "o.h5ad") if ending == ".h5ad" else ad.read_zarr(written / "o.zarr")
    ADDED[what](adata)
    with ad.settings.override(zarr_write_format=3):
        adata.write_h5ad(path) if ending == ".h5ad" else adata.write_zarr(path)
    if what is None:
        check_output(path)
        return
    with pytest.raises(InputError, match="does not recognise"):
        check_output(path)


def test_a_map_to_which_labels_were_added_is_the_users(written, tmp_path):
    path = tmp_path / "m.zarr"
    shutil.copytree(written / "m.zarr", path)
    check_output(path)
    zarr.open_group(str(path)).create_group("labels")
    with pytest.raises(InputError, match="does not recognise"):
        check_output(path)


def test_an_earlier_versions_nifti_is_known_and_others_are_not(written, tmp_path):
    image = nib.load(written / "n.nii.gz")

    def saved(descrip: bytes | None = None, affine=None, shape=None) -> Path:
        values = np.asarray(image.dataobj, np.float32).reshape(shape or image.shape)
        earlier = nib.Nifti1Image(values, image.affine if affine is None else affine)
        earlier.header.set_xyzt_units("mm")
        earlier.header["descrip"] = image.header["descrip"] if descrip is None else descrip
        nib.save(earlier, tmp_path / "n.nii.gz")
        return tmp_path / "n.nii.gz"

    check_output(saved())
    shifted = image.affine.copy()
    shifted[0, 3] += shifted[0, 0] / 3
    for other in ({"descrip": b"FSL5.0"}, {"descrip": b""}, {"affine": np.eye(4) * 2}, {"affine": shifted}):
        with pytest.raises(InputError, match="does not recognise"):
            check_output(saved(**other))


def test_a_file_open_elsewhere_is_said_to_be(written, tmp_path, monkeypatch):
    path = tmp_path / "o.h5ad"
    shutil.copy(written / "o.h5ad", path)
    monkeypatch.setattr(h5py, "File", lambda *_: (_ for _ in ()).throw(BlockingIOError(11, "unable to lock file")))
    with pytest.raises(InputError, match="is open in another program"):
        check_output(path)


def test_each_size_of_bins_is_checked_by_its_own_name(tiny_run, phantom, tmp_path):
    foreign(tmp_path, "multi.h5ad")
    other = foreign(tmp_path, "multi_110um.h5ad")
    before = state(tmp_path)
    call = phantom / "slides" / "P3.tif", tmp_path / "multi.h5ad", tiny_run, {"bin_um": [200.0, 110.0]}
    with pytest.raises(InputError, match=r"multi_110um\.h5ad as its own"):
        workflows.predict(*call)
    assert state(tmp_path) == before
    other.unlink()
    for _ in range(2):
        assert [p.name for p in workflows.predict(*call)] == ["multi_200um.h5ad", "multi_110um.h5ad"]
    assert (tmp_path / "multi.h5ad").read_bytes() == before["multi.h5ad"]


def test_a_model_handed_over_as_three_files_is_scored_reported_and_exported_twice(tiny_run, phantom, tmp_path):
    for name in ("configs/model.json", "models/model.pt", "models/panel.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(tiny_run / name, tmp_path / name)
    for _ in range(2):
        workflows.evaluate(tmp_path, phantom)
        write_report(tmp_path)
        write_report(tmp_path, tmp_path / "r.html")
        export_bundle(tmp_path, tmp_path / "m.zip")
    with pytest.raises(InputError, match=r"end its name in \.html"):
        write_report(tmp_path, tmp_path / "r.htm")
    assert not (tmp_path / "r.htm").exists()


def test_a_phantom_is_made_again_and_so_is_an_earlier_versions(tmp_path):
    asked = {"slides": 3, "size_um": 300.0, "mpp": 2.0, "genes": 5, "units": "spot:55:60", "truth": "none"}
    for _ in range(2):
        make_phantom(tmp_path, **asked)
    (tmp_path / MARKER).unlink()
    make_phantom(tmp_path, **asked)
    assert (tmp_path / MARKER).is_file()


def test_a_data_set_that_a_user_described_is_not_taken_for_a_phantom(phantom, tmp_path):
    shutil.copytree(phantom, tmp_path, dirs_exist_ok=True)
    (tmp_path / MARKER).unlink()
    manifest = json.loads((tmp_path / "dataset.json").read_text())
    (tmp_path / "dataset.json").write_text(json.dumps({**manifest, "name": "mine"}))
    before = state(tmp_path)
    with pytest.raises(InputError, match="does not recognise"):
        make_phantom(tmp_path, slides=3)
    assert state(tmp_path) == before


def test_no_data_set_is_prepared_into_its_source(tmp_path):
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(InputError, match="is the folder that this command reads"):
        prepare(tmp_path, tmp_path / ".", source="her2st")
    assert os.listdir(tmp_path) == ["notes"]


def test_folders_are_written_again(tiny_run, phantom, tiny, written, tmp_path):
    for _ in range(2):
        workflows.train(phantom, tmp_path / "run", settings=tiny)
        audit(written / "s.h5ad", phantom / "units" / "P3_spot55.h5ad", tmp_path / "audit", min_total=0)


def test_a_standard_error_is_replaced(written, tmp_path):
    adata = ad.read_h5ad(written / "s.h5ad")
    adata.layers["standard_error"] = np.asarray(adata.X)
    adata.write_h5ad(tmp_path / "o.h5ad")
    check_output(tmp_path / "o.h5ad")


def test_a_demo_goes_on(tmp_path, monkeypatch):
    def stop(*_, **__):
        (tmp_path / "run").mkdir(exist_ok=True)
        raise KeyboardInterrupt

    monkeypatch.setattr("bundle.workflows.demo.make_phantom", lambda out, **_: out.mkdir(exist_ok=True))
    monkeypatch.setattr("bundle.workflows.demo.train", stop)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            demo(tmp_path)


def test_a_users_folder_among_tuned_runs_stays(tiny_run, tmp_path):
    shutil.copytree(tiny_run, tmp_path, dirs_exist_ok=True)
    (tmp_path / "tuned" / "0001").mkdir(parents=True)
    (tmp_path / "tuned" / "0001" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds notes\.txt, which"):
        fine_tune(tmp_path, [], {})
    assert (tmp_path / "tuned" / "0001" / "notes.txt").read_text() == "mine"
