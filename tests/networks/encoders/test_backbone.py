from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from networks import BackboneEncoder
from networks.encoders.errors import MissingExtraError
from networks.encoders.vit_weights import rename_vit

WINDOW_PX = 64
KINDS = ["registers", "gated", "swin", "convnext"]


Save = Callable[[Path, str], Path]


@pytest.fixture
def folder(save_backbone: Save, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    return save_backbone(tmp_path, request.param)


def encoder(folder: Path, **kw: object) -> BackboneEncoder:
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    strides = (4, 8, 16) if kind == "swin" else (4, 8, 16, 32)
    return BackboneEncoder(str(folder), WINDOW_PX, strides, pyramid_channels=8, **kw)  # type: ignore[arg-type]


@pytest.mark.parametrize("folder", KINDS, indirect=True)
def test_levels_have_their_strides(folder: Path) -> None:
    net = encoder(folder)
    assert net.grid_px == WINDOW_PX
    features = net(torch.randn(2, 3, WINDOW_PX, 3 * WINDOW_PX))
    expected = [(2, c, WINDOW_PX // s, 3 * WINDOW_PX // s) for s, c in zip(net.strides, net.channels, strict=True)]
    assert [tuple(f.shape) for f in features] == expected


@pytest.mark.parametrize("folder", KINDS, indirect=True)
def test_each_window_is_what_the_backbone_says(folder: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="the extra `backbone` is not installed")
    image = torch.randn(2, 3, 2 * WINDOW_PX, WINDOW_PX)
    net = encoder(folder, window_batch=3).eval()
    net.pyramid = nn.Identity()
    config = transformers.AutoConfig.from_pretrained(folder)
    is_plain = "dinov2" in config.model_type
    config.out_indices = [3] if is_plain else list(range(1, 1 + len(net.strides)))
    theirs = type(net.backbone).from_pretrained(folder, config=config).eval()
    with torch.no_grad():
        got = net(image)
        for row in range(2):
            window = image[..., row * WINDOW_PX : (row + 1) * WINDOW_PX, :]
            if is_plain:  # 4 x 4 patches of 14 px stand for tokens of 16
                window = F.interpolate(window, (56, 56), mode="bilinear", antialias=True)
            expected = theirs(window).feature_maps
            for level, mine in enumerate(got):
                side = mine.shape[-1]
                theirs_here = expected[0 if is_plain else level]
                torch.testing.assert_close(
                    mine[..., row * side : (row + 1) * side, :], theirs_here, rtol=1e-4, atol=1e-4
                )


@pytest.mark.parametrize("folder", ["registers"], indirect=True)
def test_blocks_choose_what_each_level_reads(folder: Path) -> None:
    image = torch.randn(1, 3, WINDOW_PX, WINDOW_PX)
    torch.manual_seed(0)
    last = encoder(folder).eval()
    torch.manual_seed(0)
    mixed = encoder(folder, blocks=(1, 3, 3, 3)).eval()
    mixed.pyramid.load_state_dict(last.pyramid.state_dict())
    with torch.no_grad():
        same = [torch.allclose(a, b, atol=1e-5) for a, b in zip(last(image), mixed(image), strict=True)]
    assert same == [False, True, True, True]
    with pytest.raises(ValueError, match="1 to 3"):
        encoder(folder, blocks=(0, 1, 2, 3))


@pytest.mark.parametrize("folder", KINDS, indirect=True)
def test_a_frozen_backbone_gets_no_gradient_and_a_tuned_one_all(folder: Path) -> None:
    for frozen in (True, False):
        net = encoder(folder, frozen=frozen).train()
        before = {n: v.clone() for n, v in net.backbone.state_dict().items()}
        image = torch.randn(1, 3, WINDOW_PX, WINDOW_PX, requires_grad=True)
        features = net(image)
        if any(f.requires_grad for f in features):
            sum(f.square().sum() for f in features).backward()
        trained = [n for n, p in net.backbone.named_parameters() if p.requires_grad]
        assert bool(trained) != frozen
        assert net.backbone.training != frozen
        assert all((p.grad is not None) == p.requires_grad for p in net.parameters())
        assert all(torch.equal(v, before[n]) for n, v in net.backbone.state_dict().items())
        if not frozen:
            assert len(trained) > 0.9 * len(list(net.backbone.parameters()))


def test_a_transformer_without_a_class_token_is_refused():
    with pytest.raises(ValueError, match="class token"):
        rename_vit({"blocks.0.attn.qkv.weight": torch.zeros(6, 2)}, gated=False)


def timm_named(state: dict[str, torch.Tensor], class_position: bool) -> dict[str, torch.Tensor]:
    """A saved DINOv2 with registers as timm would save it."""
    named = {}
    for name, value in state.items():
        for ours, theirs in (
            ("embeddings.patch_embeddings.projection", "patch_embed.proj"),
            ("embeddings.cls_token", "cls_token"),
            ("embeddings.register_tokens", "reg_token"),
            ("embeddings.position_embeddings", "pos_embed"),
            ("encoder.layer.", "blocks."),
            (".attention.output.dense", ".attn.proj"),
            (".mlp.weights_in", ".mlp.fc1"),
            (".mlp.weights_out", ".mlp.fc2"),
            ("layernorm.", "norm."),
        ):
            name = name.replace(ours, theirs)
        name = re.sub(r"layer_scale(\d)\.lambda1", r"ls\1.gamma", name)
        if ".attention.attention.query." in name:
            rows = [value, *(state[_hub(name, part)] for part in ("key", "value"))]
            named[name.replace(".attention.attention.query.", ".attn.qkv.")] = torch.cat(rows)
        elif ".attention.attention." not in name and "mask_token" not in name:
            named[name] = value[:, 1:] if name == "pos_embed" and not class_position else value
    return named


def _hub(name: str, part: str) -> str:
    return name.replace("blocks.", "encoder.layer.").replace(".query.", f".{part}.")


@pytest.mark.parametrize("class_position", [True, False])
@pytest.mark.parametrize("folder", ["registers", "gated"], indirect=True)
def test_timm_names_of_a_vit_are_taken(folder: Path, class_position: bool) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    if not class_position:
        state["embeddings.position_embeddings"][:, 0] = 0
        save_file(state, folder / "model.safetensors")
    expected = encoder(folder).backbone.state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(timm_named(state, class_position), folder / "pytorch_model.bin")
    got = encoder(folder).backbone.state_dict()
    assert got.keys() == expected.keys()
    assert [n for n, v in expected.items() if "mask_token" not in n and not torch.equal(got[n], v)] == []


@pytest.mark.parametrize("folder", ["registers"], indirect=True)
def test_wrong_folders_and_sizes_get_a_sentence(folder: Path, tmp_path: Path) -> None:
    def refused(message: str, **kw: object) -> None:
        arguments = {"folder": str(folder), "window_px": WINDOW_PX, **kw}
        with pytest.raises(ValueError, match=message):
            BackboneEncoder(**arguments)  # type: ignore[arg-type]

    refused("folder is not set", folder=None)
    refused(r"no config\.json", folder=str(tmp_path / "nowhere"))
    refused("multiple of token_px", window_px=72)
    refused("gives levels at", strides=(16, 64))
    refused("finest first", strides=(8, 4))
    config = json.loads((folder / "config.json").read_text())
    plain = {k: v for k, v in config.items() if k not in ("stage_names", "out_features", "out_indices")}
    for changes, message in (
        ({"hidden_size": 48}, "in another shape"),
        ({"num_hidden_layers": 4}, "lacks encoder.layer.3"),
        ({"model_type": "bert"}, "no backbone of"),
        ({"model_type": "unheard"}, "describes no model"),
    ):
        (folder / "config.json").write_text(json.dumps({**plain, **changes}))
        refused(message)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"cut")
    refused("Copy it again")
    (folder / "model.safetensors").unlink()
    refused("neither")
    assert BackboneEncoder(str(folder), WINDOW_PX, pretrained=False).grid_px == WINDOW_PX


@pytest.mark.parametrize("folder", ["swin"], indirect=True)
def test_strides_that_a_hierarchy_lacks_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"\[4, 8, 16\]"):
        BackboneEncoder(str(folder), WINDOW_PX, (4, 64))


def test_the_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"\.\[backbone\]"):
        BackboneEncoder("anywhere")


def test_the_recipe_for_uni2_h_describes_its_weights() -> None:
    transformers = pytest.importorskip("transformers", reason="the extra `backbone` is not installed")
    recipe = (Path(__file__).parents[3] / "docs" / "guide" / "encoders.md").read_text()
    (block,) = (b for b in re.findall(r"```json\n(.*?)```", recipe, re.DOTALL) if "model_type" in b)
    values = json.loads(block)
    config = transformers.AutoConfig.for_model(values.pop("model_type"), **values)
    with torch.device("meta"):
        net = transformers.AutoBackbone.from_config(config)
    # As published: timm's ViT of 24 blocks, 1536 wide, packed SwiGLU of 8192, 8 registers, no class position.
    width, hidden = 1536, 8192
    block_size = 3 * width * (width + 1) + width * (width + 1)  # qkv, proj
    block_size += hidden * (width + 1) + width * (hidden // 2 + 1) + 6 * width  # fc1, fc2; two norms, two scales
    expected = 24 * block_size + width * (3 * 14**2 + 1) + (1 + 8 + 256 + 2) * width
    here_alone = 2 * width  # the class token's position and the mask token
    assert sum(p.numel() for p in net.parameters()) - here_alone == expected
    assert 680e6 < expected < 682e6
