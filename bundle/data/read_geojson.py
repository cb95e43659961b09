"""Read the polygons of a GeoJSON file feature by feature, so that half a million fit in memory."""

from __future__ import annotations

import gzip
import json
import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from ..errors import InputError, short
from ..files.reading import check_file, reading
from .simple_polygons import simple

__all__ = ["PolygonFile", "read_polygons"]

_SPACE = re.compile(r"[ \t\n\r]*")
_DECODE = json.JSONDecoder().raw_decode
_END = object()
_EXPORT = "Export the cells again (QuPath: File, Export objects as GeoJSON)."
#: No slide reaches this far, and no cell's polygon has more points.
MAX_PX, MAX_POINTS = 2**31, 2**20
#: QuPath before 0.3 wrote what an object is where its id belongs.
_QUPATH_TYPES = {
    "PathCellObject": "cell",
    "PathDetectionObject": "detection",
    "PathTileObject": "tile",
    "PathAnnotationObject": "annotation",
    "TMACoreObject": "tmaCore",
    "PathRootObject": "root",
}


@dataclass(frozen=True)
class PolygonFile:
    """The polygons of a file, in its order.

    Attributes:
        names: each one's id, else its name, else its number in the file.
        types: QuPath's type of object (`cell`, `detection`, `annotation` ...), "" where none is said.
        classes: its classification, None where it has none.
        shapes: simple polygons and multipolygons of shapely, not empty (see `bundle.data.simple_polygons`).
        crossed: how many polygons crossed themselves and were resolved.
        degenerate: names of those left out for having fewer than three points or no area.
        others: how many features are no polygons, or have no geometry.
    """

    names: np.ndarray
    types: np.ndarray
    classes: list[str | None]
    shapes: np.ndarray
    crossed: int
    degenerate: list[str]
    others: int


def read_polygons(path: Path) -> PolygonFile:
    """Read a FeatureCollection, a list of Features or one Feature.

    `Polygon` and `MultiPolygon` are read (RFC 7946, section 3.1), as QuPath exports them: its `classification` and
    type of object are kept, `nucleusGeometry` and measurements are not. A point is inside a polygon where a ray from it
    crosses the rings an odd number of times, whichever way round they run.

    Raises:
        InputError: if the file is not JSON, or a polygon's coordinates are not numbers that a slide can have, or it
            has too many points or crosses itself too often for a cell.
    """
    names: list[str] = []
    types: list[str] = []
    classes: list[str | None] = []
    degenerate: list[str] = []
    others = 0
    flat = array("d")
    rings, pieces, units = array("q", [0]), array("q", [0]), array("q", [0])
    for number, feature in enumerate(_features(path), start=1):
        geometry = feature.get("geometry") if isinstance(feature, dict) else None
        geometry = geometry if isinstance(geometry, dict) else {}
        parts: Any = geometry.get("coordinates")
        if geometry.get("type") == "Polygon":
            parts = [parts]
        elif geometry.get("type") != "MultiPolygon":
            others += 1
            continue
        name, kind, label = _about(feature, number)
        try:
            for part in parts:
                _append(part, flat, rings)
                if len(rings) - 1 > pieces[-1]:
                    pieces.append(len(rings) - 1)
        except (TypeError, LookupError) as error:
            raise InputError(
                f"{path}: the coordinates of feature {number} ({name}) are not lists of numbers. A Polygon holds rings "
                "of [x, y]."
            ) from error
        if len(pieces) - 1 == units[-1]:
            degenerate.append(name)
            continue
        units.append(len(pieces) - 1)
        names.append(name)
        types.append(kind)
        classes.append(label)

    vertices = np.frombuffer(flat, dtype=np.float64).reshape(-1, 2)
    first = np.asarray(rings)[np.asarray(pieces)[np.asarray(units)]]  # each unit's first vertex
    _check_vertices(path, vertices, first, names)
    offsets = tuple(np.asarray(part, dtype=np.int64) for part in (rings, pieces, units))
    read = shapely.from_ragged_array(shapely.GeometryType.MULTIPOLYGON, vertices, offsets)
    shapes, crossed = simple(read, names, str(path))
    sound = shapely.area(shapes) > 0
    if not sound.all():
        degenerate += [names[i] for i in np.flatnonzero(~sound)]
        kept = np.flatnonzero(sound)
        names, types, classes = ([values[i] for i in kept] for values in (names, types, classes))  # type: ignore[assignment]
        shapes = shapes[kept]
    return PolygonFile(
        np.array(names, dtype=str), np.array(types, dtype=str), classes, shapes, crossed, degenerate, others
    )


