"""SpatialData zarr, read with zarr and shapely alone: an image, shapes and the table that annotates them.

The picture and the shapes meet in a coordinate system; the zarr does not say what a step of it means.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import shapely
import zarr

from ..data.polygons import Polygons
from ..data.visium import CAPTURE_DISK_UM, PITCH_UM, visium_pitch_px
from ..errors import InputError, missing_extra
from ..files.reading import reading
from .alignment import apply, px_per_unit, read_matrix_3x3
from .anndata import find_counts, gene_names, read_any
from .sample import Options, Place, Sample, UnitTable

__all__ = ["TITLE", "find", "read"]

TITLE = "SpatialData (.zarr with images, shapes and tables)"
_SQUARE_TOLERANCE = 0.02


@dataclass(frozen=True)
class _Image:
    """An image of the zarr.

    Attributes:
        path: of the element.
        size_px: width and height of its finest level.
        systems: matrices from its pixels to coordinate systems, by name.
        finest: name of its finest level.
        axes: of its arrays, such as `cyx`.
    """

    path: Path
    size_px: tuple[int, int]
    systems: dict[str, np.ndarray]
    finest: str
    axes: str


class _Pixels:
    """The finest level of an image as (height, width, 3), read block by block."""

    def __init__(self, image: _Image) -> None:
        self._array: Any = zarr.open_array(image.path / image.finest, mode="r")
        self._axes = image.axes
        self.shape = (image.size_px[1], image.size_px[0], 3)

    def __getitem__(self, index: tuple[slice, slice]) -> np.ndarray:
        rows, columns = index
        where = {"y": rows, "x": columns, "c": slice(0, 3)}
        block = np.asarray(self._array[tuple(where.get(axis, 0) for axis in self._axes)])
        kept = [axis for axis in self._axes if axis in where]
        return np.ascontiguousarray(block.transpose([kept.index(axis) for axis in "yxc"]))


def find(src: Path, options: Options) -> list[Place]:
    """A SpatialData zarr, or all in a folder; each coordinate system with a picture is a sample."""
    stores = [src] if _is_spatialdata(src) else []
    if not stores and src.is_dir():
        stores = [path for path in sorted(src.iterdir()) if _is_spatialdata(path)]
    places = []
    for store in stores:
        stem = store.name.removesuffix(".zarr")
        chosen = _samples_of(store)
        if not chosen and options.image is not None:
            places.append(Place(stem, store, (store,), (None, None)))
        for system, image in chosen:
            name = stem if len(chosen) == 1 else f"{stem}_{system}"
            places.append(Place(name, store, (store,), (system, image)))
    return places


def _is_spatialdata(path: Path) -> bool:
    return path.is_dir() and (path / "shapes").is_dir() and ((path / "tables").is_dir() or (path / "table").is_dir())


def _samples_of(store: Path) -> list[tuple[str, str]]:
    """Coordinate systems that have shapes, each with its finest RGB image."""
    with reading(store, "cannot be read as SpatialData"):
        images = [image for path in _elements(store / "images") if (image := _image(path)) is not None]
        shapes = {
            path.name: _systems(dict(zarr.open_group(path, mode="r").attrs), "xy")
            for path in _elements(store / "shapes")
        }
    best: dict[str, _Image] = {}
    for image in images:
        for system in image.systems:
            if any(system in of for of in shapes.values()):
                known = best.get(system)
                if known is None or image.size_px > known.size_px:
                    best[system] = image
    chosen: dict[Path, str] = {}
    for system, image in best.items():  # one sample for an image that lies in several systems
        if image.path not in chosen or system == "global":
            chosen[image.path] = system
    return [(system, path.name) for path, system in chosen.items()]


def _elements(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_dir()] if folder.is_dir() else []


def _image(path: Path) -> _Image | None:
    """An image of three or four channels of 8 bits; None for others."""
    attributes: dict[str, Any] = dict(zarr.open_group(path, mode="r").attrs)
    (scales,) = attributes.get("ome", attributes).get("multiscales", [])[:1] or [None]
    if scales is None:
        return None
    axes = "".join(axis["name"] for axis in scales["axes"])
    finest = scales["datasets"][0]["path"]
    array: Any = zarr.open_array(path / finest, mode="r")
    shape = dict(zip(axes, array.shape, strict=True))
    if array.dtype != np.uint8 or shape.get("c") not in (3, 4):
        return None
    return _Image(path, (shape["x"], shape["y"]), _systems(scales, axes), finest, axes)


def _systems(attributes: dict[str, Any], axes: str) -> dict[str, np.ndarray]:
    """Matrices (3, 3) from an element's (x, y) to coordinate systems, by their names."""
    found = {}
    for transformation in attributes.get("coordinateTransformations", []):
        name = transformation.get("output", {}).get("name")
        if name is not None:
            found[str(name)] = _matrix(transformation, axes)
    return found


