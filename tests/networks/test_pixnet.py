from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from monai.data import MetaTensor
from torch import nn

from networks import (
    BackboneEncoder,
    EfficientNetLiteEncoder,
    ExpressionLoss,
    ExpressionModel,
    KMeansPatchEncoder,
    PixNet,
    PlainSwinUNETR,
    RidgeBranch,
    SwinEncoder,
)
from networks.heads import MAX_LOG_CP10K
from networks.tta import FLIPS_AND_TURNS, turn, turn_back

Build = Callable[..., PixNet]
Scramble = Callable[[nn.Module], ExpressionModel]


def units(batch: int = 2, size: int = 64) -> torch.Tensor:
    label = torch.zeros(batch, 1, size, size, dtype=torch.int32)
    label[:, 0, 4:30, 4:30], label[:, 0, 34:60, 10:30], label[:, 0, 40:42, 50:52] = 1, 2, 3
    return label


@pytest.mark.parametrize("head", ["linear", "programs"])
def test_forward_is_project_of_pool_of_features(tiny_pixnet: Build, head: str) -> None:
    net = tiny_pixnet(window_size=4, head=head).eval()
    image, label = torch.randn(2, 3, 64, 64), units()
    with torch.no_grad():
        pooled = net.pool(net.features(image), label)
        got = net(image, label)
        dense = net(image)
    assert pooled.shape == (6, net.channels)
    assert torch.equal(got.log_cp10k, net.project(pooled))
    assert dense.shape == (2, net.n_genes, 16, 16)
    if head == "linear":
        assert got.rate is None
        everywhere = net.project(net.features(image).movedim(1, -1)).movedim(-1, 1)
        torch.testing.assert_close(net.pool(everywhere, label), got.log_cp10k)
        torch.testing.assert_close(dense, everywhere.clamp(0, MAX_LOG_CP10K))
        assert (everywhere < 0).any()
    else:
        assert torch.equal(got.rate, net.rate(pooled))


