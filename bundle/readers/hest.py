"""HEST-1k: `st/ID.h5ad` with `wsis/ID.tif` and `metadata/ID.json`; transcripts where the technology has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ..data.spacing import nearest_um
from ..data.units import Shape
from ..data.visium import CAPTURE_DISK_UM, PITCH_UM
from ..errors import InputError
from ..files.reading import reading
from .alignment import size_of_picture
from .anndata import find_counts, gene_names, read_any
from .sample import Options, Place, Sample, UnitTable
from .transcripts import Preset, bin_tables, is_control

__all__ = ["TITLE", "find", "read"]

TITLE = "HEST-1k (st/ID.h5ad, wsis/ID.tif, metadata/ID.json)"
_TRANSCRIPTS = Preset(
    "", ("he_x",), ("he_y",), ("feature_name", "gene", "target"), 0.0, qv=("qv",), is_gene=("is_gene",)
)
_TOLERANCE = 0.05
#: Distance of neighbouring spots and their diameter, where the metadata do not say them.
_SPOTS = {"visium": (PITCH_UM, CAPTURE_DISK_UM), "spatial transcriptomics": (200.0, 100.0)}


def find(src: Path, options: Options) -> list[Place]:
    """Every `st/ID.h5ad` beside a folder `wsis` or `metadata`."""
    root = src.parent if src.name in ("st", "wsis", "metadata") else src
    if not ((root / "st").is_dir() and ((root / "wsis").is_dir() or (root / "metadata").is_dir())):
        return []
    places = []
    for path in sorted((root / "st").glob("*.h5ad")):
        parts = [path, root / "metadata" / f"{path.stem}.json", root / "transcripts" / f"{path.stem}.parquet"]
        metadata = _metadata(root, path.stem)
        patient = _said(metadata, "patient")
        if patient is not None:  # "Patient 1" is someone else in another study
            study = _said(metadata, "dataset_title") or _said(metadata, "study_link")
            patient = patient if study is None else f"{patient} of {study}"
        split = _split_of(root, path.stem)
        files = tuple(p for p in parts if p.is_file())
        places.append(Place(path.stem, path, files, root, patient, split))
    return places


def _metadata(root: Path, name: str) -> dict[str, Any]:
    path = root / "metadata" / f"{name}.json"
    if not path.is_file():
        return {}
    with reading(path, "is not valid JSON", "Copy it again."):
        content = json.loads(path.read_text())  # it may hold NaN
    return content if isinstance(content, dict) else {}


def _said(metadata: dict[str, Any], key: str) -> str | None:
    value = metadata.get(key)
    return None if value is None or value != value or str(value).strip() in ("", "nan", "None") else str(value).strip()


def _split_of(root: Path, name: str) -> str | None:
    """The split of a sample by the first pair of `splits/train_*.csv` and `test_*.csv`."""
    folder = root / "splits"
    if not folder.is_dir():
        return None
    for split, stem in (("training", "train"), ("validation", "val"), ("test", "test")):
        for path in sorted(folder.glob(f"{stem}*0.csv"))[:1] or sorted(folder.glob(f"{stem}*.csv"))[:1]:
            with reading(path, "cannot be read as a table of splits"):
                lines = path.read_text().splitlines()
            if any(line.split(",")[0].strip() == name for line in lines[1:]):
                return split
    return None


def _number(metadata: dict[str, Any], *keys: str) -> float | None:
    for key in keys:
        value = metadata.get(key)
        if isinstance(value, (int, float)) and value == value and value > 0:
            return float(value)
    return None


def read(place: Place, options: Options) -> Sample:
    """Read one sample: its spots, or its transcripts counted in bins (`units="transcripts"`)."""
    root: Path = place.hint
    found: list[str] = []
    doubts: list[str] = []
    metadata = _metadata(root, place.name)
    technology = (_said(metadata, "st_technology") or "unknown").lower()
    image = options.image or _picture(root, place.name)
    stated = _number(metadata, "pixel_size_um_estimated", "pixel_size_um_embedded")
    if not metadata:
        doubts.append(f"metadata/{place.name}.json is missing, so technology and scale are not stated.")
    adata = read_any(place.path)
    if "spatial" not in adata.obsm:
        raise InputError(f'{place.path} has no positions in obsm["spatial"].')
    centers_px = np.asarray(adata.obsm["spatial"], dtype=np.float64)[:, :2]
    nearest_px = nearest_um(centers_px)
    is_pooled = "xenium" in technology or "hd" in technology
    pitch_um = options.pitch_um or _number(metadata, "inter_spot_dist")
    usual_pitch, usual_size = _SPOTS.get(technology, (None, None))
    pitch_um = pitch_um or usual_pitch
    mpp, mpp_from = stated, "metadata state it"
    if pitch_um is not None and not is_pooled and nearest_px == nearest_px:
        by_pitch = pitch_um / nearest_px
        if stated is None or abs(by_pitch / stated - 1) > _TOLERANCE:
            if stated is not None:
                doubts.append(
                    f"The metadata state {stated:.4g} µm per pixel, but spots {pitch_um:g} µm apart lie "
                    f"{nearest_px:.4g} px apart, which makes {by_pitch:.4g}: PixNet takes the latter."
                )
            mpp, mpp_from = by_pitch, f"spots {pitch_um:g} µm apart lie {nearest_px:.4g} px apart"
    if options.mpp is not None:
        mpp, mpp_from = options.mpp, "as given"
    if mpp is None:
        raise InputError(f"{place.name}: neither metadata nor spots give the picture's scale. Give --mpp.")
    transcripts = root / "transcripts" / f"{place.name}.parquet"
    if options.units == "transcripts" or (options.units == "bins" and transcripts.is_file()):
        if not transcripts.is_file():
            raise InputError(f"{root} holds no transcripts/{place.name}.parquet; leave --units out to import spots.")
        tables = bin_tables(transcripts, _TRANSCRIPTS, options, lambda p: p, mpp, size_of_picture(image), found)
        return Sample(place.name, image, mpp, mpp_from, tables, found=found, doubts=doubts, about=_about(metadata))
    counts = find_counts(adata, options.layer, place.path)
    found.append(f"Raw counts come from {counts.where}.")
    genes, ids = gene_names(counts.var, options, found)
    kept = ~is_control(genes)
    if not kept.all():
        found.append(f"{(~kept).sum()} controls among the genes were left out.")
    shape, size_um = _unit(place, technology, is_pooled, nearest_px * mpp, metadata, usual_size, options, doubts)
    in_tissue = None
    if "in_tissue" in adata.obs:
        in_tissue = adata.obs["in_tissue"].astype(str).isin(["1", "1.0", "True"]).to_numpy()
    columns = np.flatnonzero(kept)
    table = UnitTable.of_matrix(
        counts.matrix[:, columns],
        name="spots",
        shape=shape,
        size_um=size_um,
        barcodes=adata.obs_names.to_numpy(str),
        genes=[genes[i] for i in columns],
        gene_ids=[ids[i] for i in columns],
        centers_px=centers_px,
        in_tissue=in_tissue,
    )
    if transcripts.is_file():
        found.append("Its transcripts can be counted in bins of any size: --units transcripts --bin-um 8.")
    return Sample(
        place.name,
        image,
        mpp,
        mpp_from,
        [table],
        pitch_um=None if is_pooled else pitch_um,
        found=found,
        doubts=doubts,
        about=_about(metadata),
    )


def _picture(root: Path, name: str) -> Path:
    for ending in (".tif", ".tiff", ".ome.tif", ".svs"):
        if (root / "wsis" / f"{name}{ending}").is_file():
            return root / "wsis" / f"{name}{ending}"
    raise InputError(f"{root} lacks wsis/{name}.tif, the picture of {name}. Download it, or name it with --image.")


def _unit(
    place: Place,
    technology: str,
    is_pooled: bool,
    pitch_um: float,
    metadata: dict[str, Any],
    usual_size: float | None,
    options: Options,
    doubts: list[str],
) -> tuple[Shape, float]:
    """Shape and size of what the file calls spots."""
    if options.size_um is not None:
        return "square" if options.shape == "square" else "circle", options.size_um
    if is_pooled:
        doubts.append(
            f"Its spots are pseudo-spots: HEST counted {technology} in squares that lie {pitch_um:.3g} µm apart. "
            f"PixNet takes squares of {pitch_um:.3g} µm."
        )
        return "square", round(pitch_um, 2)
    if usual_size is not None:
        return "circle", usual_size
    size_um = _number(metadata, "spot_diameter")
    if size_um is None:
        raise InputError(f"{place.name}: its metadata state no spot_diameter. Give --size-um.")
    return "circle", size_um


def _about(metadata: dict[str, Any]) -> dict[str, Any]:
    return {"name": "HEST-1k", "licence": _said(metadata, "license") or "see HEST-1k"} if metadata else {}
