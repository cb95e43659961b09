"""A stranger's files run nothing: whatever they hold, a marker that they would write never appears."""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import io
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
from ignite.engine import Engine

import networks
from bundle import config, workflows
from bundle.cli.main import main
from bundle.config import trust
from bundle.config.config_file import read_config
from bundle.data.panel import load_panel
from bundle.errors import InputError
from bundle.inference.provenance import Provenance
from bundle.integrations import bundle_zip as archive
from bundle.integrations.monai_label.infer import infer
from bundle.integrations.monai_label.models import fine_tune
from bundle.integrations.monai_label.request import read_request
from bundle.integrations.monai_label.studies import studies_with_units
from bundle.report.run import read_run
from bundle.training.run_folder import RunFolder

ROOT = Path(__file__).parents[3]
MARK = "$__import__('pathlib').Path({!r}).write_text('ran')"
#: To a model's description, given an expression that leaves the marker and a file that holds it, what a stranger adds.
HOSTILE: dict[str, Callable[[dict[str, Any], str, str], object]] = {
    "expression": lambda c, code, file: c.update(n_programs=f"{code} and 32"),
    "expression on a new line": lambda c, code, file: c.update(n_programs=f"$\n{code[1:]}"),
    "nested list": lambda c, code, file: c["network_def"].update(decoder_channels=[[[code]]]),
    "numbers": lambda c, code, file: c["intensity"].update(std=[1, 1, code]),
    "target": lambda c, code, file: c["network_def"].update(encoder={"_target_": "builtins.eval", "source": code[1:]}),
    "another target": lambda c, code, file: c["network_def"].update(fusion={"_target_": "os.system", "command": "x"}),
    "target worked out": lambda c, code, file: c["network_def"].update(_target_=code),
    "target of a target": lambda c, code, file: c["network_def"].update(_target_={"_target_": "networks.PixNet"}),
    "target referred to": lambda c, code, file: c["network_def"].update(_target_="@head"),
    "disabled": lambda c, code, file: c["network_def"]["encoder"].update(_disabled_=code),
    "requires": lambda c, code, file: c["network_def"].update(_requires_=[code]),
    "mode": lambda c, code, file: c["network_def"].update(_mode_="debug"),
    "debug": lambda c, code, file: c["network_def"].update(_debug_=True),
    "imports": lambda c, code, file: c.update(imports=["$import this"]),
    "more imports": lambda c, code, file: c.update({"+imports": [code]}),
    "initialize": lambda c, code, file: c.update(initialize=[code]),
    "handlers": lambda c, code, file: c.update(handlers=[]),
    "a path of ours": lambda c, code, file: c.update(work_dir="elsewhere"),
    "key of a key": lambda c, code, file: c.update({"network_def#fusion": code}),
    "key with signs": lambda c, code, file: c["network_def"].update({code: 1}),
    "copy of a file": lambda c, code, file: c.update(n_programs=f"%{file}::n_programs"),
    "copy within": lambda c, code, file: c.update(n_programs="%initialize"),
    "no literal": lambda c, code, file: c.update(head="$'@head'"),
}


@pytest.fixture
def stranger(tiny_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_run, tmp_path / "stranger"))


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "MARKER"
    yield path
    assert not path.exists(), "it ran"


def said(*arguments: object) -> str:
    """What a refused command says."""
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        status = main([str(a) for a in arguments])
    assert status == 2, errors.getvalue()
    (line,) = errors.getvalue().splitlines()
    return line


def spoil(run: Path, edit: Callable[[dict[str, Any], str, str], object], marker: Path) -> None:
    code = MARK.format(str(marker))
    file = run / "configs" / "more.json"
    file.write_text(json.dumps({"n_programs": code}))
    for name in ("model", "recipe"):
        path = run / "configs" / f"{name}.json"
        content = json.loads(path.read_text())
        edit(content, code, str(file))
        path.write_text(json.dumps(content))