def test_rates_of_the_parts_add_up_to_the_whole(tiny_pixnet: Build, scramble: Scramble) -> None:
    net = scramble(tiny_pixnet(window_size=4, head="programs"))
    part = torch.randint(1, 6, (64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    label = torch.stack([part, torch.ones_like(part)])[None]
    with torch.no_grad():
        rate = net(torch.randn(1, 3, 64, 64, dtype=torch.float64), label).rate
    area = torch.bincount(part.flatten())[1:, None]
    torch.testing.assert_close((rate[:5] * area).sum(0), rate[5] * 64**2, rtol=1e-9, atol=0)


def with_ridge_of_efficientnet() -> PixNet:
    pytest.importorskip("efficientnet_lite_pytorch", reason="the extra `encoders` is not installed")
    branch = RidgeBranch(2, EfficientNetLiteEncoder((8, 16, 32), pretrained=False), rank=2, context_px=96)
    return PixNet(2, EfficientNetLiteEncoder((8, 32), pretrained=False), (8, 8), ridge=fitted(branch))


def with_ridge_of_patches() -> PixNet:
    branch = RidgeBranch(2, KMeansPatchEncoder((4, 16), 8), rank=2, context_px=80)
    encoder = SwinEncoder(embed_dim=12, depths=(2, 2), num_heads=(1, 2), window_size=4, drop_path_rate=0.0)
    return PixNet(2, encoder, (8, 8), ridge=fitted(branch))


def fitted(branch: RidgeBranch) -> RidgeBranch:
    nn.init.normal_(branch.components, generator=torch.Generator().manual_seed(1))
    return branch


def lite() -> PixNet:
    pytest.importorskip("efficientnet_lite_pytorch", reason="the extra `encoders` is not installed")
    return PixNet(2, EfficientNetLiteEncoder((2, 8, 32), pretrained=False), (8, 8, 8), fusion="conv")


def windowed(request: pytest.FixtureRequest, form: str, strides: tuple[int, ...]) -> PixNet:
    folder = request.getfixturevalue("save_backbone")(request.getfixturevalue("tmp_path"), form)
    return PixNet(2, BackboneEncoder(str(folder), 64, strides, pyramid_channels=8), (8,) * len(strides))


NETS: dict[str, Callable[[Build, pytest.FixtureRequest], ExpressionModel]] = {
    "four stages": lambda tiny, _: tiny(4),
    "three stages": lambda tiny, _: tiny(3),
    "plain convolutions": lambda tiny, _: tiny(3, fusion="conv"),
    "all flips and turns": lambda tiny, _: tiny(2, window_size=4).use_test_time_augmentation(FLIPS_AND_TURNS),
    "strides from 2": lambda *_: lite(),
    "ridge branch": lambda *_: with_ridge_of_efficientnet(),
    "k-means patches": lambda *_: with_ridge_of_patches(),
    "SwinUNETR": lambda *_: PlainSwinUNETR(2, feature_size=12, window_size=4),
    "ViT in windows": lambda _, request: windowed(request, "registers", (4, 8, 16, 32)),
    "Swin in windows": lambda _, request: windowed(request, "swin", (4, 8, 16)),
    "ConvNeXt in windows": lambda _, request: windowed(request, "convnext", (4, 8, 16, 32)),
}
HALO_PX = {
    "four stages": (256, 480),
    "three stages": (128, 224),
    "plain convolutions": (128, 224),
    "all flips and turns": (32, 48),
    "strides from 2": (32, 489),
    "ridge branch": (32, 489),
    "k-means patches": (32, 49),
    "SwinUNETR": (64, 248),
    "ViT in windows": (64, 128),
    "Swin in windows": (64, 64),
    "ConvNeXt in windows": (64, 128),
}
#: EfficientNet pads a strided convolution on one side alone, so above and to the left it reads less than the halo.
SLACK_PX = {"strides from 2": 32, "ridge branch": 32}


def strip(width_px: int, height_px: int, axis: int) -> torch.Tensor:
    image = torch.randn(1, 3, height_px, width_px, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    return image if axis == -1 else image.transpose(-1, -2)


@pytest.mark.parametrize("axis", [-2, -1])
@pytest.mark.parametrize("name", NETS)
def test_halo_is_all_that_a_core_sees_and_no_more(
    name: str, axis: int, tiny_pixnet: Build, scramble: Scramble, request: pytest.FixtureRequest
) -> None:
    net = scramble(NETS[name](tiny_pixnet, request))
    grid_px, halo_px = net.grid_px, net.halo_px
    assert (grid_px, halo_px) == HALO_PX[name]
    before_px = -(-(halo_px + 1) // grid_px) * grid_px
    image = strip(2 * before_px + grid_px, grid_px, axis)
    core = slice(before_px // net.stride, (before_px + grid_px) // net.stride)
    with torch.no_grad():
        features = net.features(image)
    noise = 1e-14 * float(features.abs().max())  # of an untiled map's own sums, in another order

    def change(start_px: int, stop_px: int | None) -> float:
        other = image.clone()
        other.transpose(axis, -1)[..., start_px:stop_px] += 1
        with torch.no_grad():
            difference = net.features(other) - features
        return float(difference.transpose(axis, -1)[..., core].abs().max())

    first_px, last_px = before_px - halo_px, before_px + grid_px + halo_px
    assert change(0, first_px) <= noise
    assert change(last_px, None) <= noise
    assert change(first_px, first_px + SLACK_PX.get(name, 4)) > noise
    assert change(last_px - 4, last_px) > noise


@pytest.mark.parametrize("name", NETS)
def test_tiles_on_the_grid_equal_the_untiled_map(
    name: str, tiny_pixnet: Build, scramble: Scramble, request: pytest.FixtureRequest
) -> None:
    net = scramble(NETS[name](tiny_pixnet, request))
    grid_px, stride = net.grid_px, net.stride
    halo_px = -(-net.halo_px // grid_px) * grid_px
    image = strip(2 * halo_px + 3 * grid_px, grid_px, -1)

    def core(start_px: int) -> torch.Tensor:
        """The map columns of [halo + grid, halo + 2 grid) from a tile that starts at `start_px`."""
        tile = image[..., start_px : start_px + 2 * halo_px + grid_px]
        left = (halo_px + grid_px - start_px) // stride
        return net.features(tile)[..., left : left + grid_px // stride]

    with torch.no_grad():
        left = (halo_px + grid_px) // stride
        expected = net.features(image)[..., left : left + grid_px // stride]
        torch.testing.assert_close(core(grid_px), expected, rtol=0, atol=1e-9)
        off_grid = core(grid_px - grid_px // 2)
    assert (off_grid - expected).abs().max() > 1e-6


@pytest.mark.parametrize("number", FLIPS_AND_TURNS)
def test_averaged_maps_turn_with_the_image(number: int, tiny_pixnet: Build, scramble: Scramble) -> None:
    net = scramble(tiny_pixnet(2, window_size=4, head="programs"))
    image = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    assert torch.equal(turn_back(turn(image, number), number), image)
    with torch.no_grad():
        plain = net.features(image)
        assert number == 0 or not torch.allclose(turn_back(net.features(turn(image, number)), number), plain)
        net.use_test_time_augmentation(FLIPS_AND_TURNS)
        averaged = net.features(image)
        torch.testing.assert_close(turn_back(net.features(turn(image, number)), number), averaged)
        one = net.use_test_time_augmentation([number]).features(image)
        net.use_test_time_augmentation([0])
        torch.testing.assert_close(one, turn_back(net.features(turn(image, number)), number))


def test_the_eight_flips_and_turns_differ() -> None:
    image = torch.arange(9).reshape(3, 3)
    assert len({tuple(turn(image, number).flatten().tolist()) for number in FLIPS_AND_TURNS}) == 8


def test_unknown_flips_and_fusions_are_refused(tiny_pixnet: Build) -> None:
    for numbers in ([], [8]):
        with pytest.raises(ValueError, match="0 to 7"):
            tiny_pixnet(2).use_test_time_augmentation(numbers)
    with pytest.raises(ValueError, match="'safb' or 'conv'"):
        tiny_pixnet(2, fusion="sum")


@pytest.mark.parametrize("size", [(64, 64), (50, 75), (3, 100)])
def test_any_size_gives_a_map_that_covers_it(tiny_pixnet: Build, size: tuple[int, int]) -> None:
    net = tiny_pixnet(window_size=4).eval()
    with torch.no_grad():
        assert net(torch.randn(1, 3, *size)).shape == (1, 5, -(-size[0] // 4), -(-size[1] // 4))


def test_images_in_a_batch_do_not_mix_in_evaluation(tiny_pixnet: Build) -> None:
    net, image = tiny_pixnet(window_size=4).eval(), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(net(image)[1:], net(image[1:]), rtol=1e-4, atol=1e-5)


def test_meta_tensors_are_taken(tiny_pixnet: Build) -> None:
    net, image = tiny_pixnet(window_size=4).eval(), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        got = net(MetaTensor(image), MetaTensor(units()))
        assert torch.equal(got.log_cp10k, net(image, units()).log_cp10k)
    assert not isinstance(got.log_cp10k, MetaTensor)


@pytest.mark.parametrize("head", ["linear", "programs"])
def test_no_parameter_is_dead(tiny_pixnet: Build, head: str) -> None:
    net = tiny_pixnet(window_size=4, head=head)
    net(torch.randn(2, 3, 64, 64), units()).log_cp10k.square().sum().backward()
    dead = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert dead == []


def test_a_batch_without_units_reaches_every_parameter_with_zero(tiny_pixnet: Build) -> None:
    net = tiny_pixnet(window_size=4, head="programs")
    pred = net(torch.randn(1, 3, 64, 64), torch.zeros(1, 1, 64, 64, dtype=torch.int32))
    ExpressionLoss(poisson_weight=1)(pred, {}).backward()
    assert all(p.grad is not None and not p.grad.any() for p in net.parameters())


def test_state_dict_carries_everything(tiny_pixnet: Build, tmp_path: Path) -> None:
    net = tiny_pixnet(window_size=4).eval()
    net.initialize(mean=range(5), std=[1, 2, 3, 4, 5])
    torch.save(net.state_dict(), tmp_path / "model.pt")
    other = tiny_pixnet(window_size=4).eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert not torch.equal(other(image), net(image))
        other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
        assert torch.equal(other(image), net(image))


@pytest.mark.parametrize("head", ["linear", "programs"])
def test_autocast_trains(tiny_pixnet: Build, head: str) -> None:
    net = tiny_pixnet(window_size=4, head=head)
    image = torch.randn(2, 3, 64, 64)
    expected = net(image, units()).log_cp10k
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pred = net(image, units())
    torch.testing.assert_close(pred.log_cp10k.float(), expected, rtol=0.05, atol=0.05)
    pred.log_cp10k.float().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())


@pytest.mark.parametrize("head", ["linear", "programs"])
def test_a_few_steps_fit_a_colour(tiny_pixnet: Build, head: str) -> None:
    net = tiny_pixnet(window_size=4, head=head)
    direction = torch.tensor([-1.0, 1, -1, 1, -1])
    programs = torch.linspace(-1, 1, 6)
    loadings = torch.cat([torch.outer(direction, programs).exp(), torch.ones(1, 6)])
    net.initialize(mean=torch.zeros(5), std=torch.ones(5), loadings=loadings)
    generator = torch.Generator().manual_seed(0)
    level = torch.tensor([-1.0, -0.3, 0.3, 1.0])
    image = torch.randn(4, 3, 64, 64, generator=generator)
    image[:, 0] += 2 * level[:, None, None]
    label = units(4)
    with torch.no_grad():
        start = net(image, label).log_cp10k
        target = start.mean(0) + 0.5 * level.repeat_interleave(3)[:, None] * direction
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        loss = (net(image, label).log_cp10k - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 * losses[0]
