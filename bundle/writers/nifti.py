"""A region's predicted genes as NIfTI, for tools that read medical images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import InputError, require_extra
from ..files.atomic import remove_abandoned, replacing
from ..inference.dense_map import DenseMap
from ..inference.express import express

__all__ = ["write_nifti"]

_MAX_VALUES = 2**28
_ROWS_AT_ONCE = 64


def write_nifti(dense: DenseMap, path: str | Path, genes: Sequence[str], region_um: Sequence[float] | None) -> None:
    """Write log1p CP10k of a region's map pixels, (x, y, 1, gene), in millimetres from the slide's corner.

    Args:
        dense: the slide's map of features.
        path: the `.nii` or `.nii.gz`.
        genes: one volume each; the header's description holds as many of their names as fit.
        region_um: (x, y, width, height); the whole map by default.

    Raises:
        InputError: if the region is too large for memory.
    """
    require_extra("nibabel", "A NIfTI", "nifti")
    import nibabel as nib

    um = dense.resolution_um
    if region_um is None:
        x, y = (v // dense.stride for v in dense.origin_px)
        height, width = dense.array.shape[1:]
    else:
        x, y = (int(np.floor(v / um)) for v in region_um[:2])
        width, height = (
            int(np.ceil((v + size) / um)) - at for v, size, at in zip(region_um[:2], region_um[2:], (x, y), strict=True)
        )
    if width * height * len(genes) > _MAX_VALUES:
        raise InputError(
            f"{path} would hold {width} x {height} map pixels of {len(genes)} genes; name fewer with --genes, give a "
            "smaller --region, or write --map OUT.zarr."
        )
    projection = dense.projection
    assert projection is not None
    part = projection.columns(list(genes))
    values = np.empty((width, height, 1, len(part.genes)), np.float32)
    for first in range(0, height, _ROWS_AT_ONCE):  # features and transposed copies of some rows alone
        rows = min(_ROWS_AT_ONCE, height - first)
        strip = express(dense.read(x, y + first, width, rows), part).clipped
        values[:, first : first + rows, 0] = strip.transpose(1, 0, 2)
    mm = um / 1000
    affine = np.diag([mm, mm, mm, 1.0])
    affine[:2, 3] = (x + 0.5) * mm, (y + 0.5) * mm
    image = nib.Nifti1Image(values, affine)
    image.header.set_xyzt_units("mm")
    image.header["intent_name"] = b"PixNet"  # `bundle.files.ownership` recognises the file by it
    image.header["descrip"] = ",".join(genes)[:79].encode("ascii", "replace")
    remove_abandoned(Path(path))
    with replacing(path) as temporary:
        nib.save(image, temporary)
