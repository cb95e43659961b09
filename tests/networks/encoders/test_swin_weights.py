"""Weights of timm and transformers give the same features here as there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from networks import SwinEncoder

SHAPE = {"embed_dim": 12, "depths": (2, 2, 2), "num_heads": (1, 2, 4), "window_size": 4}
State = dict[str, torch.Tensor]


def encoder(**changes: object) -> SwinEncoder:
    return SwinEncoder(**{**SHAPE, **changes}).eval()  # type: ignore[arg-type]


def random_(net: nn.Module) -> nn.Module:
    """Weights under which every one of them matters: biases, norms and tables start constant or nearly."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            size = 0.5 if parameter.ndim == 1 or "table" in name else 0.1
            parameter += size * torch.randn(parameter.shape, generator=generator)
    return net.eval()


@pytest.fixture
def theirs(transformers: ModuleType) -> nn.Module:
    torch.manual_seed(0)
    config = transformers.SwinConfig(
        image_size=64,
        patch_size=4,
        embed_dim=12,
        depths=[2, 2, 2],
        num_heads=[1, 2, 4],
        window_size=4,
        out_indices=[1, 2, 3],
    )
    return random_(transformers.SwinBackbone(config))


@pytest.mark.parametrize("form", ["memory", "safetensors", "bin"])
def test_every_stage_equals_transformers(theirs: nn.Module, tmp_path: Path, form: str) -> None:
    if form == "safetensors":
        theirs.save_pretrained(tmp_path)
        path = tmp_path / "model.safetensors"
    else:
        path = tmp_path / "weights.pt"
        torch.save(theirs.state_dict(), path)
        if form == "bin":  # under a training script's wrapper
            torch.save({"model": theirs.state_dict(), "epoch": 3}, path)
    image = torch.randn(1, 3, 128, 192)  # more than one window at every stage
    with torch.no_grad():
        expected = theirs(image).feature_maps
        got = encoder(weights=str(path))(image)
    for level in range(3):
        torch.testing.assert_close(got[level], expected[level], rtol=0, atol=1e-5)
        assert expected[level].std() > 0.1


def test_a_classifier_gives_its_last_norm(transformers: ModuleType, theirs: nn.Module, tmp_path: Path) -> None:
    whole = random_(transformers.SwinForImageClassification(theirs.config))
    torch.save(whole.state_dict(), tmp_path / "weights.pth")
    image = torch.randn(1, 3, 128, 192)
    with torch.no_grad():
        expected = whole.swin(image).last_hidden_state.transpose(1, 2).unflatten(2, (8, 12))
        torch.testing.assert_close(
            encoder(weights=str(tmp_path / "weights.pth"))(image)[-1], expected, rtol=0, atol=1e-5
        )
        two = encoder(depths=(2, 2), num_heads=(1, 2), weights=str(tmp_path / "weights.pth"))
    assert torch.equal(two.norms[1].weight, torch.ones(24))  # the norm of the third stage is none of the second


def timm_named(net: SwinEncoder, downsample_starts: bool, flat: bool = False) -> State:
    """The state of `net` as timm (downsampling begins a stage since 0.9) or the original repository saves it."""
    named: State = {}
    for name, value in net.state_dict().items():
        name = re.sub(r"mlp\.linear(\d)", r"mlp.fc\1", name)
        name = re.sub(r"downsamples\.(\d)", lambda m: f"layers.{int(m[1]) + downsample_starts}.downsample", name)
        name = name.replace("norms.2.", "norm.")
        if flat:
            name = re.sub(r"^layers\.(\d)", r"layers_\1", name)
        if not name.startswith("norms."):
            named[name] = value.clone()
    named["layers.0.blocks.1.attn_mask"] = torch.zeros(4, 16, 16)
    named["head.fc.weight" if downsample_starts else "head.weight"] = torch.zeros(5, 48)
    return named


@pytest.mark.parametrize(("starts", "flat"), [(True, False), (False, False), (True, True)])
@pytest.mark.parametrize("prefix", ["", "module.backbone."])
def test_timm_names_are_taken(starts: bool, flat: bool, prefix: str, tmp_path: Path) -> None:
    source = random_(encoder())
    state = {prefix + name: value for name, value in timm_named(source, starts, flat).items()}
    torch.save(state, tmp_path / "swin.pth")
    loaded = encoder(weights=str(tmp_path / "swin.pth"))
    own = loaded.state_dict()
    for name, value in source.state_dict().items():
        fresh = name.startswith(("norms.0", "norms.1"))
        assert torch.equal(own[name], value) != fresh, name


def _without(name: str) -> Callable[[State], State]:
    return lambda state: {n: v for n, v in state.items() if n != name}


WRONG: dict[str, tuple[dict[str, object], Callable[[State], State], str]] = {
    "another width": ({"embed_dim": 24}, dict, r"embed_dim=12.*window_size=4.*this encoder is of embed_dim=24"),
    "another window": ({"window_size": 8}, dict, "Set them alike"),
    "more stages than there": ({"depths": (2,) * 4, "num_heads": (1, 2, 4, 4)}, dict, r"depths=\[2, 2, 2\]"),
    "a hole": ({}, _without("layers.1.blocks.0.mlp.fc1.weight"), r"lacks layers\.1\.blocks\.0\.mlp\.linear1\.weight"),
    "a convolutional stem": ({}, _without("patch_embed.proj.weight"), "convolutional stem"),
    "something besides": ({}, lambda s: {**s, "layers.0.blocks.0.gamma": torch.ones(1)}, "has besides layers.0.bl"),
    "absolute positions": ({}, lambda s: {**s, "absolute_pos_embed": torch.ones(1)}, "absolute position"),
    "channels": ({"in_channels": 1}, dict, r"in another shape patch_embed\.proj\.weight"),
    "a ResNet": ({}, lambda s: {"conv1.weight": torch.ones(1)}, "holds no Swin.*conv1.weight"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_gets_a_sentence(name: str, tmp_path: Path) -> None:
    changes, damage, message = WRONG[name]
    path = tmp_path / "swin.pth"
    torch.save(damage(timm_named(encoder(), True)), path)
    with pytest.raises(ValueError, match=message) as caught:
        encoder(weights=str(path), **changes)
    assert str(caught.value).startswith(str(path))


def test_what_is_no_state_dict_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no file of weights"):
        encoder(weights=str(tmp_path / "nowhere.pt"))
    torch.save(nn.Linear(2, 2), tmp_path / "model.pt")
    with pytest.raises(ValueError, match="save its state dict"):
        encoder(weights=str(tmp_path / "model.pt"))
    (tmp_path / "cut.pt").write_bytes(b"PK\x03\x04")
    with pytest.raises(ValueError, match="does not open"):
        encoder(weights=str(tmp_path / "cut.pt"))
    torch.save(torch.ones(2), tmp_path / "tensor.pt")
    with pytest.raises(ValueError, match="not tensors by name"):
        encoder(weights=str(tmp_path / "tensor.pt"))
