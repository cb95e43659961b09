from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from transforms import HEStain, RandHEStain, RandHEStainD, RandHEStaind, RandHEStainDict
from transforms.stain import STAINS


def picture(*size: int) -> MetaTensor:
    pixels = torch.randint(0, 256, (3, *size), generator=torch.Generator().manual_seed(0)).float()
    return MetaTensor(pixels, meta={"mpp": 0.5})


def dyed(amounts: list[float]) -> torch.Tensor:
    """A flat picture with these amounts of haematoxylin, eosin and residual."""
    return (
        (255 * torch.exp(-(torch.tensor(amounts, dtype=torch.float64) @ STAINS))).float().view(3, 1, 1).expand(3, 4, 4)
    )


def test_no_change_is_exact():
    image = picture(20, 30)
    assert torch.equal(HEStain()(image), image)


@pytest.mark.parametrize("stain", range(3))
def test_each_stain_is_scaled_and_shifted_alone(stain):
    amounts = [0.5, 0.3, 0.2]
    alpha, beta = [1.0] * 3, [0.0] * 3
    alpha[stain], beta[stain] = 1.2, 0.03
    want = list(amounts)
    want[stain] = 1.2 * amounts[stain] + 0.03
    torch.testing.assert_close(HEStain(alpha, beta)(dyed(amounts)), dyed(want), rtol=1e-4, atol=1e-2)


def test_stays_in_range_keeps_metadata_and_the_input():
    image = picture(20, 30)
    before = image.clone()
    for alpha, beta in (((0.2, 3, 1), (1, 1, 1)), ((3, 0.2, 0.5), (-1, -1, -1))):
        out = HEStain(alpha, beta)(image)
        assert isinstance(out, MetaTensor)
        assert out.meta["mpp"] == 0.5
        assert out.dtype == torch.float32
        assert out.min() >= 0
        assert out.max() <= 255
        assert not torch.equal(out, image)
    assert torch.equal(image, before)
    assert isinstance(HEStain()(image.numpy()), np.ndarray)


def test_random_changes_come_from_the_seed():
    image = picture(20, 30)
    draws = [RandHEStain(prob=1.0).set_random_state(seed) for seed in (1, 1, 2)]
    a, b, c = ([draw(image) for _ in range(3)] for draw in draws)
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert not torch.equal(a[0], c[0])
    assert not torch.equal(a[0], a[1])


def test_probability_is_kept():
    image = picture(4, 4)
    draw = RandHEStain(prob=0.3).set_random_state(0)
    changed = sum(not torch.equal(draw(image), image) for _ in range(400))
    assert 90 < changed < 150
    assert torch.equal(RandHEStain(prob=0.0)(image), image)


def test_blank_glass_stays_near_white():
    draw = RandHEStain(prob=1.0).set_random_state(0)
    glass = torch.full((3, 8, 8), 255.0)
    assert min(draw(glass).min().item() for _ in range(200)) > 240


def test_dictionary_form_changes_all_keys_alike():
    image = picture(20, 30)
    out = RandHEStaind(("image", "twin"), prob=1.0).set_random_state(3)({"image": image, "twin": image, "x": 1})
    assert torch.equal(out["image"], out["twin"])
    assert torch.equal(out["image"], RandHEStain(prob=1.0).set_random_state(3)(image))
    assert out["x"] == 1
    assert RandHEStaind("image", allow_missing_keys=True)({"x": 1}) == {"x": 1}
    assert RandHEStainD is RandHEStainDict is RandHEStaind


def test_misuse_is_reported():
    with pytest.raises(ValueError, match="three numbers"):
        HEStain(alpha=(1, 1))
    with pytest.raises(ValueError, match=r"\(3, H, W\)"):
        HEStain()(torch.zeros(1, 5, 5))
