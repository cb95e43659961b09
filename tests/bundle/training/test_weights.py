"""Damaged weights and files that hold no weights are refused before anything is computed with them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from torch import nn

from bundle import config, workflows
from bundle.data.manifest import read_split
from bundle.errors import InputError
from bundle.integrations.monai_label.models import fine_tune
from bundle.training.checkpoint import SaveCheckpoint
from bundle.training.weights import LoadCheckpoint, load_weights, read_weights
from bundle.workflows.load_network import load_network


def overwrite(path: Path, place: float = 0.5) -> None:
    """4 KiB of other bytes, so that the archive's directory stays whole."""
    data = bytearray(path.read_bytes())
    at = int(len(data) * place)
    data[at : at + 4096] = np.random.default_rng(3).integers(0, 255, len(data[at : at + 4096]), np.uint8).tobytes()
    path.write_bytes(data)


@pytest.fixture
def network() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 3))


def test_weights_come_back_as_they_were(network, tmp_path):
    torch.save(network.state_dict(), tmp_path / "model.pt")
    other = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 3))
    assert load_weights(other, tmp_path / "model.pt") is other
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("place", np.linspace(0.05, 0.9, 8))
def test_damage_is_found_wherever_it_is(network, tmp_path, place: float):
    torch.save(network.state_dict(), tmp_path / "model.pt")
    before = read_weights(tmp_path / "model.pt")
    overwrite(tmp_path / "model.pt", place)
    with pytest.raises(InputError, match=r"model\.pt is (damaged|cut short).*Copy it again"):
        read_weights(tmp_path / "model.pt")
    assert before.keys() == network.state_dict().keys()


class _Trap:
    def __reduce__(self) -> tuple:
        return (print, ("executed",))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda state: _Trap(), "does not open as weights alone"),
        (lambda state: nn.Linear(2, 2), "does not open as weights alone"),
        (lambda state: {"network": state}, "holds no weights"),
        (lambda state: list(state.values()), "holds no weights"),
        (lambda state: {**state, "0.weight": state["0.weight"] * np.nan}, "0.weight holds values that are not finite"),
        (lambda state: {**state, "1.bias": state["1.bias"] + np.inf}, "1.bias holds values that are not finite"),
        (lambda state: {**state, "0.weight": torch.zeros(2, 64)}, r"0.weight has shape \(2, 64\)"),
        (lambda state: {k: v for k, v in state.items() if k != "1.bias"}, "it lacks 1.bias"),
        (lambda state: {**state, "2.bias": torch.zeros(1)}, "it holds 2.bias, which the network lacks"),
    ],
)
def test_what_is_no_weights_of_this_network_is_refused(network, tmp_path, capsys, content: Callable, said: str):
    torch.save(content(network.state_dict()), tmp_path / "model.pt")
    with pytest.raises(InputError, match=said):
        load_weights(network, tmp_path / "model.pt")
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"no weights at all", b"\x80\x04."])
def test_other_files_are_refused(network, tmp_path, content: bytes):
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(InputError, match="cut short or holds no weights"):
        load_weights(network, tmp_path / "model.pt")


def test_a_checkpoint_is_checked_before_training_goes_on(network, tmp_path):
    path, trainer = tmp_path / "last.pt", Engine(lambda engine, batch: None)
    objects = {"network": network, "optimizer": torch.optim.AdamW(network.parameters())}
    SaveCheckpoint(str(path), objects)(trainer)
    LoadCheckpoint(str(path), objects)(trainer)
    with pytest.raises(InputError, match=r"cannot go on from .*last\.pt \(it lacks best_model\)"):
        LoadCheckpoint(str(path), {**objects, "best_model": network})(trainer)
    with pytest.raises(InputError, match="cannot go on from"):
        LoadCheckpoint(str(path), {**objects, "network": nn.Linear(2, 2)})(trainer)
    overwrite(path)
    with pytest.raises(InputError, match=r"last\.pt is damaged"):
        LoadCheckpoint(str(path), objects)(trainer)


@pytest.fixture
def damaged_run(tiny_run, tmp_path) -> Path:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    overwrite(run / "models" / "model.pt", 0.6)
    return run


def test_no_command_uses_damaged_weights(damaged_run, phantom, tmp_path):
    slide, out = read_split(phantom, "test")[0]["image"], tmp_path / "out.h5ad"
    before = sorted(damaged_run.rglob("*"))
    for use in (
        lambda: workflows.predict(slide, out, damaged_run, {"bin_um": 55.0}),
        lambda: workflows.evaluate(damaged_run),
        lambda: load_network(damaged_run),
    ):
        with pytest.raises(InputError, match=r"model\.pt is damaged"):
            use()
    assert not out.exists()
    assert sorted(damaged_run.rglob("*")) == before


@pytest.mark.parametrize("name", ["inference", "evaluate"])
def test_nor_does_the_plain_bundle(damaged_run, phantom, tmp_path, name: str):
    run_id, model = {"inference": "inferring", "evaluate": "evaluating"}[name], damaged_run / "configs" / "model.json"
    keys = {"model_dir": str(damaged_run / "models"), "dataset_dir": str(phantom), "output_dir": str(tmp_path / "o")}
    if name == "inference":
        keys |= {"slides": read_split(phantom, "test")[0]["image"], "bin_um": 55.0, "output": str(tmp_path / "o.h5ad")}
    with pytest.raises(InputError, match=r"model\.pt is damaged"):
        config.run_config(run_id, [config.bundle_root() / "configs" / f"{name}.json", model], keys)
    assert not list(tmp_path.rglob("*.h5ad"))


def test_fine_tuning_does_not_start_from_damaged_weights(damaged_run, phantom):
    with pytest.raises(InputError, match=r"model\.pt is damaged"):
        fine_tune(damaged_run, read_split(phantom, "training")[:1], {"max_epochs": 1})
    assert not (damaged_run / "tuned" / "0001" / "models" / "model.pt").exists()


def test_the_configurations_check_what_they_load():
    for name in ("train", "evaluate", "inference"):
        text = (config.bundle_root() / "configs" / f"{name}.json").read_text()
        assert '"bundle.LoadCheckpoint"' in text
    start = json.loads((config.bundle_root() / "configs" / "fine_tune.json").read_text())["head_start"]
    assert start["_target_"] == "bundle.load_weights"
