"""The wheel is the repository's own bundle, made of the source archive, and works where the repository is not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import anndata as ad
import numpy as np
import pytest

from bundle.cli.main import main

ROOT = Path(__file__).parents[1]
ROOMS = ("bundle", "networks", "transforms")
FILES = (
    "CHANGELOG.md",
    "CITATION.cff",
    "LICENSE",
    "MANIFEST.in",
    "Makefile",
    "README.md",
    "constraints.txt",
    "pyproject.toml",
    "setup.py",
)
VERSION = json.loads((ROOT / "configs" / "metadata.json").read_text())["version"]
#: Runs the installed console command with each list of arguments and then says where our modules came from.
CONSOLE = """
import json, sys
from importlib.metadata import entry_points
(command,) = entry_points(group="console_scripts", name="pixnet")
status = [command.load()(arguments) for arguments in json.loads(sys.argv[1])]
for name, module in list(sys.modules.items()):
    if name.removeprefix("pixnet.").split(".")[0] in ("bundle", "networks", "transforms"):
        print("from", module.__file__)
sys.exit(max(status))
"""


def _run(*command: object, **options) -> str:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The source archive, and the wheel made of it alone: offline, from a copy without leftovers of earlier builds."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for folder in (*ROOMS, "configs", "docs", "tests", "benchmarks"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in FILES:
        shutil.copy(ROOT / file, source)
    _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source)
    return out


@pytest.fixture(scope="module")
def wheel(built) -> Path:
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-index")
    _run(*pip, "--no-deps", "--target", folder, wheel)
    return folder


@pytest.fixture(scope="module")
def elsewhere(installed, tmp_path_factory) -> dict:
    """An empty folder to work in, and an environment in which the wheel is found before an editable install."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    env = {**kept, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return {"cwd": tmp_path_factory.mktemp("elsewhere"), "env": env}


def _metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


def test_the_wheel_holds_the_bundle_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    wanted = [path for room in ROOMS for kind in ("*.py", "*.pyi") for path in (ROOT / room).rglob(kind)]
    wanted += [ROOT / room / "py.typed" for room in ROOMS]
    wanted += (ROOT / "bundle" / "integrations" / "monai_label").glob("*.txt")
    wanted += [*(ROOT / "configs").glob("*.json"), ROOT / "configs" / "logging.conf"]
    wanted += [path for path in (ROOT / "docs").iterdir() if path.suffix in (".md", ".txt", ".jpg")]
    assert held == {f"pixnet/{path.relative_to(ROOT).as_posix()}" for path in wanted}


def test_the_source_archive_holds_what_builds_and_tests_it(built):
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    folders = (*ROOMS, "configs", "docs", "tests", "benchmarks")
    kinds = {".py", ".pyi", ".json", ".conf", ".md", ".txt", ".typed"}
    wanted = {p.relative_to(ROOT).as_posix() for f in folders for p in (ROOT / f).rglob("*") if p.suffix in kinds}
    assert not {*wanted, *FILES} - held
    assert not [name for name in held if "__pycache__" in name]


def test_every_place_says_the_same_version(wheel, capsys):
    about = _metadata(wheel)
    assert about["Version"] == VERSION
    assert wheel.name.startswith(f"pixnet-{VERSION}-")
    assert "version" not in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"\nversion: {VERSION}\n" in (ROOT / "CITATION.cff").read_text()
    assert (ROOT / "CHANGELOG.md").read_text().split("\n## ")[1].startswith(f"{VERSION} ")
    assert VERSION in json.loads((ROOT / "configs" / "metadata.json").read_text())["changelog"]
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"pixnet {VERSION}\n"
    assert about.get_payload().strip() == (ROOT / "README.md").read_text().strip()


def test_the_library_is_imported_from_the_wheel(installed, elsewhere):
    code = "import json, pixnet.bundle, pixnet.networks, pixnet.transforms as t\n"
    code += "from pixnet.networks import PixNet; from pixnet.transforms import SlideReader\n"
    code += "print(json.dumps([m.__file__ for m in (pixnet.bundle, pixnet.networks, t)]))"
    files = json.loads(_run(sys.executable, "-c", code, **elsewhere))
    assert [Path(f) for f in files] == [installed / "pixnet" / room / "__init__.py" for room in ROOMS]


def test_the_wheel_trains_and_predicts_from_another_folder(installed, elsewhere, phantom, tiny, tmp_path):
    override = tmp_path / "tiny.json"
    override.write_text(json.dumps(tiny))
    configs = [str(installed / "pixnet" / "configs" / "train.json"), str(override)]
    train = ("--config_file", configs, "--dataset_dir", phantom, "--output_dir", tmp_path / "run")
    _run(sys.executable, "-m", "monai.bundle", "run", "training", *train, **elsewhere)
    assert (tmp_path / "run" / "models" / "model.pt").is_file()

    out = tmp_path / "spots.h5ad"
    slide = phantom / "slides" / "P3.tif"
    predict = ("predict", slide, out, "--model", tmp_path / "run", "--spot-um", 55, "--pitch-um", 60)
    export = ("export-bundle", tmp_path / "run", tmp_path / "model.zip")
    commands = json.dumps([[str(a) for a in arguments] for arguments in (predict, export)])
    said = _run(sys.executable, "-c", CONSOLE, commands, **elsewhere)
    files = [Path(line.removeprefix("from ")) for line in said.splitlines() if line.startswith("from ")]
    assert {f.relative_to(installed / "pixnet").parts[0] for f in files} == set(ROOMS)

    adata = ad.read_h5ad(out)
    assert np.isfinite(adata.X).all()
    assert adata.uns["pixnet"]["version"] == VERSION

    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        assert archive.read("model/LICENSE") == (ROOT / "LICENSE").read_bytes()
    assert not list(elsewhere["cwd"].iterdir())
