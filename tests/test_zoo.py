"""What MONAI's model zoo checks of a bundle before it takes it, without the network: `python -m benchmarks.zoo`.

On the repository, and on the bundle that `pixnet export-bundle` writes, which is what would be handed in.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.zoo.__main__ import subjects, table
from benchmarks.zoo.checks import CHECKS, WORKFLOWS, judge
from benchmarks.zoo.subject import Subject
from bundle.config.run import run_config

pytestmark = pytest.mark.filterwarnings(
    "ignore:No hash value provided:UserWarning", "ignore::torch.jit.TracerWarning", "ignore:.*torch.jit:UserWarning"
)

#: What does not pass, on the repository and on the exported bundle.
EXCEPTIONS = {
    "preferred file: models/model.pt": ("cannot pass", "passed"),
    "version not used before": ("not run", "not run"),
    "metadata against the zoo's own file": ("not run", "not run"),
    "properties of supported apps": ("not run", "not run"),
    "ckpt_export by scripting": ("not run", "cannot pass"),
    "ckpt_export by tracing": ("not run", "passed"),
    "TensorRT": ("not run", "not run"),
    "flake8, black, isort, pytype": ("not run", "not run"),
}


@pytest.fixture(scope="module")
def both(tiny_run, phantom, tmp_path_factory) -> dict[str, Subject]:
    return subjects(tiny_run, phantom, tmp_path_factory.mktemp("zoo"))


@pytest.fixture
def spoilt(both, tmp_path) -> Subject:
    """A copy of the exported bundle, to be changed."""
    work = tmp_path / "work"
    work.mkdir()
    return replace(both["exported"], folder=shutil.copytree(both["exported"].folder, tmp_path / "bundle"), work=work)


@pytest.fixture(autouse=True)
def _no_download(monkeypatch):
    """Nothing is fetched."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a test went to the network")

    monkeypatch.setattr("socket.socket.connect", refuse)


@pytest.mark.parametrize("name", ["repository", "exported"])
@pytest.mark.parametrize("label", CHECKS)
def test_a_check_passes_or_says_why_not(both, label: str, name: str):
    outcome, remark = judge(CHECKS[label], both[name])
    assert outcome == EXCEPTIONS.get(label, ("passed", "passed"))[name == "exported"], remark
    assert outcome == "passed" or remark


def test_the_exported_bundle_trains(both):
    assert judge(WORKFLOWS["run training"], both["exported"]) == ("passed", "")


