"""Cells to predict: polygons as GeoJSON (QuPath's export), or a label image."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import shapely

from ..errors import InputError, plural, short
from ..files.reading import check_file
from .polygons import Labels, LabelSource, Polygons
from .read_geojson import read_polygons
from .simple_polygons import clip
from .units import Shape, Units, unmeasured_units

__all__ = ["is_cells", "read_cells"]

logger = logging.getLogger(__name__)

_POLYGONS = (".geojson", ".json", ".geojson.gz", ".json.gz")
_LABELS = (".tif", ".tiff", ".npy")
#: What QuPath calls objects that hold others; left out where there are others.
_REGIONS = ("annotation", "tmaCore", "root")
#: No cell is smaller across than this; polygons in micrometres look so.
_SMALLEST_UM = 3.0
#: Drawing a polygon takes memory by its length; an annotation of a whole slide's tissue stays far below this.
_MAX_LENGTH_PX = 2**26


def is_cells(path: str | Path) -> bool:
    """Whether a file's ending is one that `read_cells` reads."""
    return str(path).lower().endswith(_POLYGONS + _LABELS)


def read_cells(
    path: str | Path,
    slide_mpp: float,
    slide_size_px: tuple[int, int],
    labels: Callable[[Path], LabelSource] | None = None,
) -> Units:
    """Read the cells of a slide as units without measurements.

    Polygons (`.geojson`, `.json`, also `.gz`) are in level-0 pixels, the slide's corner being (0, 0), as QuPath exports
    them (https://qupath.readthedocs.io, "Exporting annotations"). A cell is named by its `id`, else its `name`, else
    its number in the file. QuPath's annotations and cores are left out where the file also holds cells or detections;
    so are polygons of fewer than three points or without area, and features without polygons: all are counted in the
    log. Of a cell that reaches over the slide's edge the part on the slide counts: area and centre are that part's.

    A label image (`.tif`, `.tiff`, `.npy`) covers the whole slide at level 0 or coarser; 0 is no cell and any other
    number is one. A cell is named by its number.

    Args:
        path: the file.
        slide_mpp: micrometres per level-0 pixel of the slide.
        slide_size_px: (width, height) of the slide at level 0.
        labels: opens a label image (`transforms.LabelImage` is one); needed for those alone.

    Returns:
        Units of shape `polygon` or `label`, with their centroids as centres; `obs` holds `classification` where the
        file gives any.

    Raises:
        InputError: if the file cannot be read, holds no cells, or does not fit the slide; or two cells have one name.
    """
    path = check_file(path, "Give the cells' polygons (.geojson) or a label image (.tif, .npy).", True)
    name = path.name.lower()
    if name.endswith(_POLYGONS):
        return _of_polygons(path, slide_mpp, slide_size_px)
    if name.endswith(_LABELS):
        if labels is None:
            raise InputError(f"{path} is a label image: say what opens it (labels=transforms.LabelImage).")
        return _of_labels(path, slide_mpp, slide_size_px, labels(path))
    raise InputError(
        f"{path}: cells come as {', '.join(_POLYGONS)} (polygons) or {', '.join(_LABELS)} (a label image); its ending "
        "is none of these."
    )


