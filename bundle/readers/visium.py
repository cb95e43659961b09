"""Space Ranger's output for Visium (versions 1 to 4): spots of 55 µm, 100 µm apart, on a hexagonal array."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd

from ..data.visium import CAPTURE_DISK_UM, CONVENTION_UM, PITCH_UM, visium_pitch_px
from ..errors import InputError
from .folders import walk
from .sample import Options, Place, Sample, UnitTable
from .tenx import find_matrix, gene_features, read_json_gz, read_matrix, read_positions

__all__ = ["TITLE", "find", "find_picture", "read", "reduced_picture"]

TITLE = "Space Ranger, Visium (a matrix and spatial/tissue_positions)"
_POSITIONS = re.compile(r"(?P<prefix>.*?)tissue_positions(_list)?\.(csv|parquet)(\.gz)?")
_SLIDE = re.compile(r".+\.(tiff?|btf|svs|ndpi|scn|mrxs|bif|jpe?g|png|jp2)", re.IGNORECASE)
#: Pictures that Space Ranger itself draws or reduces; none is the full-resolution H&E.
_DRAWN = re.compile(
    r".*(tissue_(hires|lowres)_image|aligned_(fiducials|tissue_image)|detected_tissue_image|cytassist).*", re.IGNORECASE
)
_NOT_VISIUM = ("binned_outputs", "segmented_outputs")
_TOLERANCE = 0.05
#: This share of barcodes may have no position.
_LOST = 0.05


def find(src: Path, options: Options) -> list[Place]:
    """Every table of tissue positions outside Visium HD's folders is a sample."""
    if not src.is_dir():
        return []
    places = []
    for here, inside, files in walk(src):
        inside[:] = [name for name in inside if name not in _NOT_VISIUM]
        for name in files:
            if match := _POSITIONS.fullmatch(name):
                root = here.parent if here.name == "spatial" else here
                prefix = match["prefix"]
                places.append(Place(prefix.strip("_-. ") or name_of(root), root, (root,), (here / name, prefix)))
    return places


def name_of(root: Path) -> str:
    """A sample's name: its folder's, or that above `outs`."""
    root = root.resolve()
    return root.parent.name if root.name == "outs" else root.name