def _change(name: str, change: Callable[[dict], Any]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / "configs" / f"{name}.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return spoil


def _fill(folder: Path, value: float) -> None:
    """Weights that are all alike."""
    weights = folder / "models" / "model.pt"
    state = torch.load(weights, weights_only=True)
    torch.save({key: torch.full_like(v, value) if v.is_floating_point() else v for key, v in state.items()}, weights)


SCHEMA = "metadata against a schema (reconstructed)"


@pytest.mark.parametrize(
    ("label", "spoil", "said"),
    [
        ("necessary files: metadata.json, LICENSE", lambda f: (f / "LICENSE").unlink(), "LICENSE is missing"),
        ("preferred files: configurations, logging", lambda f: (f / "configs/logging.conf").unlink(), "logging"),
        ("model card, data licence", lambda f: (f / "docs/README.md").write_text("# Card"), "does not mention"),
        ("no file over 25 MB, no dead address", lambda f: (f / "large_files.yml").write_text(""), "addresses"),
        ("version in the changelog", _change("metadata", lambda m: m["changelog"].clear()), "changelog"),
        (SCHEMA, _change("metadata", lambda m: m.pop("copyright")), "schema"),
        (SCHEMA, _change("metadata", lambda m: m.pop("network_data_format")), "schema"),
        (SCHEMA, _change("metadata", lambda m: m["network_data_format"].pop("outputs")), "schema"),
        (SCHEMA, _change("metadata", lambda m: m["network_data_format"]["inputs"]["image"].pop("dtype")), "schema"),
        (
            SCHEMA,
            _change("metadata", lambda m: m["network_data_format"]["outputs"]["pred"].update(num_channels="9")),
            "schema",
        ),
        (SCHEMA, _change("metadata", lambda m: m.update(supported_apps=["monailabel"])), "schema"),
        (SCHEMA, _change("metadata", lambda m: m["required_packages_version"].update(scipy=">=1.13")), "schema"),
        (
            "requirements, pinned and installed",
            _change("metadata", lambda m: m["required_packages_version"].update(scipy="1.0.0")),
            "constraints.txt",
        ),
        ("names of keys", _change("train", lambda c: c["validate"].pop("handlers")), "no validate#handlers"),
        ("no path of one machine in configs", _change("train", lambda c: c.update(dataset_dir="/home/me")), "/home/me"),
        ("properties of evaluate.json", _change("evaluate", lambda c: c.pop("evaluator")), "evaluator"),
        (
            "verify_net_in_out",
            _change("metadata", lambda m: m["network_data_format"]["outputs"]["pred"].update(num_channels=9)),
            "output channel number",
        ),
        ("properties of inference.json", lambda f: (f / "models/panel.json").unlink(), "load_panel"),
        ("properties of evaluate.json", lambda f: (f / "models/panel.json").unlink(), "load_panel"),
        ("ckpt_export by tracing", lambda f: _fill(f, float("nan")), "not finite"),
        ("ckpt_export by tracing", lambda f: (f / "models/model.pt").write_bytes(b"rubbish"), "Error"),
        ("ckpt_export by tracing", _change("inference", lambda c: c.update(head="programs")), "Missing key"),
        ("ckpt_export by scripting", lambda f: (f / "models/model.pt").write_bytes(b"rubbish"), "Error"),
    ],
)
def test_a_check_can_fail(spoilt, label: str, spoil: Callable[[Path], Any], said: str):
    spoil(spoilt.folder)
    outcome, remark = judge(CHECKS[label], spoilt)
    assert outcome == "failed"
    assert said in remark


@pytest.mark.parametrize("label", ["run evaluating", "run inferring"])
def test_a_run_that_ends_in_what_is_not_finite_fails(spoilt, monkeypatch, label: str):
    def here(asked: tuple[Any, ...], **_: object) -> None:
        run_id, files, options, _ = asked
        plain = {key: str(value) if isinstance(value, Path) else value for key, value in options.items()}
        run_config(run_id, files, {**plain, "bundle_root": str(spoilt.folder)})

    monkeypatch.setattr("benchmarks.zoo.running.monai_command", lambda *asked: asked)
    monkeypatch.setattr("benchmarks.zoo.running.run_monai", here)
    _fill(spoilt.folder, float("nan"))
    outcome, remark = judge(WORKFLOWS[label], spoilt)
    assert outcome == "failed"
    assert "not finite" in remark


def test_a_fault_that_is_not_the_compilers_fails_scripting(spoilt, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("PatchEmbed was not reached")

    monkeypatch.setattr("benchmarks.zoo.running.ckpt_export", refuse)
    outcome, remark = judge(CHECKS["ckpt_export by scripting"], spoilt)
    assert (outcome, remark) == ("failed", "RuntimeError: PatchEmbed was not reached")


def test_scripting_fails_where_all_that_the_compiler_refuses_is_ours(spoilt, monkeypatch):
    monkeypatch.setattr("benchmarks.zoo.running._refused", lambda _: {"PixNet": "networks"})
    assert judge(CHECKS["ckpt_export by scripting"], spoilt)[0] == "failed"


def test_a_file_too_large_for_the_zoo_is_reported(spoilt):
    with (spoilt.folder / "models" / "model.pt").open("r+b") as file:
        file.truncate(26_000_000)
    outcome, remark = judge(CHECKS["no file over 25 MB, no dead address"], spoilt)
    assert outcome == "cannot pass"
    assert "model.pt has over 25 MB" in remark


def test_the_command_lists_every_check_and_the_reasons(tiny_run, phantom, tmp_path, capsys):
    counts = table(tiny_run, phantom, tmp_path, quick=True)
    said = capsys.readouterr().out
    assert all(f"\n{label}" in said for label in CHECKS)
    assert counts["failed"] == 0
    assert sum(counts.values()) == 2 * len(CHECKS)
    assert "PatchEmbed, PatchMergingV2, SwinTransformerBlock cannot be scripted" in said