@pytest.mark.parametrize("hostile", HOSTILE)
def test_no_command_runs_a_strangers_model(hostile: str, stranger, phantom, tmp_path, marker):
    spoil(stranger, HOSTILE[hostile], marker)
    slide, out = phantom / "slides" / "P3.tif", tmp_path / "out"
    cohort = tmp_path / "cohort.csv"
    cohort.write_text(f"slide\n{slide}\n")
    recipe = stranger / "configs" / "recipe.json"
    fine = ROOT / "configs" / "fine_tune.json"
    for command in (
        ("predict", slide, tmp_path / "o.h5ad", "--model", stranger, "--bin-um", 100),
        ("predict", slide, tmp_path / "o.h5ad", "--model", stranger, "--bin-um", 100, "--standard-error"),
        ("predict", cohort, out, "--model", stranger, "--bin-um", 100),
        ("evaluate", stranger, "--dataset", phantom),
        ("export", stranger, tmp_path / "m.onnx"),
        ("export-bundle", stranger, tmp_path / "m.zip"),
        ("train", phantom, out, "--config", recipe, "--config", fine, "--set", f"start_from={stranger}"),
    ):
        assert "give --trust" in said(*command)
    assert not out.exists()


def test_nor_does_the_label_server(stranger, phantom, tmp_path, marker):
    studies = tmp_path / "studies"
    studies.mkdir()
    shutil.copy(phantom / "slides" / "P3.tif", studies)
    shutil.copy(phantom / "units" / "P3_spot55.h5ad", studies / "P3.h5ad")
    request = read_request({}, load_panel(stranger / "models" / "panel.json"))
    spoil(stranger, HOSTILE["expression"], marker)
    with pytest.raises(InputError, match="--conf trust true"):
        infer(studies / "P3.tif", stranger, request)
    with pytest.raises(InputError, match="--conf trust true"):
        fine_tune(stranger, studies_with_units(studies), {"max_epochs": 1})


def test_a_model_that_is_trusted_runs(stranger, tmp_path):
    """So that what the tests above look for would be seen."""
    marker = tmp_path / "RAN"
    spoil(stranger, HOSTILE["expression"], marker)
    assert main(["export-bundle", str(stranger), str(tmp_path / "m.zip"), "--trust"]) == 0
    assert marker.exists()


def test_the_sentence_names_the_key_and_what_it_would_run(stranger, tmp_path, marker):
    spoil(stranger, HOSTILE["another target"], marker)
    line = said("export-bundle", stranger, tmp_path / "m.zip")
    assert 'model.json: "network_def#fusion#_target_" would run os.system.' in line


def test_a_nest_without_end_is_refused(stranger, tmp_path):
    for depth in (400, 100_000):
        (stranger / "configs" / "model.json").write_text('{"head": ' + "[" * depth + "]" * depth + "}")
        assert "model.json" in said("export-bundle", stranger, tmp_path / "m.zip")


def test_pixnets_own_models_need_no_trust():
    base = json.loads((ROOT / "configs" / "train.json").read_text())
    keys = (*trust.MODEL_KEYS, *trust.TRAINING_KEYS)
    for path in (ROOT / "configs").glob("*.json"):
        if path.name == "metadata.json" or "evaluate" in path.name or "inference" in path.name:
            continue
        merged = config.merge_config([ROOT / "configs" / "train.json", path], {})
        assert trust.find_untrusted({key: merged[key] for key in keys}) is None, path.name
    assert base.keys() >= set(keys)
    classes = {name for name in networks.__all__ if isinstance(getattr(networks, name), type)}
    assert {target.removeprefix("networks.") for target in trust._TARGETS} <= classes


# Lists of genes, panels -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", ["$", "@", "%"])
def test_genes_are_names_whatever_they_look_like(sign: str, tiny_run, phantom, tmp_path, marker):
    name = MARK.format(str(marker)) if sign == "$" else f"{sign}initialize"
    listed = tmp_path / "genes.txt"
    listed.write_text(f'"{name}"\n')
    theirs = tmp_path / "panel.json"
    panel = json.loads((tiny_run / "models" / "panel.json").read_text())
    theirs.write_text(json.dumps({**panel, "genes": [name, *panel["genes"][1:]]}))
    slide = phantom / "slides" / "P3.tif"
    for genes in (listed, theirs, *([] if "/" in name else [name])):
        line = said("predict", slide, tmp_path / "o.h5ad", "--model", tiny_run, "--bin-um", 100, "--genes", genes)
        assert f"does not predict {name.split(',')[0]}" in line


