"""Faults that are put into a copy of the source, one line each, and the tests that must notice them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

__all__ = ["LIST", "ROOT", "Mutant", "StaleError", "read_mutants"]

ROOT = Path(__file__).parents[2]
LIST = Path(__file__).with_name("mutants.json")


class StaleError(Exception):
    """The source no longer holds the line that a mutant changes, or holds it twice."""


@dataclass(frozen=True)
class Mutant:
    """One fault.

    Attributes:
        name: unique.
        what: what goes wrong, in a few words.
        file: the source file below the root; a package of the same name is searched where the file has become one.
        old: text that the file holds once.
        new: its replacement.
        tests: arguments of pytest: files or tests of which one must fail.
    """

    name: str
    what: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def place(self, root: Path) -> Path:
        """The file below `root` that holds `old`.

        Raises:
            StaleError: if no file does, or it does more than once.
        """
        path = root / self.file
        files = [path] if path.is_file() else sorted(path.with_suffix("").rglob(f"*{path.suffix}"))
        found = [(file, count) for file in files if (count := file.read_text().count(self.old))]
        if [count for _, count in found] != [1]:
            times = sum(count for _, count in found)
            raise StaleError(f"{self.name}: {self.file} holds {self.old!r} {times} times, not once.")
        return found[0][0]


def read_mutants(path: Path = LIST) -> list[Mutant]:
    """Read the list.

    Raises:
        ValueError: if two have one name, or one changes nothing.
    """
    found = [Mutant(**{**entry, "tests": tuple(entry["tests"])}) for entry in json.loads(path.read_text())]
    names = [mutant.name for mutant in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    same = [mutant.name for mutant in found if mutant.old == mutant.new or not mutant.tests]
    if twice or same:
        raise ValueError(f"Two mutants have one name, or one changes nothing: {', '.join(twice + same)}")
    return found
