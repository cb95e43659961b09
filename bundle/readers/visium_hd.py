"""Space Ranger's output for Visium HD (versions 3 and 4): square bins of one or several sizes, and segmented cells."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from ..data.polygons import Polygons
from ..errors import InputError
from .cells import cells_table
from .folders import walk
from .sample import Options, Place, Sample, UnitTable
from .tables import is_parquet, read_columns
from .tenx import Matrix, find_matrix, gene_features, read_json_gz, read_matrix, read_positions
from .visium import find_picture, name_of

__all__ = ["TITLE", "find", "read"]

TITLE = "Space Ranger, Visium HD (binned_outputs/square_*um, segmented_outputs)"
_BINS = re.compile(r"(?P<prefix>.*?)square_(?P<size>\d{3})um(_outputs)?")
_OUTER = re.compile(r"(?P<prefix>.*?)(binned|segmented)_outputs")
_POSITIONS = re.compile(r".*?tissue_positions(_list)?\.(parquet|csv)(\.gz)?")
#: By default bins from this size are imported; smaller ones hold little but noise and are many.
_USUAL_UM = 8.0
_TOLERANCE = 0.02
#: Corners of a bin that lie this share of its side off an upright square make it a quadrilateral.
_SQUARE_ENOUGH = 0.05


@dataclass(frozen=True)
class _Grid:
    """The bins of one size: where they lie, and the corners' map.

    Attributes:
        centers_px: (U, 2), (x, y).
        array_xy: column and row, (U, 2).
        in_tissue: (U,) bool.
        homography: takes (column, row, 1) to pixels, (3, 3).
    """

    centers_px: np.ndarray
    array_xy: np.ndarray
    in_tissue: np.ndarray
    homography: np.ndarray

    def corners(self, place: np.ndarray) -> np.ndarray:
        """The four corners of bins at (column, row), (N, 4, 2) pixels."""
        around = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
        return _mapped(self.homography, (place[:, None] + around).reshape(-1, 2)).reshape(-1, 4, 2)


def find(src: Path, options: Options) -> list[Place]:
    """Every folder that holds `square_*um` or `segmented_outputs` is a sample."""
    if not src.is_dir():
        return []
    found: dict[Path, tuple[str, list[Path], list[Path]]] = {}
    for here, inside, _ in walk(src):
        bins = _BINS.fullmatch(here.name)
        if bins and _positions_of(here) is not None:
            root, prefix = _root_of(here)
            entry = found.setdefault(root, (prefix or bins["prefix"], [], []))
            entry[1].append(here)
            inside.clear()
        elif here.name.endswith("segmented_outputs") and next(here.glob("*cell_segmentations.geojson*"), None):
            root, prefix = _root_of(here / "x")
            found.setdefault(root, (prefix, [], []))[2].append(here)
            inside.clear()
    places = []
    for root, (prefix, bins_of, cells_of) in sorted(found.items()):
        name = prefix.strip("_-. ") or name_of(root)
        places.append(Place(name, root, (*bins_of, *cells_of), (tuple(bins_of), tuple(cells_of))))
    return places


def _root_of(folder: Path) -> tuple[Path, str]:
    """The sample's folder above that of its bins, and the prefix of its parts."""
    outer = _OUTER.fullmatch(folder.parent.name)
    return (folder.parent.parent, outer["prefix"]) if outer else (folder.parent, "")


def _positions_of(folder: Path) -> Path | None:
    spatial = folder / "spatial"
    if not spatial.is_dir():
        return None
    return next((p for p in sorted(spatial.iterdir(), reverse=True) if _POSITIONS.fullmatch(p.name)), None)


def read(place: Place, options: Options) -> Sample:
    """Read one sample: bins of the sizes wanted, or its cells."""
    bins, cells = place.hint
    found: list[str] = []
    doubts: list[str] = []
    by_size = {float(_BINS.fullmatch(b.name)["size"]): b for b in bins}  # type: ignore[index]
    wants_cells = options.units == "cells" or not bins
    if options.units in ("spots", "transcripts"):
        raise InputError(f"{place.name}: Visium HD has bins and cells, no {options.units}.")
    if wants_cells and not cells:
        raise InputError(f"{place.path} holds no segmented_outputs; leave --units cells out to import its bins.")
    folders = list(cells[:1]) if wants_cells else [by_size[size] for size in _wanted(place, by_size, options, found)]
    if cells and not wants_cells:
        found.append("Its segmented cells can be imported with --units cells.")
    factors = _factors(folders[0])
    mpp = factors.get("microns_per_pixel")
    if not isinstance(mpp, (int, float)) or not mpp > 0:
        raise InputError(f"{folders[0]}: scalefactors_json.json has no microns_per_pixel.")
    spatial = folders[0] / "spatial"
    prefix = _prefix_of(spatial)
    image, scale, notes = find_picture(_with_pictures(place.path, spatial), spatial, prefix, factors, options)
    found += notes
    tables = []
    for folder in folders:
        matrix = read_matrix(find_matrix(folder) if not wants_cells else _cell_matrix(folder))
        features, genes, ids = gene_features(matrix, found, options.by_ids)
        if wants_cells:
            (polygons_file,) = sorted(folder.glob("*cell_segmentations.geojson*"), key=lambda p: len(p.name))[:1]
            tables.append(cells_table(matrix, features, genes, ids, polygons_file, scale, float(mpp) / scale, found))
        else:
            tables.append(_bins_table(folder, matrix, features, genes, ids, float(mpp), scale, options, found, doubts))
    return Sample(
        place.name,
        image,
        float(mpp) / scale,
        "microns_per_pixel of scalefactors_json.json" + ("" if scale == 1 else f"; this picture is {scale:.4g} of it"),
        tables,
        found=found,
        doubts=doubts,
    )


