"""Lists of names, of genes above all, in the forms that people and spreadsheets save them in."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from ..errors import InputError

__all__ = ["read_names"]

#: A name in quotes, or one that ends at white space, a comma or a semicolon.
_NAME = re.compile(r'"([^"\n]*)"|\'([^\'\n]*)\'|([^\s,;]+)')
_HEADERS = {"gene", "genes", "gene_name", "gene_names", "gene_symbol", "symbol"}


def read_names(path: str | Path) -> list[str]:
    """The names in a text file, each once: separated by lines, commas, semicolons, tabs or spaces.

    A first line `gene` is no name. Of a table that has a column of this name, the names are that column.

    Raises:
        InputError: if it is no text in UTF-8, or lists no name.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text in UTF-8: save it as UTF-8, one name a line.") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from error
    if "\0" in text:
        raise InputError(f"{path} is no text: give one name a line.")
    lines = [line for line in text.splitlines() if line.strip()]
    separator = next((sign for sign in "\t;," if lines and sign in lines[0]), None)
    column = _column(lines, separator) if separator else None
    names = _split("\n".join(lines)) if column is None else column
    if names and names[0].casefold() in _HEADERS:
        del names[0]
    if not names:
        raise InputError(f"{path} lists no name: give one a line.")
    return list(dict.fromkeys(names))


def _column(lines: list[str], separator: str) -> list[str] | None:
    """The column of genes with its header, if the first line names one among others."""
    try:
        rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=separator, skipinitialspace=True)]
    except csv.Error:
        return None
    at = next((number for number, cell in enumerate(rows[0]) if cell.casefold() in _HEADERS), None)
    return None if at is None else [row[at] for row in rows if len(row) > at and row[at]]


def _split(text: str) -> list[str]:
    found = (next(filter(None, match.groups()), "").strip() for match in _NAME.finditer(text))
    return [name for name in found if name]