def _matrix(transformation: dict[str, Any], axes: str) -> np.ndarray:
    kind = transformation["type"]
    inner = transformation.get("input", {}).get("axes")
    axes = "".join(axis["name"] for axis in inner) if inner else axes
    x, y = axes.index("x"), axes.index("y")
    matrix = np.eye(3)
    if kind == "scale":
        matrix[0, 0], matrix[1, 1] = transformation["scale"][x], transformation["scale"][y]
    elif kind == "translation":
        matrix[0, 2], matrix[1, 2] = transformation["translation"][x], transformation["translation"][y]
    elif kind == "affine":
        outer = transformation.get("output", {}).get("axes")
        out = "".join(axis["name"] for axis in outer) if outer else axes
        full = np.array(transformation["affine"], dtype=np.float64)
        matrix[:2] = full[[out.index("x"), out.index("y")]][:, [x, y, full.shape[1] - 1]]
    elif kind == "sequence":
        for step in transformation["transformations"]:
            matrix = _matrix(step, axes) @ matrix
    elif kind != "identity":
        raise ValueError(f'a transformation of type "{kind}" is not known')
    return matrix


def read(place: Place, options: Options) -> Sample:
    """Read the shapes that a table annotates and that share the picture's coordinate system."""
    system, name = place.hint
    found: list[str] = []
    image = None
    if options.image is None:
        with reading(place.path, "cannot be read as SpatialData"):
            image = _image(place.path / "images" / name)
        assert image is not None
        to_px = np.linalg.inv(image.systems[system])
        found.append(f'The picture is the image "{name}" in the coordinate system "{system}".')
    else:
        system = system or "global"
        to_px = read_matrix_3x3(options.transform) if options.transform else np.eye(3)
        to_px = np.linalg.inv(to_px) if options.transform_inverted else to_px
    regions = [region for table in _tables(place.path) for region in _regions(place.path, table, system, found)]
    if not regions:
        raise InputError(f'{place.path}: no table annotates shapes in the coordinate system "{system}".')
    mpp, mpp_from = _scale(regions, to_px, options, place, system)
    tables = [_units(region, to_px, mpp, options, place.path, found) for region in regions]
    return Sample(
        place.name,
        options.image or place.path / "images" / name,
        mpp,
        mpp_from,
        tables,
        found=found,
        pixels=None if image is None else _Pixels(image),
    )


@dataclass(frozen=True)
class _Region:
    """Shapes with the rows of a table that annotate them.

    Attributes:
        name: of the shapes.
        shapes: points or polygons, (U,).
        radius: of circles, (U,); None for polygons.
        matrix: takes them to the coordinate system.
        adata: the annotating rows, in their order.
    """

    name: str
    shapes: np.ndarray
    radius: np.ndarray | None
    matrix: np.ndarray
    adata: Any


def _tables(store: Path) -> list[Path]:
    return _elements(store / "tables") or _elements(store / "table")


def _regions(store: Path, table: Path, system: str, found: list[str]) -> list[_Region]:
    """The regions of a table whose shapes lie in a coordinate system."""
    attributes: dict[str, Any] = dict(zarr.open_group(table, mode="r").attrs)
    adata = read_any(table)
    attributes = {**adata.uns.get("spatialdata_attrs", {}), **attributes}
    region_key, instance_key = attributes.get("region_key"), attributes.get("instance_key")
    if region_key not in adata.obs or instance_key not in adata.obs:
        found.append(f'The table "{table.name}" annotates no shapes.')
        return []
    regions = []
    for name in dict.fromkeys(adata.obs[region_key].astype(str)):
        folder = store / "shapes" / name
        if not folder.is_dir():
            found.append(f'"{name}", which the table "{table.name}" annotates, is no shapes element.')
            continue
        systems = _systems(dict(zarr.open_group(folder, mode="r").attrs), "xy")
        if system not in systems:
            continue
        held = _read_shapes(folder)
        rows = adata[(adata.obs[region_key].astype(str) == name).to_numpy()]
        place = pd.Index(held.index.astype(str)).get_indexer(rows.obs[instance_key].astype(str))
        if (place < 0).any():
            raise InputError(
                f'{folder} lacks {(place < 0).sum():,} of the {len(place):,} shapes that "{table.name}" names.'
            )
        shapes = shapely.from_wkb(held["geometry"].to_numpy()[place])
        radius = held["radius"].to_numpy(np.float64)[place] if "radius" in held else None
        regions.append(_Region(name, shapes, radius, systems[system], rows))
    return regions


