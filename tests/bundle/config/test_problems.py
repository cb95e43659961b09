"""A configuration that cannot work gives a sentence that names the part at fault."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bundle import workflows
from bundle.config.merge import merge_config
from bundle.config.problems import config_errors
from bundle.config.root import bundle_root
from bundle.errors import InputError
from bundle.workflows.load_network import load_network

#: What is done to a model's description, and what the sentence says of it.
FAULTS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no stds": (lambda c: c["intensity"].update(std=[]), r'"intensity#std" is \[\]; it must be a list of three'),
    "two stds": (lambda c: c["intensity"].update(std=[1, 2]), r"a list of three numbers above 0"),
    "a std of 0": (
        lambda c: c["intensity"].update(std=[1, 2, 0]),
        r'"intensity#std#2" is 0; it must be a number above',
    ),
    "a mean of text": (lambda c: c["intensity"].update(mean=[1, 2, "x"]), r'"intensity#mean#2" is "x"'),
    "no mean": (lambda c: c["intensity"].pop("mean"), r'lacks "intensity#mean"'),
    "no intensity": (lambda c: c.update(intensity=None), r'"intensity" is null'),
    "mpp as text": (lambda c: c.update(mpp="two"), r'"mpp" is "two"'),
    "mpp of 0": (lambda c: c.update(mpp=0), r'"mpp" is 0'),
    "no network": (lambda c: c.update(network_def=None), r'"network_def" is null'),
    "no class": (lambda c: c["network_def"].pop("_target_"), r'lacks "network_def#_target_"'),
    "a network left out": (lambda c: c["network_def"].update(_disabled_=True), r'"network_def#_disabled_" is true'),
    "no depths": (lambda c: c["network_def"]["encoder"].update(depths=None), r"networks.SwinEncoder does not work"),
    "an argument too many": (lambda c: c["network_def"].update(more=1), r"unexpected keyword argument 'more'"),
    "an argument too few": (lambda c: c["network_def"]["ridge"].pop("encoder"), r"missing 1 required .*'encoder'"),
    "a reference to nothing": (lambda c: c["network_def"].update(fusion="@nothing"), r"`@nothing` is not defined"),
    "a circle": (lambda c: c["network_def"].update(fusion="@network_def"), r"circular references 'network_def'"),
    "a text for a network": (lambda c: c["network_def"].update(encoder="swin"), r"networks.PixNet does not work"),
    "a list of text": (lambda c: c["network_def"].update(decoder_channels="ab"), r"networks.PixNet does not work"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_model_that_cannot_be_made(fault: str, tiny_run, tmp_path):
    edit, says = FAULTS[fault]
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    path = run / "configs" / "model.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=says) as raised:
        load_network(run)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ({"loss#std": "$@panel.nothing"}, "has .@panel.nothing, which does not work .AttributeError"),
        ({"loss#std": "$1 +"}, "does not work .SyntaxError"),
        ({"loss": {"_target_": "nowhere.Loss"}}, "'nowhere.Loss'.*in the current folder"),
        ({"loss#std": "%nothing"}, "does not work .KeyError: .*nothing"),
        ({"reader": "@reader"}, "circular references 'reader'"),
        ({"panel": {"_target_": "bundle.fit_panel", "records": "@train#dataset#data", "more": 1}}, "argument 'more'"),
        ({"optimizer#lr": "fast"}, "torch.optim.AdamW does not work|must be a number"),
    ],
)
def test_a_configuration_that_cannot_run(override: dict[str, Any], says: str, phantom, tiny, tmp_path):
    path = tmp_path / "override.json"
    path.write_text(json.dumps(override))
    with pytest.raises(InputError, match=says) as raised:
        workflows.train(phantom, tmp_path / "run", [path], tiny)
    assert "\n" not in str(raised.value)


def test_our_own_faults_are_not_called_the_configurations():
    fault = RuntimeError("Failed to instantiate component 'bundle.fit_panel' with keywords: records")
    fault.__cause__ = KeyError("a fault of ours")
    for error in (fault, fault.__cause__):
        with pytest.raises(type(error)), config_errors():
            raise error


@pytest.mark.parametrize("own", [(), ("loss",)])
def test_what_fails_with_a_part_of_the_users_own_names_it_and_the_line(own):
    def fails() -> None:
        raise RuntimeError("Failed to run") from TypeError("no such thing")

    with pytest.raises(InputError if own else RuntimeError) as raised, config_errors(own):
        fails()
    if own:
        assert "The run fails with your loss (TypeError: no such thing" in str(raised.value)


@pytest.mark.parametrize("target", ["", 3, None, ["networks.PixNet"]])
def test_a_target_is_a_name(target):
    with pytest.raises(InputError, match="must be the name of a class"):
        merge_config([bundle_root() / "configs" / "train.json"], {"loss": {"_target_": target}})


def test_a_setting_is_of_the_kind_that_its_reference_leads_to():
    base = [bundle_root() / "configs" / "train.json"]
    with pytest.raises(InputError, match=r'"train#dataset#mpp" is "fine"; it must be a number'):
        merge_config(base, {"train#dataset#mpp": "fine"})
    with pytest.raises(InputError, match='"train#dataset#reader" is "x"; it must be keys and values'):
        merge_config(base, {"train#dataset#reader": "x"})
    assert merge_config(base, {"train#dataset#mpp": 1.5})["train"]["dataset"]["mpp"] == 1.5
