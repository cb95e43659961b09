"""Tables from outside, plain, gzipped or parquet: some of their columns, whole or batch by batch."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import InputError, did_you_mean, missing_extra
from ..files.reading import check_file, reading

__all__ = ["columns_of", "first_line", "is_parquet", "pick", "read_batches", "read_columns"]

_BATCH_ROWS = 1_000_000


def is_parquet(path: Path) -> bool:
    """Whether a file's name says that it is parquet."""
    return path.suffix.lower() in (".parquet", ".pq")


def first_line(path: Path) -> str:
    """The first line of a text file, gzipped or not, that is no comment."""
    check_file(path)
    with reading(path, "cannot be read as a table"), _text(path) as file:
        return next((line.rstrip("\r\n") for line in file if not line.startswith("#")), "")


def columns_of(path: Path) -> list[str]:
    """The names of a table's columns.

    Raises:
        InputError: if it cannot be read.
    """
    check_file(path)
    if is_parquet(path):
        with reading(path, "cannot be read as parquet"):
            return list(_parquet(path).schema_arrow.names)
    return [name.strip().strip('"') for name in first_line(path).split(_separator(path))]


def pick(path: Path, columns: Sequence[str], wanted: str | None, known: Sequence[str], what: str) -> str:
    """The column of a table that holds something.

    Args:
        path: the table, for the sentence.
        columns: its columns.
        wanted: the name that the user gives, if any.
        known: names that it may have otherwise, likely ones first.
        what: it holds, for the sentence.

    Raises:
        InputError: if there is none.
    """
    folded = {name.casefold(): name for name in reversed(columns)}
    for name in [wanted] if wanted else known:
        if name in columns:
            return name
        if name is not None and name.casefold() in folded:
            return folded[name.casefold()]
    asked = f'no column "{wanted}"{did_you_mean(wanted, columns)}' if wanted else f"no column for {what}"
    raise InputError(f"{path} has {asked}. It has {', '.join(columns[:12])}; name the right one.")


def read_columns(path: Path, columns: Sequence[str] | None = None, **options: Any) -> pd.DataFrame:
    """Some columns of a table, or all of them.

    Raises:
        InputError: if it cannot be read.
    """
    check_file(path)
    if is_parquet(path):
        with reading(path, "cannot be read as parquet"):
            return _parquet(path).read(columns=None if columns is None else list(columns)).to_pandas()
    with reading(path, "cannot be read as a table", "Copy it again."):
        return pd.read_csv(path, sep=_separator(path), usecols=columns, comment="#", low_memory=False, **options)


def read_batches(path: Path, columns: Sequence[str], rows: int = _BATCH_ROWS) -> Iterator[pd.DataFrame]:
    """Some columns of a table, a million rows at a time.

    Raises:
        InputError: if it cannot be read.
    """
    check_file(path)
    fault, advice = "cannot be read as a table", "It may be cut short or damaged: copy it again."
    if is_parquet(path):
        with reading(path, fault, advice):
            batches = _parquet(path).iter_batches(rows, columns=list(columns))
        while True:
            with reading(path, fault, advice):
                batch = next(batches, None)
                table = None if batch is None else batch.to_pandas()
            if table is None:
                return
            yield table
    with reading(path, fault, advice):
        chunks = pd.read_csv(
            path, sep=_separator(path), usecols=list(columns), comment="#", chunksize=rows, low_memory=False
        )
    while True:
        with reading(path, fault, advice):
            table = next(chunks, None)
        if table is None:
            return
        yield table


def _separator(path: Path) -> str:
    line = first_line(path)
    return max("\t,;", key=line.count)


def _text(path: Path) -> Any:
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rt", encoding="utf-8-sig") if zipped else path.open(encoding="utf-8-sig")


def _parquet(path: Path) -> Any:
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise missing_extra(f"{path.name} is parquet, which pyarrow reads", "parquet") from error
    return ParquetFile(path)