def _of_polygons(path: Path, mpp: float, slide_size_px: tuple[int, int]) -> Units:
    found = read_polygons(path)
    shapes, names, classes = found.shapes, found.names, pd.Series(found.classes, dtype=object)
    if len(shapes) == 0:
        holds = []
        if found.degenerate:
            holds.append(f"{plural(len(found.degenerate), 'polygon')} of fewer than three points or without area")
        if found.others:
            holds.append(f"{plural(found.others, 'feature')} that are no polygons or have no geometry")
        raise InputError(
            f"{path} holds no polygon ({', '.join(holds) or 'it has no features'}). Export the cells as GeoJSON with "
            "their polygons, not their centres."
        )
    region = np.isin(found.types, _REGIONS)
    if region.any() and not region.all():
        logger.info("%s: PixNet leaves out %s beside the cells.", path.name, plural(int(region.sum()), "annotation"))
        kept = np.flatnonzero(~region)
        shapes, names, classes = shapes[kept], names[kept], classes.iloc[kept]
    if found.others:
        left_out = plural(found.others, "feature")
        logger.warning("%s: PixNet leaves out %s without polygons or without geometry.", path.name, left_out)
    if found.crossed:
        crossed = plural(found.crossed, "polygon")
        logger.info("%s: edges of %s cross; PixNet takes the area as it is drawn.", path.name, crossed)
    if found.degenerate:
        logger.warning(
            "%s: PixNet leaves out %s of fewer than three points or without area (first: %s).",
            path.name,
            plural(len(found.degenerate), "polygon"),
            found.degenerate[0],
        )
    _check_names(path, names)
    on_slide, over = clip(shapes, slide_size_px)
    lost = np.flatnonzero(shapely.area(on_slide) == 0)
    if len(lost):
        ((x, y),) = shapely.get_coordinates(shapely.centroid(shapes[lost[0]]))
        raise InputError(
            f"{path}: {len(lost)} of {len(names)} cells lie outside the slide ({slide_size_px[0]} x {slide_size_px[1]} "
            f"px), first {short(names[lost[0]])} at ({x:.0f}, {y:.0f}). Coordinates must be (x, y) in level-0 pixels "
            "of this very slide, from its upper left corner; are they in micrometres, or of another picture?"
        )
    length = shapely.length(on_slide)
    if (length > _MAX_LENGTH_PX).any():
        raise InputError(
            f'{path}: the polygon of "{short(names[length.argmax()])}" is {length.max():,.0f} px long, which no '
            "cell's is. Simplify it, or leave it out."
        )
    if over.any():
        logger.info("%s: PixNet cuts %s at the slide's edge.", path.name, plural(int(over.sum()), "cell"))
    polygons = Polygons.of_shapes(on_slide)
    obs = None
    if classes.notna().any():
        obs = pd.DataFrame({"classification": pd.Categorical(classes)}, index=pd.Index(names))
    return _units(path, "polygon", names, polygons.centroids_px, polygons, mpp, obs)


def _of_labels(path: Path, mpp: float, slide_size_px: tuple[int, int], image: LabelSource) -> Units:
    scale = np.array(_label_pixel_px(path, image.size_px, slide_size_px))
    found = image.measure()
    if len(found["ids"]) == 0:
        raise InputError(f"{path} holds no cell: all its labels are 0.")
    center = found["center"] * scale
    reach = np.maximum(center - found["low"] * scale, found["high"] * scale - center).max(axis=1)
    labels = Labels(
        image, found["ids"], (float(scale[0]), float(scale[1])), found["pixels"] * float(scale.prod()), reach
    )
    return _units(path, "label", found["ids"].astype(str), center, labels, mpp, None)


def _units(
    path: Path,
    shape: Shape,
    names: np.ndarray,
    centers_px: np.ndarray,
    geometry: Polygons | Labels,
    mpp: float,
    obs: pd.DataFrame | None,
) -> Units:
    size_um = float(np.median(2 * np.sqrt(geometry.areas_px2 / np.pi)) * mpp)
    if size_um < _SMALLEST_UM:
        logger.warning(
            "%s: the median cell measures %.2g µm across at %.4g µm per pixel, less than any cell does. Polygons must "
            "be in level-0 pixels; are they in micrometres, or of a smaller picture?",
            path.name,
            size_um,
            mpp,
        )
    return unmeasured_units(names, centers_px, shape, size_um, path.name, float(mpp), geometry, obs)


def _check_names(path: Path, names: np.ndarray) -> None:
    unique, count = np.unique(names, return_counts=True)
    if len(unique) < len(names):
        raise InputError(
            f"{path}: {(count > 1).sum()} names belong to more than one cell (first: {unique[count > 1][0]}). Give "
            'each cell an "id" of its own, or remove ids and names to have the cells numbered.'
        )


def _label_pixel_px(path: Path, size_px: tuple[int, int], slide_size_px: tuple[int, int]) -> tuple[float, float]:
    """Level-0 pixels per label pixel along x and y; the image covers the slide to within one pixel of its own."""
    sides = list(zip(slide_size_px, size_px, strict=True))
    low = max(slide / (n + 1) for slide, n in sides)
    high = min(slide / (n - 1) if n > 1 else np.inf for slide, n in sides)
    if low >= high:
        raise InputError(
            f"{path} has {size_px[0]} x {size_px[1]} px, which is the slide's {slide_size_px[0]} x {slide_size_px[1]} "
            "at no scale. A label image must cover the whole slide; was a part of it, or another slide, segmented?"
        )
    if high < 1:
        raise InputError(
            f"{path} has {size_px[0]} x {size_px[1]} px, more than the slide's {slide_size_px[0]} x "
            f"{slide_size_px[1]}. Give it at the slide's own level 0, or coarser."
        )
    whole = max(round(sum(slide / n for slide, n in sides) / 2), 1)
    if all(abs(slide / whole - n) < 1 for slide, n in sides):
        return float(whole), float(whole)  # 1531 -> 766 px is a halving and not 1.9987
    return slide_size_px[0] / size_px[0], slide_size_px[1] / size_px[1]
