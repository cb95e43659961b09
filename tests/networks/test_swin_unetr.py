from __future__ import annotations

import torch
from torch import nn

from networks import PlainSwinUNETR


def test_map_has_the_image_resolution_and_the_shared_interface() -> None:
    net = PlainSwinUNETR(4, feature_size=12, window_size=4, head="programs", n_programs=3).eval()
    label = torch.zeros(1, 1, 64, 64, dtype=torch.int32)
    label[..., 10:20, 10:20], label[..., 40, 40] = 1, 2
    with torch.no_grad():
        features = net.features(torch.randn(1, 3, 64, 64))
    assert features.shape == (1, 3, 64, 64)
    torch.testing.assert_close(net.pool(features, label)[1], features[0, :, 40, 40])


def test_nothing_is_normalised_over_space_in_evaluation() -> None:
    net = PlainSwinUNETR(4, feature_size=12)
    assert not any(isinstance(m, nn.InstanceNorm2d | nn.GroupNorm) for m in net.modules())
    assert (net.grid_px, net.halo_px) == (128, 368)


def test_no_parameter_is_dead() -> None:
    net = PlainSwinUNETR(4, feature_size=12, window_size=4)
    label = torch.zeros(2, 1, 128, 128, dtype=torch.int32)
    label[:, :, 10:60, 10:60] = 1
    net(torch.randn(2, 3, 128, 128), label).log_cp10k.square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []
