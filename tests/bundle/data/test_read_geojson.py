from __future__ import annotations

import json

import numpy as np
import pytest

from bundle.data.polygons import Polygons
from bundle.data.read_geojson import read_polygons
from bundle.writers.geojson import write_polygons


def _ring(x: float, y: float, radius: float, n: int) -> np.ndarray:
    angle = np.append(np.linspace(0, 2 * np.pi, n, endpoint=False), 0)
    return np.column_stack([x + radius * np.cos(angle), y + radius * np.sin(angle)])


@pytest.mark.parametrize("count", [0, 1, 3])
def test_what_is_written_is_read_again(tmp_path, count):
    rings = [[_ring(100 * i + 60, 70, 40, 12), _ring(100 * i + 60, 70, 10, 7)] for i in range(count)]
    properties = [{"objectType": "detection", "name": f"u{i}", "measurements": {"A": i}} for i in range(count)]
    path = tmp_path / "a.geojson"
    write_polygons(path, zip(rings, properties, strict=True), {"genes": ["A"]})
    read = read_polygons(path)
    assert list(read.names) == [f"u{i}" for i in range(count)]
    assert set(read.types) <= {"detection"}
    assert (read.others, read.degenerate) == (0, [])
    area = 0.5 * (12 * np.sin(2 * np.pi / 12) * 1600 - 7 * np.sin(2 * np.pi / 7) * 100)
    np.testing.assert_allclose(Polygons.of_shapes(read.shapes).areas_px2, [area] * count, rtol=1e-3)
    content = json.loads(path.read_text())
    assert content["pixnet"] == {"genes": ["A"]}
    assert [f["properties"] for f in content["features"]] == properties


def test_a_failure_leaves_no_file(tmp_path):
    def features():
        yield [_ring(0, 0, 1, 5)], {}
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError):
        write_polygons(tmp_path / "a.geojson", features())
    assert not list(tmp_path.iterdir())
