from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from bundle.report.charts import Chart, ticks


@pytest.mark.parametrize("seed", range(30))
def test_ticks_are_few_round_and_within(seed: int) -> None:
    rng = np.random.default_rng(seed)
    low = rng.normal() * 10 ** rng.uniform(-4, 4)
    high = low + 10 ** rng.uniform(-4, 4)
    found = ticks(low, high)
    assert 2 <= len(found) <= 6
    step = found[1] - found[0]
    assert low - 1e-9 * step <= found[0]
    assert found[-1] <= high + 1e-9 * step
    lead = step / 10 ** math.floor(math.log10(step) + 1e-9)
    assert min(abs(lead - f) for f in (1, 2, 5, 10)) < 1e-6


@pytest.mark.parametrize("log_x", [False, True])
def test_dots_keep_order_and_stay_inside(log_x: bool) -> None:
    x, y = np.array([2.0, 8.0, 16.0, 400.0]), np.array([-0.2, 0.1, np.nan, 0.9])
    chart = Chart(x, y, "x", "y", log_x=log_x, x_ticks=list(x))
    chart.dots(x, y, "s0", ["a", "b", "c", "d"])
    svg = ElementTree.fromstring(chart.svg("words"))
    dots = svg.findall("circle")
    assert [dot.find("title").text for dot in dots] == ["a", "b", "d"]  # type: ignore[union-attr]
    across, down = ([float(dot.get(k, "")) for dot in dots] for k in ("cx", "cy"))
    assert across == sorted(across)
    assert down == sorted(down, reverse=True)
    assert all(0 < a < chart.width for a in across)
    assert all(0 < d < chart.height for d in down)


def test_bars_start_at_zero() -> None:
    chart = Chart([1, 2, 3], [0.0, 0.5, 1.0], "x", "y")
    chart.dots([1], [0.0], "s0", ["zero"])
    chart.bars([1, 2, 3], [0.5, np.nan, 1.0], "limit")
    svg = ElementTree.fromstring(chart.svg("words"))
    zero = svg.find("circle").get("cy")  # type: ignore[union-attr]
    path = svg.find("path").get("d")  # type: ignore[union-attr]
    assert re.findall(r"M[\d.]+ ([\d.]+)V", path or "") == [zero, zero]


def test_names_cannot_break_out() -> None:
    chart = Chart([0, 1], [0, 1], "<x>", '"y"')
    chart.dots([0], [0], "s0", ["</title><script>"])
    chart.words(0, 0, "<i>")
    assert ElementTree.fromstring(chart.svg('"<&')).find(".//script") is None


@pytest.mark.parametrize("values", [[], [math.nan], [3.0], [0.0, 0.0]])
def test_nothing_to_span_still_draws(values: list[float]) -> None:
    chart = Chart(values, values, "x", "y")
    chart.line(values, values, "s0")
    ElementTree.fromstring(chart.svg("words"))