PANELS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "genes that are numbers": (lambda p: p["genes"].__setitem__(0, 3), '"genes#0" is 3; it must be a name'),
    "genes that are code": (lambda p: p["genes"].__setitem__(0, {"_target_": "os.system"}), '"genes#0" is'),
    "genes of two lines": (lambda p: p["genes"].__setitem__(0, "a\nb"), '"genes#0" is'),
    "no genes": (lambda p: p.update(genes=[]), '"genes" is []'),
    "genes as text": (lambda p: p.update(genes="ERBB2"), "a list of genes' names"),
    "a gene twice": (lambda p: p["genes"].__setitem__(1, p["genes"][0]), "names a gene twice"),
    "fewer means": (lambda p: p["mean"].pop(), "29 means"),
    "a mean of text": (lambda p: p["mean"].__setitem__(0, "1"), '"mean#0"'),
    "a mean without end": (lambda p: p["mean"].__setitem__(0, float("inf")), "Infinity"),
    "stds of nothing": (lambda p: p.update(std=None), '"std" is null'),
    "a std of 0": (lambda p: p["std"].__setitem__(2, 0), '"std#2" is 0; it must be a number above 0'),
    "no panels": (lambda p: p.update(panels={}), '"panels" is {}'),
    "panels as a list": (lambda p: p.update(panels=[]), "named lists of genes"),
    "sizes of text": (lambda p: p.update(unit_sizes_um=["a"]), '"unit_sizes_um#0"'),
    "training as text": (lambda p: p.update(training=["P1"]), "a slide's section and patient"),
    "a slide without patient": (lambda p: p["training"][0].pop("patient"), 'lacks "training#0#patient"'),
    "no training": (lambda p: p.pop("training"), 'lacks "training"'),
}


@pytest.mark.parametrize("fault", PANELS)
def test_a_damaged_panel_is_reported_in_one_sentence(fault: str, tiny_run, tmp_path):
    edit, says = PANELS[fault]
    panel = json.loads((tiny_run / "models" / "panel.json").read_text())
    edit(panel)
    path = tmp_path / "panel.json"
    path.write_text(json.dumps(panel))
    with pytest.raises(InputError, match=re.escape(says)) as raised:
        load_panel(path)
    assert "panel.json" in str(raised.value)


@pytest.mark.parametrize("content", [b"[]", b"{", b"null", b"\xff\xfe{", b"[" * 100_000])
def test_a_panel_that_is_none(tmp_path, content: bytes):
    (tmp_path / "panel.json").write_bytes(content)
    with pytest.raises(InputError, match=r"panel\.json"):
        load_panel(tmp_path / "panel.json")


EVALUATIONS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "units as text": (lambda e: e["scales"]["native"].update(units="many"), '"scales#native#units" is "many"'),
    "no error": (lambda e: e["scales"]["native"].pop("MSE"), 'lacks "scales#native#MSE"'),
    "a figure of text": (lambda e: e["scales"]["native"].update({"PCC@M": "high"}), '"scales#native#PCC@M" is "high"'),
    "scales as a list": (lambda e: e.update(scales=[1]), '"scales" is [1]'),
    "slides as a list": (lambda e: e.update(per_slide=["P2"]), "slides and their figures"),
    "a slide of nothing": (lambda e: e["per_slide"].update(P2={}), '"per_slide#P2" is {}'),
    "patients as text": (lambda e: e.update(patients="two"), '"patients" is "two"; it must be a whole number'),
}


@pytest.mark.parametrize("fault", EVALUATIONS)
def test_damaged_figures_are_reported_in_one_sentence(fault: str, stranger):
    edit, says = EVALUATIONS[fault]
    path = stranger / "evaluation" / "validation.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=re.escape(says)) as raised:
        read_run(stranger)
    assert "validation.json" in str(raised.value)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("validation.json", "{}"),
        ("validation.json", '{"patients": "two", "same_patient": false}'),
        ("validation_genes.csv", "no,genes\n1,2\n"),
        ("validation_genes.csv", "gene,pcc_native\nGENE001,high\nGENE002,1\n"),
        ("validation_genes.csv", ""),
    ],
)
def test_what_predictions_repeat_of_a_run_is_checked(file: str, content: str, stranger):
    (stranger / "evaluation" / file).write_text(content)
    panel = load_panel(stranger / "models" / "panel.json")
    header = Provenance(panel, 2.0, 8.0, stranger / "models" / "model.pt")
    with pytest.raises(InputError, match=re.escape(file)):
        header.trust([*panel.genes[:3], "GENE001"])


