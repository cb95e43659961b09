from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from bundle.report.raster import colours, jpeg_uri, make_canvas


@pytest.mark.parametrize("shape", ["circle", "square"])
@pytest.mark.parametrize("size_px", [3.0, 40.0])
def test_every_subpixel_belongs_to_the_nearest_unit_that_covers_it(shape: str, size_px: float) -> None:
    rng = np.random.default_rng(0)
    centers = rng.uniform(100, 400, (60, 2))
    canvas = make_canvas(centers, size_px, shape, max_side=80)
    rows, cols = canvas.owner.shape
    margin = size_px / 2 + 0.02 * np.ptp(centers, axis=0).max()
    low, high = centers.min(0) - margin, centers.max(0) + margin
    step = (high - low) / (cols, rows)
    assert canvas.width_px == pytest.approx(high[0] - low[0])
    for row, col in rng.integers(0, (rows, cols), (400, 2)):
        offset = np.abs(centers - (low + (np.array([col, row]) + 0.5) * step))
        distance = np.hypot(*offset.T) if shape == "circle" else offset.max(1)
        assert canvas.owner[row, col] == (distance.argmin() if distance.min() < size_px / 2 else -1)


def test_units_lie_on_the_picture_where_the_slide_has_them() -> None:
    centers = np.array([[300.0, 500.0], [700.0, 900.0]])
    picture = np.full((100, 120, 3), 200, np.uint8)
    for x, y in (centers * 0.1).astype(int):
        picture[y - 4 : y + 4, x - 4 : x + 4] = (255, 0, 0)
    canvas = make_canvas(centers, 80.0, "square", picture, 0.1, max_side=200)
    covered = canvas.owner[::2, ::2] >= 0
    red = canvas.picture[..., 1] < 100
    assert covered.any()
    assert np.mean(covered == red) > 0.99


def test_paint_covers_units_alone_and_clips_at_the_ends() -> None:
    centers = np.array([[50.0, 50.0], [150.0, 50.0], [250.0, 50.0]])
    canvas = make_canvas(centers, 60.0, "square", max_side=300)
    image = canvas.paint(np.array([-5.0, 0.0, 1.0]), 0.0, 1.0)
    middle = [image[image.shape[0] // 2, int(c * image.shape[1] / 300)] for c in (50, 150, 250)]
    np.testing.assert_array_equal(middle[0], middle[1])
    np.testing.assert_allclose(middle[1], colours()[0], atol=1)
    np.testing.assert_allclose(middle[2], colours()[-1], atol=1)
    outside = canvas.owner.reshape(image.shape[0], 2, image.shape[1], 2).max((1, 3)) < 0
    assert outside.any()
    assert (image[outside] == 255).all()


def test_flat_values_and_a_single_unit_are_painted() -> None:
    canvas = make_canvas(np.array([[10.0, 10.0]]), 5.0, "circle", max_side=20)
    assert canvas.paint(np.array([2.0]), 2.0, 2.0).shape == (20, 20, 3)


def test_jpeg_uri_decodes_to_the_picture() -> None:
    image = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, :, None] * 3, (32, 64, 3))
    decoded = np.asarray(Image.open(io.BytesIO(base64.b64decode(jpeg_uri(image).split(",")[1]))))
    np.testing.assert_allclose(decoded.astype(int), image, atol=8)
