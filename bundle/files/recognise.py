"""Recognise a file or a Zarr as PixNet"s own by what only PixNet writes into it."""

from __future__ import annotations

import json
import mmap
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError

__all__ = ["is_ours"]


def is_ours(path: Path) -> bool:
    """Whether PixNet wrote a file or a Zarr, so that it may replace or delete it; an empty one counts as such.

    Raises:
        InputError: if the file is open in another program.
    """
    if path.is_dir():
        return _is_our_zarr(path)
    if not path.is_file():  # a pipe, a device, a link to nothing
        return False
    if path.stat().st_size == 0:
        return True  # nothing is lost
    known = next((known for ending, known in _KNOWN.items() if path.name.endswith(ending)), None)
    try:
        return known is not None and known(path)
    except BlockingIOError as error:  # HDF5's lock
        raise InputError(f"{path} is open in another program. Close it there, or give another name.") from error
    except Exception:  # damaged, so not whole as ours are
        return False


def _is_our_zarr(path: Path) -> bool:
    """A map says it in its attributes, an AnnData in `uns`; a Zarr that also holds other arrays is not ours."""
    if not any(path.iterdir()):
        return True
    try:
        if (path / "uns" / "pixnet" / "zarr.json").is_file():
            index = _attributes(path / "obs").get("_index")
            return _is_our_anndata(lambda name: _members(path / name), index)
        return "pixnet" in _attributes(path) and all(name.isdigit() or name == "projection" for name in _members(path))
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _members(path: Path) -> list[str]:
    """Names of a Zarr group's arrays and groups; a chunk's folder holds no `zarr.json`."""
    return [item.parent.name for item in path.glob("*/zarr.json")]


def _attributes(path: Path) -> dict[str, Any]:
    return dict(json.loads((path / "zarr.json").read_text())["attributes"])


def _is_our_h5ad(path: Path) -> bool:
    import h5py

    with h5py.File(path) as file:
        if "uns/pixnet" not in file:
            return False
        return _is_our_anndata(lambda name: list(file[name]) if name in file else [], file["obs"].attrs.get("_index"))


def _is_our_anndata(names_in: Callable[[str], Iterable[str]], index: str | None) -> bool:
    """Whether a prediction holds what PixNet writes alone: results that a user added would be lost with it.

    Args:
        names_in: the names in a group of the AnnData; none where it is not there.
        index: the name of the units' names in `obs`.
    """
    return not list(names_in("raw")) and all(set(names_in(name)) <= {*ours, index} for name, ours in _ANNDATA.items())


def _is_our_nifti(path: Path) -> bool:
    import nibabel as nib

    image: Any = nib.load(path)
    name = bytes(image.header["intent_name"]).rstrip(b"\0")
    return name == b"PixNet" or (not name and _is_earlier_nifti(image))


def _is_earlier_nifti(image: Any) -> bool:
    """Whether a NIfTI without a name is an earlier version's: a flat grid of square cells, a named gene each volume."""
    names = bytes(image.header["descrip"]).rstrip(b"\0").decode("ascii", "replace")
    mm = float(image.affine[0, 0])
    if image.header.get_data_dtype() != "float32" or image.header.get_xyzt_units()[0] != "mm" or not mm > 0:
        return False
    if len(image.shape) != 4 or image.shape[2] != 1 or not names or " " in names:
        return False
    corner = image.affine[:2, 3] / mm - 0.5  # the first cell's, in cells of the slide
    flat = np.diag([mm, mm, mm, 1.0])
    flat[:2, 3] = image.affine[:2, 3]
    return (
        (names.count(",") + 1 == image.shape[3] or len(names) == 79)
        and np.allclose(image.affine, flat, rtol=1e-5, atol=1e-9)
        and np.allclose(corner, np.round(corner), atol=0.01)
    )


def _is_our_page(path: Path) -> bool:
    with path.open("rb") as file:
        return b"<title>PixNet report of " in file.read(4096)


def _is_our_onnx(path: Path) -> bool:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(b"pixnet_version") >= 0


def _is_our_zip(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    root = names[0].partition("/")[0] if names else ""
    return {f"{root}/configs/metadata.json", f"{root}/models/panel.json"} <= set(names)


#: What a prediction holds; the trust in genes is `var`'s, their loadings `varm`'s.
_ANNDATA: dict[str, set[str]] = {
    "obs": {"array_col", "array_row", "area_um2", "classification", "clipped_genes", "in_tissue", "tissue_fraction"},
    "var": {"_index", "pcc_val", "ceiling_val", "n_patients_val", "same_patient_val"},
    "obsm": {"spatial", "features"},
    "varm": {"loadings"},
    "layers": {"rate_per_um2", "standard_error"},
    "obsp": set(),
    "varp": set(),
    "uns": {"pixnet", "spatial", "unit"},
}
_KNOWN: dict[str, Callable[[Path], bool]] = {
    ".h5ad": _is_our_h5ad,
    ".nii": _is_our_nifti,
    ".nii.gz": _is_our_nifti,
    ".html": _is_our_page,
    ".onnx": _is_our_onnx,
    ".zip": _is_our_zip,
}