def _wanted(place: Place, by_size: dict[float, Path], options: Options, found: list[str]) -> list[float]:
    sizes = sorted(by_size)
    if options.sizes_um:
        missing = [size for size in options.sizes_um if size not in by_size]
        if missing:
            have = ", ".join(f"{size:g}" for size in sizes)
            raise InputError(f"{place.path} holds no bins of {missing[0]:g} µm; it holds {have} µm.")
        return sorted(options.sizes_um)
    usual = [size for size in sizes if size >= _USUAL_UM] or sizes[-1:]
    others = [f"{size:g}" for size in sizes if size not in usual]
    if others:
        found.append(f"Bins of {', '.join(others)} µm are there too: --bin-um {','.join(others)} imports them.")
    return usual


def _factors(folder: Path) -> dict[str, Any]:
    for path in sorted((folder / "spatial").glob("*scalefactors_json.json*")):
        return read_json_gz(path)
    raise InputError(f"{folder / 'spatial'} lacks scalefactors_json.json; copy it from Space Ranger's output.")


def _prefix_of(spatial: Path) -> str:
    return next(iter(sorted(spatial.glob("*scalefactors_json.json*")))).name.partition("scalefactors_json")[0]


def _with_pictures(root: Path, spatial: Path) -> Path:
    """Where to look for the full-resolution picture: the sample's folder, or the bins' own if that is it."""
    return root if root.is_dir() else spatial.parent


def _cell_matrix(folder: Path) -> Path:
    for pattern in ("*filtered_feature_cell_matrix.h5", "*filtered_feature_cell_matrix", "*feature_cell_matrix.h5"):
        for path in sorted(folder.glob(pattern)):
            return path
    return find_matrix(folder)


