"""Charts as inline SVG: they take the page's fonts and colours, light or dark, and name a point under the mouse."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape

import numpy as np

__all__ = ["Chart", "ticks"]

_Values = Sequence[float] | np.ndarray
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 12, 42


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from `low` to `high`, a step of 1, 2 or 5 times a power of ten apart."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * min((f for f in (1, 2, 5, 10) if f * power >= rough * 0.999), default=10)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def _label(value: float) -> str:
    return f"{value:.4g}".replace("-", "−").replace("e−0", "e−").replace("e+0", "e")


class Chart:
    """Axes that lines, dots and words are put on.

    Args:
        x, y: everything that the axes must span; NaN is ignored.
        x_label, y_label: of the axes.
        x_ticks: where to put ticks; round numbers by default.
        log_x: logarithmic x axis.
        width, height: in the page's pixels at full size.
    """

    def __init__(
        self,
        x: _Values,
        y: _Values,
        x_label: str,
        y_label: str,
        *,
        x_ticks: Sequence[float] | None = None,
        log_x: bool = False,
        width: int = 500,
        height: int = 290,
    ) -> None:
        self.width, self.height, self.log_x = width, height, log_x
        self.x_label, self.y_label = x_label, y_label
        self._x = self._span([math.log(v) for v in x] if log_x else x, 0.03)
        self._y = self._span(y, 0.06)
        self._x_ticks = ticks(*self._x, max(2, width // 90)) if x_ticks is None else list(x_ticks)
        self._parts: list[str] = []

    @staticmethod
    def _span(values: _Values, margin: float) -> tuple[float, float]:
        finite = np.asarray(values, float)
        finite = finite[np.isfinite(finite)]
        if not len(finite):
            return 0.0, 1.0
        low, high = float(finite.min()), float(finite.max())
        pad = margin * (high - low) or 0.1 * abs(high) or 1.0
        return low - pad, high + pad

    def _at(self, x: float, y: float) -> tuple[float, float]:
        x = math.log(x) if self.log_x else x
        (x0, x1), (y0, y1) = self._x, self._y
        across = _LEFT + (x - x0) / (x1 - x0) * (self.width - _LEFT - _RIGHT)
        down = _TOP + (y1 - y) / (y1 - y0) * (self.height - _TOP - _BOTTOM)
        return round(across, 1), round(down, 1)

    def _finite(self, x: _Values, y: _Values) -> Iterator[tuple[int, float, float]]:
        for i, (a, b) in enumerate(zip(x, y, strict=True)):
            if math.isfinite(a) and math.isfinite(b):
                yield i, *self._at(a, b)

    def line(self, x: _Values, y: _Values, style: str) -> None:
        """A line through the finite points, of a class of the page's style sheet."""
        points = " ".join(f"{a},{b}" for _, a, b in self._finite(x, y))
        if points:
            self._parts.append(f'<polyline class="line {style}" points="{points}"/>')

    def dots(self, x: _Values, y: _Values, style: str, titles: Sequence[str], radius: float = 3) -> None:
        """A dot for each finite point, with the words that appear under the mouse."""
        self._parts += [
            f'<circle class="dot {style}" cx="{a}" cy="{b}" r="{radius:g}"><title>{escape(titles[i])}</title></circle>'
            for i, a, b in self._finite(x, y)
        ]

    def bars(self, x: _Values, y: _Values, style: str) -> None:
        """A bar from zero to each finite point, as wide as the points are apart."""
        points = list(self._finite(x, y))
        if points:
            zero = self._at(float(x[points[0][0]]), 0)[1]
            across = (points[-1][1] - points[0][1]) / max(len(points) - 1, 1) * 0.72 or 6
            drawn = "".join(f"M{a} {zero}V{b}" for _, a, b in points)
            self._parts.append(f'<path class="bars {style}" stroke-width="{across:.2f}" d="{drawn}"/>')

    def words(self, x: float, y: float, text: str, anchor: str = "middle", dy: float = -8) -> None:
        """Words at a point, `dy` pixels below it."""
        if math.isfinite(x) and math.isfinite(y):
            a, b = self._at(x, y)
            self._parts.append(f'<text class="word" x="{a}" y="{b + dy}" text-anchor="{anchor}">{escape(text)}</text>')

    def svg(self, description: str) -> str:
        """The chart as an SVG element; `description` is what a screen reader says."""
        right, bottom = self.width - _RIGHT, self.height - _BOTTOM
        size = f'viewBox="0 0 {self.width} {self.height}"'
        out = [f'<svg class="chart" {size} role="img" aria-label="{escape(description)}">']
        for value in ticks(*self._y, max(3, (bottom - _TOP) // 45)):
            _, b = self._at(1, value)
            style = "grid zero" if abs(value) < 1e-12 else "grid"
            out.append(f'<line class="{style}" x1="{_LEFT}" x2="{right}" y1="{b}" y2="{b}"/>')
            out.append(f'<text x="{_LEFT - 8}" y="{b + 4}" text-anchor="end">{_label(value)}</text>')
        for value in self._x_ticks:
            a, _ = self._at(value, self._y[0])
            out.append(f'<line class="tick" x1="{a}" x2="{a}" y1="{bottom}" y2="{bottom + 4}"/>')
            out.append(f'<text x="{a}" y="{bottom + 18}" text-anchor="middle">{_label(value)}</text>')
        middle = (_TOP + bottom) / 2
        out += [
            f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>',
            f'<text class="label" x="{(_LEFT + right) / 2}" y="{self.height - 5}" text-anchor="middle">'
            f"{escape(self.x_label)}</text>",
            f'<text class="label" transform="rotate(-90 12 {middle})" x="12" y="{middle}" text-anchor="middle">'
            f"{escape(self.y_label)}</text>",
        ]
        return "".join([*out, *self._parts, "</svg>"])
