"""The second opinion is fitted on the training slides, and too little tissue is told in a sentence."""

from __future__ import annotations

import pytest
import torch

from bundle import commands, fit_texture
from bundle.errors import InputError
from bundle.export import load_network
from networks import PatchDictionaryEncoder, PixNet, SwinEncoder, TextureExpert


def _net() -> PixNet:
    encoder = SwinEncoder(embed_dim=12, depths=(2, 2), num_heads=(1, 2), window_size=4)
    return PixNet(2, encoder, (8, 8), texture=TextureExpert(2, PatchDictionaryEncoder((4, 16), 8), rank=2))


def test_a_run_holds_a_dictionary_and_a_regression(tiny_run):
    texture = load_network(tiny_run)[0].texture
    untrained = TextureExpert(len(texture.bias), PatchDictionaryEncoder((4, 16), 8))
    assert texture.filters.encoder.conv.weight.shape == untrained.filters.encoder.conv.weight.shape
    assert float(texture.components.abs().sum()) > 0 == float(untrained.components.abs().sum())
    assert (texture.filters.encoder.conv.bias < 0).any()


def test_the_dictionary_and_the_regression_are_fitted_once(phantom, tiny, tmp_path):
    commands.train(phantom, tmp_path / "run", [], tiny)
    before = load_network(tmp_path / "run")[0].texture.state_dict()
    commands.train(phantom, tmp_path / "run", [], {**tiny, "max_epochs": 2})
    after = load_network(tmp_path / "run")[0].texture.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_glass_alone_is_told_in_a_sentence():
    crops = [{"image": torch.full((3, 64, 64), 255.0)}]
    with pytest.raises(InputError, match=r"0 patches of tissue.*--set network_def#texture=null"):
        fit_texture(_net(), [], lambda *_: torch.zeros(0), None, crops)
