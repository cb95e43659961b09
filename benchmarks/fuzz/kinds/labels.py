"""Cells as a label image, read by `predict --cells`."""

from __future__ import annotations

from typing import Any

import numpy as np
import tifffile

from ..case import Build, Case, Must, kind
from ..damage import damage
from .cells import predict_cells


@kind("labels", 55)
def labels(build: Build) -> Case:
    """The same labels, stored otherwise; labels that are none; damaged files."""
    image = np.load(build.base.labels)
    like = build.base.result("labels.h5ad")
    if build.chance(0.4):
        dtype = build.word("uint8", "uint16", "int32", "uint32", "int64", "uint64", ">i4", ">u2")
        image = image.astype(dtype)
        how = build.word("npy", "Fortran", "tiled", "strips", "deflate", "bigtiff")
        path = build.input("labels.npy" if how in ("npy", "Fortran") else "labels.tif")
        forms: dict[str, dict[str, Any]] = {
            "tiled": {"tile": (64, 64)},
            "strips": {"rowsperstrip": 11},
            "deflate": {"compression": "zlib", "tile": (128, 128)},
            "bigtiff": {"bigtiff": True, "byteorder": ">"},
        }
        options = forms.get(how, {})
        if path.suffix == ".npy":
            np.save(path, np.asfortranarray(image) if how == "Fortran" else image)
        else:
            tifffile.imwrite(path, image.astype(image.dtype.newbyteorder("=")), **options)
        must: Must = "either" if "64" in dtype and path.suffix == ".tif" else "right"
        return predict_cells(build, path, f"labels as {dtype}, {how}", must, like=like)
    path = build.input(build.word("labels.npy", "labels.tif"))
    how = build.word(
        "negative", "float", "nan", "bool", "three planes", "cropped", "turned", "empty", "above 2^53", "one label",
        "complex", "pickle", "lying header", "damage", "damage", "damage", "one pixel", "half", "text",
    )  # fmt: skip
    check: dict[str, Any] = {}
    must = "either"
    if how == "negative":
        image[image == 3] = -3
        must = "sentence"
    elif how == "float":
        image = image.astype(np.float32)
    elif how == "nan":
        image = np.where(image == 3, np.nan, image)
        must = "sentence"
    elif how == "bool":
        image = image > 0
        must = "sentence"
    elif how == "three planes":
        image = np.stack([image] * 3, axis=int(build.rng.choice([0, 2])))
    elif how == "cropped":
        image = image[:300]
        must = "sentence"
    elif how == "turned":
        image = image[:, :590].T.copy()
    elif how == "empty":
        image = image * 0
        must = "sentence"
    elif how == "above 2^53":
        image = np.where(image > 0, image.astype(np.uint64) + np.uint64(2**53 + 1), np.uint64(0))
        check["names"] = [str(v) for v in np.unique(image)[1:]]
    elif how == "one label":
        image = np.ones_like(image)
    elif how == "complex":
        image = image.astype(np.complex64)
        must = "sentence"
    elif how == "one pixel":
        image = np.zeros_like(image)
        image[300, 300] = 1
    elif how == "half":
        image = image[::2, ::2].copy()
        check["names"] = [str(v) for v in np.unique(image)[1:]]
    if how == "pickle":
        path = build.input("labels.npy")
        np.save(path, np.array([_Runs(build.payload)], dtype=object), allow_pickle=True)
        must = "sentence"
    elif path.suffix == ".npy":
        np.save(path, image)
    else:
        image = image.astype(np.uint8) if image.dtype == bool else image
        if how == "bool":
            must = "either"
        tifffile.imwrite(path, image, photometric="minisblack")
    if how == "lying header":
        path = build.input("labels.npy")
        np.save(path, image)
        content = path.read_bytes()
        path.write_bytes(
            content.replace(b"(600, 600)", build.word("(9999, 9)", "(-1, 600)", "(1e9, 10)").encode().ljust(10))
        )
    elif how == "damage":
        how = damage(path, build.rng)
    elif how == "text":
        path.write_text("0 0 0 1 1 1\n")
        must = "sentence"
    return predict_cells(build, path, f"labels: {how} ({path.suffix})", must, **check)


class _Runs:
    """What a pickle runs when it is read."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self) -> tuple:
        return eval, (self.code,)