def _read_shapes(folder: Path) -> pd.DataFrame:
    path = folder / "shapes.parquet"
    if not path.is_file():
        raise InputError(
            f"{folder} holds no shapes.parquet; write the SpatialData again with spatialdata 0.1 or later."
        )
    try:
        from pyarrow.parquet import read_table
    except ImportError as error:
        raise missing_extra("The shapes of a SpatialData are parquet, which pyarrow reads", "parquet") from error
    with reading(path, "cannot be read as parquet"):
        return read_table(path).to_pandas()


def _scale(
    regions: Sequence[_Region], to_px: np.ndarray, options: Options, place: Place, system: str
) -> tuple[float, str]:
    """Micrometres per pixel of the picture, and where that comes from."""
    for region in regions:
        if region.radius is not None and options.units != "cells":
            centers = apply(to_px @ region.matrix, shapely.get_coordinates(shapely.centroid(region.shapes)))
            step = px_per_unit(to_px @ region.matrix, np.zeros((1, 2)))
            pitch_px = visium_pitch_px(region.adata.obs, centers, 2 * float(np.median(region.radius)) * step)
            if pitch_px is not None:
                return PITCH_UM / pitch_px, f"Visium spots {PITCH_UM:g} µm apart lie {pitch_px:.4g} px apart"
    if options.unit_um:
        scale = px_per_unit(to_px, np.zeros((1, 2)))
        return (
            options.unit_um / scale,
            f'a step of the coordinate system "{system}" is {options.unit_um:g} µm, as given',
        )
    if options.mpp is not None:
        return options.mpp, "as given"
    raise InputError(
        f'{place.path} does not say what a step of its coordinate system "{system}" means. Give --unit-um 1 if it is '
        "micrometres, or the picture's --mpp."
    )


def _units(region: _Region, to_px: np.ndarray, mpp: float, options: Options, path: Path, found: list[str]) -> UnitTable:
    """The units of one region in pixels of the picture."""
    counts = find_counts(region.adata, options.layer, path)
    found.append(f'Raw counts of "{region.name}" come from {counts.where}.')
    genes, ids = gene_names(counts.var, options, found)
    matrix = to_px @ region.matrix
    step = px_per_unit(matrix, np.zeros((1, 2)))
    common: dict[str, Any] = {
        "barcodes": region.adata.obs_names.to_numpy(str),
        "genes": genes,
        "gene_ids": ids,
    }
    if region.radius is not None:
        centers = apply(matrix, shapely.get_coordinates(shapely.centroid(region.shapes)))
        diameter = 2 * float(np.median(region.radius)) * step
        is_visium = visium_pitch_px(region.adata.obs, centers, diameter) is not None
        size_um = options.size_um or (CAPTURE_DISK_UM if is_visium else diameter * mpp)
        shape = options.shape or "circle"
        return UnitTable.of_matrix(
            counts.matrix, name=region.name, shape=shape, size_um=size_um, centers_px=centers, **common
        )
    shapes = shapely.transform(region.shapes, lambda points: apply(matrix, points))
    polygons = Polygons.of_shapes(shapes)
    bounds = shapely.bounds(shapes)
    sides = bounds[:, 2:] - bounds[:, :2]
    side = float(np.median(sides))
    full = np.abs(polygons.areas_px2 / (sides.prod(1) + 1e-12) - 1) < _SQUARE_TOLERANCE
    if full.all() and (np.abs(sides / side - 1) < _SQUARE_TOLERANCE).all():
        return UnitTable.of_matrix(
            counts.matrix,
            name=region.name,
            shape="square",
            size_um=round(side * mpp, 3),
            centers_px=polygons.centroids_px,
            **common,
        )
    size_um = float(np.median(2 * np.sqrt(polygons.areas_px2 / np.pi)) * mpp)
    return UnitTable.of_matrix(
        counts.matrix,
        name=region.name,
        shape="polygon",
        size_um=size_um,
        centers_px=polygons.centroids_px,
        polygons=polygons,
        **common,
    )
