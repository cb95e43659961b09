"""Xenium Ranger's output: single transcripts counted in bins, or cells with their polygons, on the aligned H&E."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from ..errors import InputError
from ..files.reading import reading
from .alignment import apply, px_per_unit, read_matrix_3x3, share_inside, size_of_picture
from .cells import with_polygons
from .folders import walk
from .sample import Options, Place, Sample, UnitTable
from .tables import columns_of, read_columns
from .tenx import gene_features, read_matrix
from .transcripts import PRESETS, bin_tables, is_control
from .visium import name_of

__all__ = ["TITLE", "find", "read"]

TITLE = "Xenium Ranger (experiment.xenium, transcripts, cells)"
#: Micrometres of a pixel of the morphology picture, where experiment.xenium does not say.
MORPHOLOGY_UM = 0.2125
_HE = re.compile(r".*(he_image|h_?&?_?e)\S*\.(ome\.)?(tiff?|btf|svs|ndpi|jpe?g|png)", re.IGNORECASE)
_ALIGNMENT = re.compile(r".*(he_image|he|image)?_?(imagealignment|alignment)\S*\.(csv|zip)", re.IGNORECASE)
_TABLES = ("parquet", "csv.gz", "csv")


def find(src: Path, options: Options) -> list[Place]:
    """Every folder with `experiment.xenium`, or with transcripts and cells; versions in names say nothing."""
    if not src.is_dir():
        return []
    places = []
    for here, inside, files in walk(src):
        names = set(files)
        has = {stem: any(f"{stem}.{end}" in names for end in _TABLES) for stem in ("transcripts", "cells")}
        if "experiment.xenium" in names or (has["transcripts"] and has["cells"]):
            # Focus pictures are tens of gigabytes and no part of the import.
            parts = tuple(here / f for f in sorted(names) if not f.startswith("morphology"))
            places.append(Place(name_of(here), here, parts))
            inside.clear()
    return places


def read(place: Place, options: Options) -> Sample:
    """Read one sample: transcripts in bins (the default) or cells."""
    found: list[str] = []
    doubts: list[str] = []
    pixel_um = _pixel_um(place.path, found)
    image = options.image or _only_one(place.path, _HE, "H&E picture", "--image")
    if image is None:
        raise InputError(
            f"{place.path} holds no H&E (*he_image.ome.tif); its morphology pictures are fluorescence. Name it with "
            "--image, and its alignment with --transform."
        )
    to_px, mpp, mpp_from = _alignment(place, image, pixel_um, options, found, doubts)
    wanted = options.units or "bins"
    if wanted in ("bins", "transcripts"):
        path = _table(place.path, "transcripts")
        if path is None:
            raise InputError(
                f"{place.path} lacks transcripts.parquet (or .csv.gz); PixNet does not read transcripts.zarr. Import "
                "its cells with --units cells."
            )
        found.append(f"Transcripts of {path.name} are counted in bins; --units cells imports its cells.")
        tables = bin_tables(path, PRESETS["xenium"], options, to_px, mpp, size_of_picture(image), found)
    elif wanted == "cells":
        tables = [_cells(place.path, to_px, mpp, options, found)]
    else:
        raise InputError(f"{place.name}: Xenium has transcripts and cells, no {wanted}.")
    return Sample(
        place.name, image, mpp, mpp_from, tables, found=found, doubts=doubts, about={"transcriptome": "panel"}
    )


def _pixel_um(folder: Path, found: list[str]) -> float:
    path = folder / "experiment.xenium"
    if path.is_file():
        with reading(path, "is not valid JSON", "Copy it again."):
            size = json.loads(path.read_text()).get("pixel_size")
        if isinstance(size, (int, float)) and size > 0:
            return float(size)
    found.append(f"experiment.xenium states no pixel_size; PixNet takes {MORPHOLOGY_UM} µm.")
    return MORPHOLOGY_UM


def _only_one(folder: Path, pattern: re.Pattern[str], what: str, option: str) -> Path | None:
    """The one file of a kind in the sample's folder, else in that above it."""
    for where in (folder, folder.resolve().parent):
        files = [
            p
            for p in sorted(where.iterdir())
            if p.is_file() and pattern.fullmatch(p.name) and not p.name.startswith("morphology")
        ]
        if what == "H&E picture":
            files = [p for p in files if "alignment" not in p.name.lower()]
        if len(files) > 1:
            names = ", ".join(p.name for p in files[:4])
            raise InputError(f"{where} holds {len(files)} files that could be the {what} ({names}); name it: {option}.")
        if files:
            return files[0]
    return None