# Paths and names ------------------------------------------------------------------------------------------------------


def test_names_of_files_and_folders_may_hold_signs(phantom, tiny, tmp_path, marker):
    """The whole way, from the data set to a prediction, against the same under plain names."""
    strange = MARK.format(marker.name).replace("/", "")  # a name, so the marker would be beside
    data, run = tmp_path / "$d#1::x" / "@a", tmp_path / "%run"
    data.parent.mkdir()
    shutil.copytree(phantom, data)
    workflows.train(data, run, settings=tiny)
    plain = tmp_path / "plain"
    shutil.copytree(run, plain)
    figures = [
        json.loads(workflows.evaluate(folder, name=name).read_text()) for folder, name in ((run, "@v1.2"), (plain, "v"))
    ]
    assert figures[0]["scales"] == figures[1]["scales"]
    slide, gene = data / "slides" / "50%#1.tif", load_panel(run / "models" / "panel.json").genes[0]
    (data / "slides" / "P3.tif").rename(slide)
    asked = {"bin_um": 100.0, "genes": [gene]}
    workflows.predict(slide, tmp_path / "@x" / f"{strange[:60]}.h5ad", run, asked)
    workflows.predict(phantom / "slides" / "P3.tif", tmp_path / "plain.h5ad", plain, asked)
    got = ad.read_h5ad(tmp_path / "@x" / f"{strange[:60]}.h5ad")
    want = ad.read_h5ad(tmp_path / "plain.h5ad")
    np.testing.assert_array_equal(got.X, want.X)
    assert list(got.uns["spatial"]) == ["50%#1"]


def test_a_panels_own_genes_may_hold_signs(stranger, phantom, tmp_path, marker):
    path = stranger / "models" / "panel.json"
    code = MARK.format(str(marker))
    names = json.loads(path.read_text())["genes"]
    text = path.read_text().replace(json.dumps(names[0]), json.dumps(code)).replace(f'"{names[1]}"', '"@head"')
    path.write_text(text)
    workflows.predict(
        phantom / "slides" / "P3.tif", tmp_path / "o.h5ad", stranger, {"bin_um": 100.0, "genes": [code, "@head"]}
    )
    assert list(ad.read_h5ad(tmp_path / "o.h5ad").var_names) == [code, "@head"]


@pytest.mark.parametrize("name", ["../x", "a/b", "a\\b", "", ".", ".hidden", "/abs", "a\nb", "x.h5ad", "n" * 300])
def test_a_name_that_leads_elsewhere_is_refused(name: str, tiny_run, phantom, tmp_path):
    before = sorted(tiny_run.rglob("*"))
    assert "the name of a file" in said("evaluate", tiny_run, "--name", name)
    assert "the name of a file" in said("evaluate", tiny_run, "--set", f"name={name}")
    data = tmp_path / "data"
    shutil.copytree(phantom, data)
    manifest = json.loads((data / "dataset.json").read_text())
    manifest["test"][0]["section"] = name
    (data / "dataset.json").write_text(json.dumps(manifest))
    assert "the name of a file" in said("evaluate", tiny_run, "--dataset", data)
    assert sorted(tiny_run.rglob("*")) == before


# Files that a model opens, recipes that were copied -------------------------------------------------------------------

BACKBONE = {"_target_": "networks.BackboneEncoder"}
OPENED: dict[str, tuple[dict[str, Any], str]] = {
    "a folder": ({**BACKBONE, "folder": "/etc"}, "open /etc, outside"),
    "a folder by another": ({**BACKBONE, "folder": "{run}/../secret"}, "open"),
    "a folder as data": ({**BACKBONE, "folder": "$'/etc'"}, "open /etc, outside"),
    "a folder referred to": ({**BACKBONE, "folder": "@head"}, "open @head"),
    "a folder by parts": ({**BACKBONE, "folder": ["/etc"]}, "open"),
    "a folder through a link": ({**BACKBONE, "folder": "{run}/link"}, "open"),
    "weights": ({"_target_": "networks.SwinEncoder", "weights": "/etc/passwd"}, "open /etc/passwd, outside"),
}


