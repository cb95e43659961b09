"""The options of a request, which `/info/` lists."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...data.opening import OpenSlide
from ...data.panel import GenePanel
from ...errors import InputError

__all__ = ["RESULTS", "SlideRequest", "options", "read_request", "read_training", "training_options"]

RESULTS = ("units", "contours", "map")
#: Genes that one file may hold.
_MAX_GENES = {"units": 50, "contours": 1, "map": 8}
#: Units that one request may predict, on tissue or not.
_MAX_COMPUTED = 1_000_000
_MAX_UNITS = 200_000
#: What a request of `/train` may set: default, least, most; whole numbers where the default is one.
_TRAINING: dict[str, tuple[float, float, float]] = {
    "max_epochs": (5, 1, 1_000),
    "learning_rate": (1e-4, 1e-8, 1.0),
}
#: The region that MONAI Label fills in where a request of `/infer/wsi_v2` names none.
_DEFAULT_PX = 2048


@dataclass(frozen=True)
class SlideRequest:
    """One request's options, checked.

    Attributes:
        result: `units`, `contours` or `map`.
        genes: the genes to predict; the first decides which units are kept.
        unit_um: side of the square units; contours run through their centres.
        threshold: y = log1p CP10k from which a unit is kept, or along which a contour runs.
        max_units: polygons at most; those of the highest first gene are kept.
        region_px: (x, y, width, height) in level-0 pixels; None for the whole slide.
    """

    result: str
    genes: tuple[str, ...]
    unit_um: float
    threshold: float | None = None
    max_units: int = 20_000
    region_px: tuple[float, float, float, float] | None = None

    def check_extent(self, slide: OpenSlide) -> None:
        """Refuse a region that is not on the slide or holds too much, before anything is computed.

        Raises:
            InputError: if the region is larger than the slide, or holds too many units.
        """
        width, height = slide.level_dimensions[0]
        covered_px2: float = width * height
        if self.region_px is not None:
            asked = self.region_px[2:]
            if asked[0] > max(width, _DEFAULT_PX) or asked[1] > max(height, _DEFAULT_PX):
                raise InputError(
                    f"A region of {asked[0]:g} x {asked[1]:g} px is larger than the slide, {width} x {height} px; "
                    "location and size are in pixels of its full resolution."
                )
            covered_px2 = min(asked[0], width) * min(asked[1], height)
        area_um2 = covered_px2 * slide.mpp**2
        if self.result != "map" and area_um2 / self.unit_um**2 > _MAX_COMPUTED:
            raise InputError(
                f"{area_um2 / self.unit_um**2:,.0f} units of {self.unit_um:g} µm are more than {_MAX_COMPUTED:,}; ask "
                f"for a smaller region, or a unit_um of {math.ceil(math.sqrt(area_um2 / _MAX_COMPUTED))} or more."
            )


def options(panel: GenePanel) -> dict[str, Any]:
    """The options and their defaults, as `/info/` lists them: of a list the first is the default."""
    return {
        "result": list(RESULTS),
        "gene": list(panel.genes),
        "unit_um": float(max(panel.unit_sizes_um)),
        "threshold": None,
        "max_units": SlideRequest.max_units,
    }


def read_request(request: Mapping[str, Any], panel: GenePanel) -> SlideRequest:
    """Read and check a request's options; ignore what else MONAI Label or a client put into it.

    Raises:
        InputError: if a value cannot be, or a key is close to an option's name.
    """
    known = options(panel)
    _check_keys(request, known)
    result = _given(request, "result", RESULTS[0])
    if result not in RESULTS:
        raise InputError(
            f'There is no result "{str(result)[:50]}"; ask for {", ".join(RESULTS[:-1])} or {RESULTS[-1]}.'
        )
    threshold = _given(request, "threshold", None)
    return SlideRequest(
        result,
        _genes(_given(request, "gene", panel.genes[0]), panel, _MAX_GENES[result], result),
        _number("unit_um", _given(request, "unit_um", known["unit_um"]), 0.5, 10_000),
        None if threshold is None else _number("threshold", threshold, 0, 20),
        _whole("max_units", _given(request, "max_units", known["max_units"]), 1, _MAX_UNITS),
        _region(request),
    )


def training_options() -> dict[str, float]:
    """What a request of `/train` may set, and the defaults."""
    return {key: default for key, (default, _, _) in _TRAINING.items()}


def read_training(request: Mapping[str, Any]) -> dict[str, float]:
    """Read and check what a request of `/train` sets; numbers alone, since a configuration evaluates text.

    Raises:
        InputError: if a value cannot be, or a key is close to an option's name.
    """
    _check_keys(request, _TRAINING)
    found: dict[str, float] = {}
    for key, (default, low, high) in _TRAINING.items():
        read = _whole if isinstance(default, int) else _number
        found[key] = read(key, _given(request, key, default), low, high)
    return found


def _check_keys(request: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuse a slip in an option's name; other keys are MONAI Label's or a client's own."""
    for key in sorted(set(request) - {*known, "location", "size", "level"}):
        close = difflib.get_close_matches(key, known, 1, 0.75)
        if close:
            raise InputError(f'There is no option "{key}"; did you mean "{close[0]}"?')


def _given(request: Mapping[str, Any], key: str, default: Any) -> Any:
    return default if request.get(key) is None else request[key]


def _genes(given: Any, panel: GenePanel, most: int, result: str) -> tuple[str, ...]:
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, (list, tuple)) or not names or not all(isinstance(name, str) for name in names):
        raise InputError('"gene" must be the name of a gene or a list of names.')
    have = set(panel.genes)
    unknown = [name for name in names if name not in have]
    if unknown:
        spelt = {gene.upper(): gene for gene in panel.genes}
        close = difflib.get_close_matches(unknown[0].upper(), spelt, 1, 0.75)
        hint = f'did you mean "{spelt[close[0]]}"?' if close else f"/info/ lists its {len(panel)} genes."
        raise InputError(f'The model does not predict "{unknown[0][:50]}"; {hint}')
    if len(set(names)) > most:
        raise InputError(f'"{result}" takes at most {most} gene{"s" * (most > 1)}; {len(set(names))} are named.')
    return tuple(dict.fromkeys(names))


def _number(key: str, value: Any, low: float, high: float) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not low <= number <= high:
        raise InputError(f'"{key}" is {str(value)[:50]}; it must be a number from {low:g} to {high:,}.')
    return number


def _whole(key: str, value: Any, low: float, high: float) -> int:
    number = _number(key, value, low, high)
    if number != int(number):
        raise InputError(f'"{key}" is {number:g}; it must be a whole number.')
    return int(number)


def _region(request: Mapping[str, Any]) -> tuple[float, float, float, float] | None:
    if request.get("level") not in (None, 0):
        raise InputError("Give regions at level 0: location and size are in its pixels.")
    size = _pair("size", request.get("size"))
    location = _pair("location", request.get("location"))
    if size == (0, 0) and location == (0, 0):  # MONAI Label's whole slide
        return None
    if min(size) <= 0:
        raise InputError(f'"size" is {list(size)}; width and height must be above 0.')
    return (*location, *size)


def _pair(key: str, value: Any) -> tuple[float, float]:
    if value is None:
        return 0.0, 0.0
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        raise InputError(f'"{key}" must be two numbers, in pixels of the slide\'s full resolution.')
    return _number(key, value[0], -1e9, 1e9), _number(key, value[1], -1e9, 1e9)