def _alignment(
    place: Place, image: Path, pixel_um: float, options: Options, found: list[str], doubts: list[str]
) -> tuple[Callable[[np.ndarray], np.ndarray], float, str]:
    """What takes micrometres of the experiment to pixels of the H&E; the file holds H&E → morphology pixels."""
    path = options.transform or _only_one(place.path, _ALIGNMENT, "alignment", "--transform")
    if path is None:
        raise InputError(
            f"{place.path} holds no alignment of its H&E (*he_imagealignment.csv). Name it with --transform: a 3 x 3 "
            "matrix that takes pixels of the H&E to pixels of the morphology picture, as Xenium Explorer exports it."
        )
    matrix = read_matrix_3x3(path)
    to_morphology = np.linalg.inv(matrix) if options.transform_inverted else matrix
    to_he = np.linalg.inv(to_morphology)
    middle_um = _some_places(place.path)
    size_px = size_of_picture(image)
    ways = {
        name: share_inside(apply(way, middle_um / pixel_um), size_px)
        for name, way in (("as documented", to_he), ("the other way", to_morphology))
    }
    if ways["as documented"] < 0.5 and ways["the other way"] > ways["as documented"] + 0.2:
        raise InputError(
            f"{path.name} puts {ways['as documented']:.0%} of the cells on the picture if it takes pixels of the H&E "
            f"to those of the morphology picture, and {ways['the other way']:.0%} if it is the way back. Give "
            "--transform-inverted."
        )
    if ways["as documented"] < 0.95:
        doubts.append(f"Only {ways['as documented']:.0%} of the cells lie on the H&E by {path.name}.")
    centre = np.median(apply(to_he, middle_um / pixel_um), axis=0, keepdims=True)
    mpp = pixel_um * px_per_unit(to_morphology, centre)
    found.append(f"{path.name} aligns the H&E: {ways['as documented']:.0%} of the cells lie on it.")
    return (
        lambda points_um: apply(to_he, points_um / pixel_um),
        mpp,
        f"{path.name} makes {mpp / pixel_um:.4g} morphology pixels of {pixel_um:g} µm of one of the H&E",
    )


def _some_places(folder: Path) -> np.ndarray:
    """Centres of some cells, or of transcripts, in micrometres, (N, 2)."""
    for stem, names in (("cells", ["x_centroid", "y_centroid"]), ("transcripts", ["x_location", "y_location"])):
        path = _table(folder, stem)
        if path is not None and set(names) <= set(columns_of(path)):
            table = read_columns(path, names)
            return table.iloc[:: max(len(table) // 5000, 1)][names].to_numpy(np.float64)
    raise InputError(f"{folder} holds neither cells nor transcripts that PixNet reads (parquet or csv).")


def _table(folder: Path, stem: str) -> Path | None:
    return next((folder / f"{stem}.{end}" for end in _TABLES if (folder / f"{stem}.{end}").is_file()), None)


def _cells(
    folder: Path, to_px: Callable[[np.ndarray], np.ndarray], mpp: float, options: Options, found: list[str]
) -> UnitTable:
    """The cells with their boundaries."""
    path = next((folder / n for n in ("cell_feature_matrix.h5", "cell_feature_matrix") if (folder / n).exists()), None)
    if path is None:
        raise InputError(f"{folder} lacks cell_feature_matrix.h5; PixNet does not read its zarr. Copy the h5 there.")
    matrix = read_matrix(path)
    features, genes, ids = gene_features(matrix, found, options.by_ids)
    control = is_control(genes)  # some versions call controls genes
    if control.any():
        found.append(f"{control.sum()} controls among the genes were left out.")
        keep = np.flatnonzero(~control)
        features, genes, ids = features[keep], [genes[i] for i in keep], [ids[i] for i in keep]
    boundaries = _table(folder, "cell_boundaries")
    if boundaries is None:
        raise InputError(f"{folder} lacks cell_boundaries.parquet (or .csv.gz), the polygons of its cells.")
    table = read_columns(boundaries, ["cell_id", "vertex_x", "vertex_y"])
    names = table["cell_id"].map(lambda v: v.decode() if isinstance(v, bytes) else str(v)).to_numpy(str)
    vertices = to_px(table[["vertex_x", "vertex_y"]].to_numpy(np.float64))
    starts = np.flatnonzero(np.concatenate([[True], names[1:] != names[:-1]]))
    owner = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(names))))
    few = np.bincount(owner) < 3
    kept = ~few[owner]
    shapes = shapely.polygons(shapely.linearrings(vertices[kept], indices=_renumbered(owner[kept])))
    broken = ~shapely.is_valid(shapes)
    shapes[broken] = shapely.buffer(shapes[broken], 0)
    barcodes = np.array([_text(b) for b in matrix.barcodes])
    cells = UnitTable(
        "cells",
        "polygon",
        0.0,
        barcodes,
        genes,
        np.zeros((len(barcodes), 2)),
        lambda: matrix.blocks(features),
        gene_ids=ids,
    )
    return with_polygons(cells, barcodes.tolist(), names[starts][~few].tolist(), shapes, mpp, boundaries, found)


def _renumbered(owner: np.ndarray) -> np.ndarray:
    return np.unique(owner, return_inverse=True)[1]


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)