@pytest.mark.parametrize("case", OPENED)
def test_a_model_opens_no_file_of_the_users(case: str, stranger, tmp_path):
    encoder, says = OPENED[case]
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "config.json").write_text('{"model_type": "secret"}')
    (stranger / "link").symlink_to(tmp_path / "secret")
    path = stranger / "configs" / "model.json"
    content = json.loads(path.read_text())
    content["network_def"]["encoder"] = json.loads(json.dumps(encoder).replace("{run}", str(stranger)))
    path.write_text(json.dumps(content))
    line = said("export-bundle", stranger, tmp_path / "m.zip")
    assert says in line
    assert "give --trust" in line


@pytest.mark.parametrize("folder", ["{run}/models/backbone", "$@model_dir + '/backbone'"])
def test_a_model_may_open_what_is_of_its_run(folder: str, stranger):
    content = {"network_def": {"encoder": {**BACKBONE, "folder": folder.format(run=stranger)}}}
    assert trust.find_untrusted(content, stranger) is None


def test_a_run_keeps_what_describes_its_backbone(stranger, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "dinov2"}')
    panel = load_panel(stranger / "models" / "panel.json")
    for start, folder in ((None, str(tmp_path)), (stranger, "$@start_from + '/models/backbone'")):
        out = stranger if start is None else tmp_path / "tuned"
        handler = RunFolder(str(out), panel, {})
        handler.config = {"dataset_dir": "data", "network_def": {"encoder": {**BACKBONE, "folder": folder}}}
        handler.config["start_from"] = str(start)
        handler(Engine(lambda *_: None))
        handler._release(Engine(lambda *_: None))
        assert (out / "models" / "backbone" / "config.json").read_bytes() == b'{"model_type": "dinov2"}'
        model, recipe = (json.loads((out / "configs" / f"{name}.json").read_text()) for name in ("model", "recipe"))
        kept = [c["network_def"]["encoder"] for c in (model, recipe)]
        assert [k["folder"] for k in kept] == ["$@model_dir + '/backbone'", "$@start_from + '/models/backbone'"]
        assert not any(k["pretrained"] for k in kept)
        assert trust.find_untrusted(model) is trust.find_untrusted(recipe) is None


def test_a_strangers_recipe_is_checked_wherever_it_lies(stranger, phantom, tmp_path, marker):
    spoil(stranger, HOSTILE["expression"], marker)
    recipe = shutil.copy(stranger / "configs" / "recipe.json", tmp_path / "copied.json")
    fine = ROOT / "configs" / "fine_tune.json"
    for asked in (
        ("--config", fine, "--set", f"start_from={stranger}"),
        ("--set", f"start_from={stranger}"),
        ("--config", fine),
    ):
        assert "give --trust" in said("train", phantom, tmp_path / "out", "--config", recipe, *asked)
    assert not (tmp_path / "out").exists()


def test_numbers_need_no_trust(tmp_path):
    own = tmp_path / "mine.json"
    own.write_text('{"max_epochs": 3, "learning_rate": 0.1, "train#dataset#seed": 2, "batch_size": 1, "panel": null}')
    trust.check_override(read_config(own))


# Links ----------------------------------------------------------------------------------------------------------------

LINKS = {
    "evaluation": "folder",
    "predictions": "folder",
    "models/converted": "folder",
    "checkpoints": "folder",
    "tensorboard": "nothing",
    "configs": "folder",
    "evaluation/standard_error.json": "file",
    "evaluation/.test.json.lock": "nothing",
    ".pixnet.json": "nothing",
}