def _bins_table(
    folder: Path,
    matrix: Matrix,
    features: np.ndarray,
    genes: list[str],
    ids: list[str],
    mpp: float,
    scale: float,
    options: Options,
    found: list[str],
    doubts: list[str],
) -> UnitTable:
    size_um = float(_factors(folder).get("bin_size_um") or _BINS.fullmatch(folder.name)["size"])  # type: ignore[index]
    grid = _read_grid(folder, matrix, size_um)
    is_quad = False
    if len(grid.array_xy):
        corners = grid.corners(grid.array_xy[:: max(len(grid.array_xy) // 5000, 1)])
        side_px = float(np.median(np.linalg.norm(np.diff(corners, axis=1), axis=2)))
        by_grid = size_um / side_px
        if abs(by_grid / mpp - 1) > _TOLERANCE:
            doubts.append(
                f"{folder.name}: scalefactors_json.json says {mpp:.4g} µm per pixel, but bins of {size_um:g} µm lie "
                f"{side_px:.4g} px apart, which makes {by_grid:.4g}."
            )
        upright = corners.mean(1, keepdims=True) + side_px / 2 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
        # Which corner comes first depends on how the slide lies; every one of an upright square has a corner nearby.
        off = np.linalg.norm(corners[:, :, None] - upright[:, None], axis=3).min(2).max(1)
        share = float(np.quantile(off, 0.95)) / side_px
        is_quad = share > _SQUARE_ENOUGH and options.shape != "square"
        if share > _SQUARE_ENOUGH:
            drawn = "each as a quadrilateral (--shape square for upright squares)" if is_quad else "as upright squares"
            found.append(
                f"{folder.name}: the array lies turned or in perspective on the picture: a bin's corners are up "
                f"to {share:.0%} of its side off an upright square's. PixNet takes {drawn}."
            )
    table = UnitTable(
        f"square_{_BINS.fullmatch(folder.name)['size']}um",  # type: ignore[index]
        "square",
        size_um,
        matrix.barcodes,
        genes,
        grid.centers_px * scale,
        lambda: matrix.blocks(features),
        gene_ids=ids,
        in_tissue=grid.in_tissue,
        array_xy=grid.array_xy,
    )
    return _as_quads(table, grid, mpp, scale) if is_quad else table


def _as_quads(table: UnitTable, grid: _Grid, mpp: float, scale: float) -> UnitTable:
    """The same bins, each as the quadrilateral that it is on the picture."""
    n = len(grid.array_xy)
    vertices = np.empty((n, 4, 2), np.float32)
    for start in range(0, n, 500_000):
        part = slice(start, start + 500_000)
        vertices[part] = grid.corners(grid.array_xy[part]) * scale
    polygons = Polygons.of_shapes(shapely.polygons(vertices))
    size_um = float(np.median(2 * np.sqrt(polygons.areas_px2 / np.pi)) * mpp / scale)
    return replace(table, shape="polygon", size_um=size_um, polygons=polygons)


def _read_grid(folder: Path, matrix: Matrix, size_um: float) -> _Grid:
    """Positions of a matrix's bins; those of millions are looked up by the row and column in their names."""
    path = _positions_of(folder)
    assert path is not None
    columns = ["in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres"]
    places = _places_in_names(matrix.barcodes)
    if is_parquet(path) and places is not None:
        table = read_columns(path, columns)
        row, column = table["array_row"].to_numpy(np.int64), table["array_col"].to_numpy(np.int64)
        shape = (max(row.max(), places[:, 1].max()) + 1, max(column.max(), places[:, 0].max()) + 1)
        at = np.full(shape, -1, np.int64 if len(table) >= 2**31 else np.int32)
        at[row, column] = np.arange(len(table))
        index = at[places[:, 1], places[:, 0]]
        del at
    else:
        table = read_positions(path)
        names = [b.decode() if isinstance(b, bytes) else str(b) for b in matrix.barcodes]
        index = table.set_index("barcode").index.get_indexer(names)
        row, column = table["array_row"].to_numpy(np.int64), table["array_col"].to_numpy(np.int64)
    if (index < 0).any():
        first = matrix.barcodes[int((index < 0).argmax())]
        raise InputError(
            f"{path} has no position for {(index < 0).sum():,} of the {len(index):,} bins of the matrix (first: "
            f"{first.decode() if isinstance(first, bytes) else first}). Are both of the same sample?"
        )
    # Columns are row before column, that is y before x.
    centers = np.column_stack([table[name].to_numpy(np.float64)[index] for name in (columns[4], columns[3])])
    place = np.column_stack([column[index], row[index]]).astype(np.int32)
    sample = np.linspace(0, len(table) - 1, min(len(table), 20_000)).astype(np.int64)
    homography = _fitted(
        np.column_stack([column[sample], row[sample]]),
        np.column_stack([table[name].to_numpy(np.float64)[sample] for name in (columns[4], columns[3])]),
    )
    return _Grid(centers, place, table["in_tissue"].to_numpy()[index] == 1, homography)


def _places_in_names(barcodes: np.ndarray) -> np.ndarray | None:
    """Column and row in names such as `s_002um_00305_01021-1`, (U, 2); None where they are called otherwise."""
    if not len(barcodes):
        return None
    names = np.asarray(barcodes, dtype="S")
    first = re.fullmatch(rb"s_\d{3}um_(\d{5})_(\d{5})-\d+", bytes(names[0]))
    if first is None:
        return None
    letters = names.view(np.uint8).reshape(len(names), -1)
    places = np.zeros((len(names), 2), np.int32)
    for axis, start in enumerate((first.start(2), first.start(1))):
        for letter in letters[:, start : start + 5].T:
            digit = letter - np.uint8(ord("0"))  # what is no digit becomes larger than 9
            if digit.max() > 9:
                return None
            places[:, axis] *= 10
            places[:, axis] += digit
    return places


def _fitted(place: np.ndarray, at_px: np.ndarray) -> np.ndarray:
    """The homography that takes (column, row) to pixels; affine where there are too few points for more.

    Hartley & Zisserman, "Multiple View Geometry", 2004, section 4.1, on normalised points.
    """
    if len(np.unique(place[:, 0])) < 2 or len(np.unique(place[:, 1])) < 2:
        raise InputError("The bins lie on one line, so their corners are not known.")
    (source, from_place), (target, from_px) = _normalised(place), _normalised(at_px)
    ones, zeros = np.ones(len(source)), np.zeros((len(source), 3))
    points = np.column_stack([source, ones])
    affine = np.linalg.lstsq(points, target, rcond=None)[0].T
    matrix = np.vstack([affine, [0, 0, 1]])
    if len(place) >= 8:
        rows = np.concatenate(
            [
                np.column_stack([points, zeros, -target[:, :1] * points]),
                np.column_stack([zeros, points, -target[:, 1:] * points]),
            ]
        )
        full = np.linalg.svd(rows.T @ rows)[2][-1].reshape(3, 3)
        if abs(full[2, 2]) > 1e-9:
            matrix = full / full[2, 2]
    return np.linalg.inv(from_px) @ matrix @ from_place


def _normalised(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points about the origin at a distance of about 1, and the matrix that makes them so."""
    middle, spread = points.mean(0), max(float(points.std()), 1e-9)
    matrix = np.array([[1 / spread, 0, -middle[0] / spread], [0, 1 / spread, -middle[1] / spread], [0, 0, 1]])
    return (points - middle) / spread, matrix


def _mapped(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (x, y) under a homography."""
    out = points @ matrix[:, :2].T + matrix[:, 2]
    return out[:, :2] / out[:, 2:]
