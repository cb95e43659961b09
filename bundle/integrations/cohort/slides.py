"""The cohort's table: which slides, and what each is called."""

from __future__ import annotations

import csv
import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ...data.manifest import slide_name
from ...errors import InputError
from ...files.naming import check_name

__all__ = ["CohortSlide", "read_cohort"]

#: Columns that have a meaning; others are left alone.
_COLUMNS = ("slide", "name", "mpp", "units")


@dataclass(frozen=True)
class CohortSlide:
    """One row of the table.

    Attributes:
        name: what its outputs are called.
        path: the slide, absolute.
        mpp: µm per level-0 pixel, where the table says.
        units: spots (`.h5ad`) or cells of this slide, absolute.
    """

    name: str
    path: Path
    mpp: float | None = None
    units: Path | None = None


def read_cohort(path: str | Path) -> list[CohortSlide]:
    """Read and check a cohort's CSV; paths in it are relative to its folder.

    Raises:
        InputError: if it cannot be read, holds no slide, names a file that does not exist or two outputs alike.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"No such cohort: {path}. It is a CSV with a column slide and, if needed, mpp, units, name.")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            reader.fieldnames = [name.strip() for name in reader.fieldnames or []]
            _check_columns(path, list(reader.fieldnames))
            rows = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as CSV ({error}). Save it comma-separated, in UTF-8.") from error
    slides = [_slide(path, line, row) for line, row in rows]
    if not slides:
        raise InputError(f"{path} lists no slide: give it a line for each.")
    first: dict[str, CohortSlide] = {}
    for slide in slides:
        other = first.setdefault(slide.name, slide)
        if other is not slide:
            raise InputError(
                f'{path}: {other.path} and {slide.path} would both be written as "{slide.name}"; tell them apart in a '
                "column name."
            )
    for slide in slides:  # a slide's files of several sizes are called so
        stem, mark, size = slide.name.rpartition("_")
        if mark and stem in first and re.fullmatch(r"[0-9.e+-]+um", size):
            raise InputError(
                f'{path}: outputs of "{stem}" for several sizes would be taken for those of "{slide.name}"; call one '
                "of them otherwise in a column name."
            )
    return slides


def _check_columns(path: Path, columns: list[str]) -> None:
    if not columns:
        raise InputError(f"{path} is empty: its first line names the columns, slide and, as needed, mpp, units, name.")
    for column in set(columns) - set(_COLUMNS):
        close = difflib.get_close_matches(column.lower(), set(_COLUMNS) - set(columns), 1, 0.75)
        if close:
            raise InputError(f'{path} has a column "{column}"; did you mean "{close[0]}"?')
    if "slide" not in columns:
        raise InputError(f'{path} has no column "slide"; its columns, separated by commas, are: {", ".join(columns)}.')


def _slide(path: Path, line: int, row: Mapping[str | None, str | list[str] | None]) -> CohortSlide:
    where = f"{path}, line {line}"
    if None in row:
        raise InputError(f"{where}: there are more values than columns; put quotes around a value that has a comma.")
    values = {column: str(row.get(column) or "").strip() for column in _COLUMNS}
    if not values["slide"]:
        raise InputError(f"{where}: no slide is named.")
    found: dict[str, Path] = {}
    for column in ("slide", "units"):
        if values[column]:
            found[column] = (path.parent / values[column]).absolute()
            if not found[column].is_file():
                raise InputError(f"{where}: {found[column]} does not exist. Put it there or remove it from the table.")
    name = values["name"] or slide_name({"image": values["slide"]})
    return CohortSlide(check_name(name, where), found["slide"], _mpp(values["mpp"], where), found.get("units"))


def _mpp(text: str, where: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise InputError(f'{where}: mpp is "{text}"; it must be a number above 0, or left out.')
    return value