def read(place: Place, options: Options) -> Sample:
    """Read one sample; the pitch of its spots gives the picture's scale."""
    positions_file, prefix = place.hint
    found: list[str] = []
    doubts: list[str] = []
    matrix_file = find_matrix(place.path, prefix)
    matrix = read_matrix(matrix_file)
    found.append(f"Counts of {len(matrix.barcodes):,} barcodes come from {matrix_file.name}.")
    features, genes, ids = gene_features(matrix, found, options.by_ids)
    positions = _in_order(read_positions(positions_file), matrix.barcodes, positions_file)
    located = positions["barcode"].notna().to_numpy()
    if not located.all():
        doubts.append(f"{positions_file.name} has no position for {(~located).sum():,} barcodes: they were left out.")
    # Columns are row before column, that is y before x.
    centers_px = positions[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy(np.float64)
    factors = read_json_gz(_beside(positions_file, prefix, "scalefactors_json.json"))
    diameter_px = factors.get("spot_diameter_fullres")
    pitch_px = visium_pitch_px(positions[located].set_index("barcode"), centers_px[located], diameter_px)
    pitch_um = options.pitch_um or PITCH_UM
    if pitch_px is not None:
        mpp, mpp_from = pitch_um / pitch_px, f"spots {pitch_um:g} µm apart lie {pitch_px:.4g} px apart"
        if diameter_px and abs(diameter_px * mpp / CONVENTION_UM - 1) > _TOLERANCE:
            doubts.append(
                f"spot_diameter_fullres is {diameter_px * mpp:.3g} µm by the pitch of the spots; Space Ranger writes "
                f"{CONVENTION_UM:g}. The positions and scalefactors_json.json may be of different pictures."
            )
    elif diameter_px:
        mpp, mpp_from = CONVENTION_UM / diameter_px, f"spot_diameter_fullres, which stands for {CONVENTION_UM:g} µm"
        doubts.append("The spots lie on no hexagonal array, so spot_diameter_fullres alone gives the scale.")
    else:
        raise InputError(f"{positions_file}: its spots lie on no hexagonal array and give no scale. Give --mpp.")
    image, scale, notes = find_picture(place.path, positions_file.parent, prefix, factors, options)
    found += notes
    spots = UnitTable(
        "spots",
        "circle",
        options.size_um or CAPTURE_DISK_UM,
        matrix.barcodes,
        genes,
        centers_px * scale,
        lambda: matrix.blocks(features),
        gene_ids=ids,
        in_tissue=positions["in_tissue"].to_numpy() == 1,
        array_xy=positions[["array_col", "array_row"]].fillna(0).to_numpy(int),
    )
    return Sample(
        place.name,
        image,
        mpp / scale,
        mpp_from if scale == 1 else f"{mpp_from} on the full-resolution picture; this one is {scale:.4g} of it",
        [spots if located.all() else spots.take(located)],
        pitch_um=pitch_um,
        found=found,
        doubts=doubts,
    )


def _in_order(positions: pd.DataFrame, barcodes: np.ndarray, path: Path) -> pd.DataFrame:
    """The rows of a table of positions in the order of a matrix's barcodes; NaN where it has none."""
    names = np.array([b.decode() if isinstance(b, bytes) else str(b) for b in barcodes], dtype=object)
    twice = positions["barcode"].duplicated()
    if twice.any():
        raise InputError(f"{path}: {twice.sum()} barcodes occur twice. Copy it again.")
    row = pd.Index(positions["barcode"].astype(str)).get_indexer(pd.Index(names))
    if (row < 0).mean() > _LOST:
        raise InputError(
            f"{path} has no position for {(row < 0).sum():,} of the {len(row):,} barcodes of the matrix (first: "
            f"{names[row < 0][0]}). Are both of the same sample?"
        )
    return positions.set_index(positions["barcode"].astype(str)).reindex(names).reset_index(drop=True)


def _beside(positions: Path, prefix: str, name: str) -> Path:
    """A file of `spatial`, with or without the prefix, gzipped or not."""
    for candidate in (f"{prefix}{name}", f"{prefix}{name}.gz", name, f"{name}.gz"):
        if (positions.parent / candidate).is_file():
            return positions.parent / candidate
    raise InputError(f"{positions.parent} lacks {name}; copy it from Space Ranger's output.")


def find_picture(
    root: Path, spatial: Path, prefix: str, factors: dict, options: Options
) -> tuple[Path | None, float, list[str]]:
    """The sample's H&E, how many of its pixels one full-resolution pixel is, and what to say of it.

    Args:
        root: the sample's folder.
        spatial: its `spatial` folder.
        prefix: what its file names begin with.
        factors: scalefactors_json.json.
        options: `image` and `picture`.

    Raises:
        InputError: if there is none, or several that could be meant.
    """
    if options.picture != "full":
        return reduced_picture(spatial, prefix, factors, options.picture)
    if options.image is not None:
        return options.image, 1.0, []
    folders = dict.fromkeys([root, spatial, *([root.parent] if root.name == "outs" else [])])
    pictures = [
        path
        for folder in folders
        for path in sorted(folder.iterdir())
        if path.is_file() and _SLIDE.fullmatch(path.name) and not _DRAWN.fullmatch(path.name)
    ]
    if len(pictures) > 1:
        names = ", ".join(path.name for path in pictures[:4])
        raise InputError(f"{root} holds {len(pictures)} pictures ({names}); name the H&E with --image.")
    if pictures:
        return pictures[0], 1.0, [f"The picture is {pictures[0].name}."]
    grey = [p.name for folder in folders for p in folder.iterdir() if "cytassist" in p.name.lower() and p.is_file()]
    says = (
        f" Its {grey[0]} is the CytAssist's grey picture, which is no H&E and has other pixels."
        if grey
        else " Space Ranger does not copy the full-resolution picture into its output."
    )
    raise InputError(
        f"{root} does not hold the full-resolution H&E that Space Ranger was given.{says} Name it with --image, or "
        "import a reduced one with --picture hires (or lowres)."
    )


def reduced_picture(spatial: Path, prefix: str, factors: dict, which: str) -> tuple[Path, float, list[str]]:
    """Space Ranger's hires or lowres picture, its pixels per full-resolution pixel, and what to say of it.

    Raises:
        InputError: if the picture or its scale factor is missing.
    """
    key = f"tissue_{which}_scalef"
    scale = factors.get(key)
    if not isinstance(scale, (int, float)) or not scale > 0:
        raise InputError(f"{spatial}: scalefactors_json.json has no {key}, so {which} has no scale.")
    for name in dict.fromkeys([f"{prefix}tissue_{which}_image", f"tissue_{which}_image"]):
        for ending in (".png", ".jpg"):
            path = spatial / (name + ending)
            if path.is_file():
                note = f"The picture is {path.name}, which Space Ranger reduced to {scale:.4g} of the original."
                return path, float(scale), [f"{note} It shows far less than the slide does."]
            if path.with_name(path.name + ".gz").is_file():
                raise InputError(f"{path}.gz is gzipped; unpack it first (gunzip).")
    raise InputError(f"{spatial} has no tissue_{which}_image.png. Name the picture with --image.")
