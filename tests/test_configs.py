"""What the configurations say, read without training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

CONFIGS = Path(__file__).parents[1] / "configs"


def _parser(*names: str, **more) -> ConfigParser:
    parser = ConfigParser(json.loads((CONFIGS / "train.json").read_text()))
    for name in names:
        for key, value in json.loads((CONFIGS / name).read_text()).items():
            parser[key] = value
    for key, value in {"n_genes": 3, **more}.items():
        parser[key] = value
    return parser


@pytest.mark.parametrize(
    ("names", "pretrained"),
    [
        ((), "encoder."),
        (("efficientnet_lite.json",), "encoder."),
        (("swin_unetr.json",), "encoder."),
    ],
)
def test_a_pretrained_encoder_learns_at_its_own_rate(names, pretrained):
    if "efficientnet_lite.json" in names:
        pytest.importorskip("efficientnet_lite_pytorch", reason="the extra `encoders` is not installed")
    parser = _parser(*names, encoder_learning_rate=0.25, learning_rate=0.5)
    network, optimizer = parser.get_parsed_content("network_def"), parser.get_parsed_content("optimizer")
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(network.parameters()))
    for name, parameter in network.named_parameters():
        assert rates[id(parameter)] == (0.25 if name.startswith(pretrained) else 0.5), name


def test_without_a_word_all_learn_at_one_rate():
    optimizer = _parser(learning_rate=0.125).get_parsed_content("optimizer")
    assert {group["lr"] for group in optimizer.param_groups} == {0.125}


def test_pretrained_filters_are_changed_slowly():
    parser = _parser("efficientnet_lite.json")
    assert parser["encoder_learning_rate"] < parser["learning_rate"]


def test_the_ridge_branch_is_for_the_linear_head_alone():
    assert _parser().get_parsed_content("network_def").ridge is not None
    assert _parser("programs.json").get_parsed_content("network_def").ridge is None


def test_the_pretrained_ridge_branch_is_for_the_linear_head_alone():
    pytest.importorskip("efficientnet_lite_pytorch", reason="the extra `encoders` is not installed")
    assert _parser("efficientnet_lite.json").get_parsed_content("network_def").ridge is not None
    both = _parser("efficientnet_lite.json", "programs.json").get_parsed_content("network_def")
    assert both.ridge is None


@pytest.mark.parametrize(("epochs", "interval"), [(2, 2), (40, 5)])
def test_a_short_training_is_validated_too(epochs, interval):
    assert _parser(max_epochs=epochs).get_parsed_content("val_interval") == interval


def test_a_checkpoint_holds_whatever_goes_on_after_a_stop():
    config = json.loads((CONFIGS / "train.json").read_text())
    kept = {"network", "optimizer", "lr_scheduler", "ema", "best_model"}  # and the trainer
    assert set(config["checkpoint"]) == kept
    last = config["train"]["handlers"][-1]  # after whatever changes at the end of an epoch
    assert (last["_target_"], last["objects"]) == ("bundle.SaveCheckpoint", "@checkpoint")


@pytest.mark.parametrize("name", ["train.json", "evaluate.json", "inference.json"])
def test_pixels_are_prepared_alike_in_training_and_after(name):
    """The network would see other intensities than it was trained on."""

    def prepared(value) -> list[dict]:
        if isinstance(value, list):
            return [found for part in value for found in prepared(part)]
        if not isinstance(value, dict):
            return []
        own = [value] if str(value.get("_target_", "")).startswith("NormalizeIntensity") else []
        return own + [found for part in value.values() for found in prepared(part)]

    found = prepared(json.loads((CONFIGS / name).read_text()))
    assert len(found) == (2 if name == "train.json" else 1)
    for transform in found:
        assert (transform["subtrahend"], transform["divisor"]) == ("@intensity#mean", "@intensity#std")
        assert transform["channel_wise"] is True
