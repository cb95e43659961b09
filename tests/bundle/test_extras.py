"""A command that needs an optional dependency names the extra before any work starts."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest

from bundle.cli.main import main

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("arguments", "module", "extra"),
    [
        (["report", "RUN"], "matplotlib", "report"),
        (["demo", "OUT"], "matplotlib", "report"),
        (["audit", "none.h5ad", "none.h5ad"], "matplotlib", "report"),
        (
            ["predict", "SLIDE", "--model", "RUN", "--nifti", "OUT.nii", "--region", "0,0,100,100"],
            "nibabel",
            "nifti",
        ),
    ],
)
def test_a_missing_library_is_named_with_its_extra(
    tiny_run, phantom, tmp_path, monkeypatch, capsys, arguments, module, extra
):
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    places = {
        "RUN": tiny_run,
        "SLIDE": phantom / "slides" / "P3.tif",
        "OUT": tmp_path / "o",
        "OUT.nii": tmp_path / "o.nii",
    }
    assert main([str(places.get(word, word)) for word in arguments]) == 2
    assert f"needs {module}, which is not installed: pip install '.[{extra}]'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_every_named_extra_exists():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    text = "".join(path.read_text() for path in (ROOT / "bundle").rglob("*.py"))
    named = re.findall(r'(?:missing_extra|require_extra)\([^)]*"([a-z-]+)"\)', text)
    assert len(named) > 5
    assert set(named) <= set(extras)
