"""3 × 3 matrices that take one picture's pixels, or a table's x and y, to another picture's pixels."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import tifffile

from ..errors import InputError
from ..files.reading import check_file, reading
from .pictures import is_plain_picture, picture_size

__all__ = ["apply", "px_per_unit", "read_matrix_3x3", "share_inside", "size_of_picture"]


def read_matrix_3x3(path: Path) -> np.ndarray:
    """A 3 × 3 matrix of a text file, separated by commas, spaces or tabs; also the one such file inside a zip.

    Raises:
        InputError: if it is no such matrix, or cannot be inverted.
    """
    check_file(path, "Give the file of the 3 x 3 matrix.")
    advice = "It must hold three rows of three numbers."
    with reading(path, "is not a 3 x 3 matrix", advice):
        data = path.read_bytes()
        texts = [data]
        if data[:2] == b"PK":
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                texts = [archive.read(name) for name in archive.namelist() if name.lower().endswith((".csv", ".txt"))]
        found = [matrix for text in texts if (matrix := _parsed(text)) is not None]
        if len(found) != 1:
            raise ValueError(f"{len(found)} matrices were found")
    matrix = found[0]
    if abs(np.linalg.det(matrix)) < 1e-12 or abs(np.linalg.det(matrix[:2, :2])) < 1e-12:
        raise InputError(f"{path}: its matrix cannot be inverted. {advice}")
    return matrix


def _parsed(text: bytes) -> np.ndarray | None:
    try:
        numbers = np.array([float(v) for v in text.decode("utf-8-sig").replace(",", " ").replace(";", " ").split()])
    except ValueError:
        return None
    return numbers.reshape(3, 3) if len(numbers) == 9 and np.isfinite(numbers).all() else None


def apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (x, y), (N, 2), under a matrix."""
    out = points @ matrix[:, :2].T + matrix[:, 2]
    return out[:, :2] if (matrix[2] == (0, 0, 1)).all() else out[:, :2] / out[:, 2:]


def px_per_unit(matrix: np.ndarray, at: np.ndarray) -> float:
    """How many pixels one step of x or y becomes near a point (x, y)."""
    around = apply(matrix, at + np.array([[0, 0], [1.0, 0], [0, 1.0]]))
    return float(np.sqrt(abs(np.linalg.det(around[1:] - around[0]))))


def size_of_picture(path: Path) -> tuple[int, int] | None:
    """Width and height of a picture's level 0; None where that takes a slide reader."""
    if is_plain_picture(path):
        return picture_size(path)
    try:
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages.first
            return page.imagewidth, page.imagelength
    except Exception:  # it is no TIFF: the slide reader will say what it is
        return None


def share_inside(points: np.ndarray, size_px: tuple[int, int] | None) -> float:
    """Share of points (x, y) inside a picture; NaN where its size is not known."""
    if size_px is None or not len(points):
        return float("nan")
    return float(((points >= 0) & (points <= size_px)).all(1).mean())