@pytest.mark.parametrize("name", LINKS)
def test_a_run_that_would_write_elsewhere_is_refused(name: str, stranger, phantom, tmp_path):
    path, victim = stranger / name, tmp_path / "victim"
    if path.is_dir():
        shutil.move(path, victim)
    elif LINKS[name] == "folder":
        victim.mkdir()
    elif LINKS[name] == "file":
        victim.write_text("{}")
    path.unlink(missing_ok=True)
    path.symlink_to(victim)
    before = {p: p.lstat().st_mtime_ns for p in tmp_path.rglob("*")}
    for command in (
        ("evaluate", stranger, "--dataset", phantom),
        ("predict", phantom / "slides" / "P3.tif", tmp_path / "o.h5ad", "--model", stranger, "--bin-um", 100),
        ("train", phantom, stranger),
    ):
        assert "is a link to" in said(*command)
    assert {p: p.lstat().st_mtime_ns for p in tmp_path.rglob("*")} == before


def test_a_run_may_be_a_link_and_its_weights_too(stranger, tmp_path):
    blob = tmp_path / "blob"
    weights = stranger / "models" / "model.pt"
    shutil.move(weights, blob)
    weights.symlink_to(blob)
    (stranger / "evaluation" / "inside.json").symlink_to(stranger / "evaluation" / "validation.json")
    (tmp_path / "link").symlink_to(stranger)
    assert workflows.trained_run(tmp_path / "link")[0] == stranger


# The exported bundle --------------------------------------------------------------------------------------------------


def test_an_exported_bundle_holds_no_foreign_file(tmp_path, monkeypatch):
    root, outside = tmp_path / "root", tmp_path / "secret.py"
    outside.write_text("SECRET")
    for room in ("bundle", "configs", "docs", "networks", "transforms"):
        shutil.copytree(ROOT / room, root / room, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(archive, "bundle_root", lambda: root)
    want = set(archive._code())
    for name in (
        *(
            "bundle/.env",
            "bundle/.#commands.py",
            "bundle/#commands.py#",
            "bundle/workflows/training.py~",
            "bundle/commands copy.py",
        ),
        *("bundle/scratch/notes.py", "configs/secrets.json", "configs/.train.json", "docs/notes.md", "docs/key.txt"),
    ):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("SECRET")
    (root / "bundle" / "linked.py").symlink_to(outside)
    (root / "networks" / "linked").symlink_to(tmp_path)
    (tmp_path / "__init__.py").write_text("SECRET")
    (root / "docs" / "data_license.txt").unlink()
    (root / "docs" / "data_license.txt").symlink_to(outside)
    files = archive._code()
    assert set(files) == want - {"docs/data_license.txt"}
    assert not any(b"SECRET" in content for content in files.values())


@pytest.mark.parametrize("name", ["models/panel.json", "evaluation/validation.json"])
def test_a_link_out_of_the_run_is_not_followed(name: str, stranger, tmp_path):
    path = stranger / name
    shutil.move(path, tmp_path / path.name)
    path.symlink_to(tmp_path / path.name)
    assert "is a link to" in said("export-bundle", stranger, tmp_path / "m.zip")
    assert not (tmp_path / "m.zip").exists()


def test_modules_of_the_current_folder_serve_a_trusted_configuration_alone(tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text("")
    (tmp_path / "json.py").write_text("raise SystemExit('it hides the standard library')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    before = list(sys.path)
    with trust.code_in_current_folder(False):
        assert importlib.util.find_spec("only_here") is None
    with trust.code_in_current_folder(True):
        assert importlib.util.find_spec("only_here") is not None
        assert importlib.machinery.PathFinder.find_spec("json").origin == json.__file__
    assert sys.path == before
    assert importlib.util.find_spec("only_here") is None


def test_a_strangers_model_imports_nothing_from_the_current_folder(stranger, phantom, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("monai.bundle.run", lambda **_: seen.append(os.getcwd() in sys.path))
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != ""])
    monkeypatch.chdir(tmp_path)
    slide = phantom / "slides" / "P3.tif"
    for trusted in (False, True):
        workflows.predict(slide, tmp_path / "o.h5ad", stranger, {"bin_um": 16.0}, trusted)
    (tmp_path / "mine.json").write_text(json.dumps({"loss": {"_target_": "torch.nn.L1Loss"}}))
    workflows.train(phantom, tmp_path / "plain")
    workflows.train(phantom, tmp_path / "own", [tmp_path / "mine.json"])
    assert seen == [False, True, False, True]