def _check_vertices(path: Path, vertices: np.ndarray, first: np.ndarray, names: Sequence[str]) -> None:
    """Refuse what is no place on a slide, and polygons of more points than a cell's can have."""
    with np.errstate(invalid="ignore"):
        bad = ~(np.abs(vertices) < MAX_PX).all(1)  # NaN too
    if bad.any():
        at = int(bad.argmax())
        name = names[int(np.searchsorted(first, at, side="right")) - 1]
        raise InputError(
            f'{path}: {bad.sum()} points have coordinates that are no numbers or lie on no slide, first of "'
            f'{short(name)}": ({vertices[at, 0]:g}, {vertices[at, 1]:g}). Export the cells again, in level-0 pixels.'
        )
    count = np.diff(first)
    if (count > MAX_POINTS).any():
        raise InputError(
            f'{path}: the polygon of "{short(names[int(count.argmax())])}" has {count.max():,} points; a cell\'s may '
            f"have {MAX_POINTS:,}. Simplify it, or leave it out."
        )


def _append(part: Sequence[Any], flat: array, rings: array) -> None:
    """Add one polygon's rings, each closed; nothing where its outer ring is no ring."""
    for i, ring in enumerate(part):
        start = len(flat)
        flat.extend(chain.from_iterable(ring))
        if len(flat) - start != 2 * len(ring):  # points have a height too
            del flat[start:]
            flat.extend(chain.from_iterable((point[0], point[1]) for point in ring))
        if len(ring) > 1 and flat[start : start + 2] != flat[-2:]:
            flat.extend(flat[start : start + 2])
        if len(flat) - start < 8:
            del flat[start:]
            if i == 0:
                return
            continue
        rings.append(len(flat) // 2)


def _about(feature: dict[str, Any], number: int) -> tuple[str, str, str | None]:
    """Name, QuPath's type of object and classification of a feature."""
    properties = feature.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    kind = str(properties.get("objectType") or properties.get("object_type") or "")
    name = feature.get("id")
    if name in _QUPATH_TYPES:
        kind, name = _QUPATH_TYPES[name], None
    name = properties.get("name", properties.get("cell_id")) if name is None else name  # Space Ranger numbers cells
    label = properties.get("classification")
    if isinstance(label, dict):
        label = label.get("name") or label.get("names")
    if isinstance(label, list):
        label = ": ".join(map(str, label))  # as QuPath shows a class derived from another
    return str(number if name is None else name), kind, str(label) if label else None


def _features(path: Path) -> Iterator[Any]:
    """Decode one feature at a time: the whole as Python objects would take tens of times the file's size."""
    check_file(path, "Give the cells' polygons as GeoJSON.", may_be_empty=True)
    opened = gzip.open if path.suffix == ".gz" else open
    with reading(path, "is not GeoJSON", _EXPORT), opened(path, "rb") as file:
        text = file.read().decode("utf-8-sig")
    found = _decoded(text)
    while True:
        with reading(path, "is not GeoJSON", _EXPORT):  # not what is made of a feature
            feature = next(found, _END)
        if feature is _END:
            return
        yield feature


def _decoded(text: str) -> Iterator[Any]:
    place = _skip(text, 0)
    if text[place : place + 1] == "[":
        yield from _items(text, place)
        return
    if text[place : place + 1] != "{":
        raise ValueError("it starts with neither { nor [")
    whole = {}
    place = _skip(text, place + 1)
    while text[place : place + 1] != "}":
        key, place = _DECODE(text, place)
        place = _skip(text, place)
        if text[place : place + 1] != ":":
            raise ValueError(f"a colon is missing at character {place}")
        place = _skip(text, place + 1)
        if key == "features" and text[place : place + 1] == "[":
            yield from _items(text, place)
            return
        whole[key], place = _DECODE(text, place)
        place = _next(text, place, "}")
    yield whole


def _items(text: str, place: int) -> Iterator[Any]:
    place = _skip(text, place + 1)
    while text[place : place + 1] != "]":
        item, place = _DECODE(text, place)
        yield item
        place = _next(text, place, "]")


def _next(text: str, place: int, closing: str) -> int:
    """The place of the next item, or of the closing bracket."""
    place = _skip(text, place)
    if text[place : place + 1] == ",":
        return _skip(text, place + 1)
    if text[place : place + 1] != closing:
        raise ValueError(f"it breaks off or is damaged at character {place} of {len(text)}")
    return place


def _skip(text: str, place: int) -> int:
    return _SPACE.match(text, place).end()  # type: ignore[union-attr]
