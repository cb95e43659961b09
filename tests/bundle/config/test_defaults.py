"""A configuration need not repeat the defaults of a class, and still every argument can be set."""

from __future__ import annotations

import pytest

from bundle.config.defaults import with_defaults
from bundle.config.merge import merge_config
from bundle.config.root import bundle_root
from bundle.errors import InputError

TRAIN = [bundle_root() / "configs" / "train.json"]


def test_an_argument_of_a_class_can_be_set_though_the_file_leaves_it_out():
    keys = {"network_def#fusion": "conv", "network_def#encoder#embed_dim": 24, "loss#min_units": 4}
    merged = merge_config(TRAIN, keys)
    assert merged["network_def"]["fusion"] == "conv"
    assert merged["network_def"]["encoder"]["embed_dim"] == 24
    assert merged["loss"]["min_units"] == 4


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("network_def#fusoin", "conv", r'no key "network_def#fusoin".*fusion'),
        (
            "network_def#encoder#embed_dim",
            "wide",
            r'"network_def#encoder#embed_dim" is "wide"; it must be a number such as 48',
        ),
        ("network_def#encoder#weights_", None, r"there is no key"),
    ],
)
def test_what_is_no_argument_or_no_value_of_it_is_refused(key, value, says):
    with pytest.raises(InputError, match=says):
        merge_config(TRAIN, {key: value})


def test_a_class_writes_its_defaults_out():
    found = with_defaults({"_target_": "networks.KMeansPatchEncoder", "n_patches": 8})
    assert found["strides"] == [4, 32, 64]
    assert found["n_patches"] == 8
    assert with_defaults({"_target_": "torch.nn.Linear"}) == {"_target_": "torch.nn.Linear"}
