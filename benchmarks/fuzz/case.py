"""A case, the folder in which it is built, and the registry of kinds."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from .base import Base

__all__ = ["KINDS", "Build", "Case", "Check", "Must", "draw", "kind"]

Must = Literal["sentence", "right", "either"]
#: What is wrong with a result, in words, or None.
Check = Callable[[], str | None]


@dataclass
class Case:
    """A command and its allowed outcomes.

    Attributes:
        what: what was done to the input.
        arguments: of `pixnet`; or of a function of `runner` where `function` names one.
        must: the command has to reject the input (`sentence`), to accept it (`right`), or may do either.
        outputs: files and folders that success must leave.
        writes: patterns, relative to the case's folder, that success may write or change besides the outputs.
        leaves: patterns of files that a failure may leave, from which the same command continues.
        check: of the result, after success.
        trusted: code in the input may run, because its owner gave it as a configuration.
        first: commands that have to succeed before this one.
        between: what is done to the files after those, in words.
        signal: to send after so many seconds; the command is then run again.
        at_once: another command, at the same time; at most one of the two may fail.
        alone: exactly one of the two has to fail.
        function: of `runner`, to call instead of `pixnet`.
        patience: how many times the usual time it may take.
        partial: a cohort, which ends with status 1 where some of its slides fail.
        clean: undo what building the case did beyond its folder.
    """

    what: str
    arguments: Sequence[str]
    must: Must = "either"
    outputs: Sequence[Path] = ()
    writes: Sequence[str] = ()
    leaves: Sequence[str] = ()
    check: Check | None = None
    trusted: bool = False
    first: Sequence[tuple[str, Sequence[str]]] = ()
    signal: tuple[int, float] | None = None
    function: str = "pixnet"
    patience: float = 1.0
    partial: bool = False
    clean: Callable[[], None] | None = None
    between: Callable[[], str] | None = None
    at_once: Sequence[str] | None = None
    alone: bool = False


@dataclass
class Build:
    """The folder of a case: `in/` for the user's files, `out/` for results, `cwd/` to start in.

    Attributes:
        folder: the case's own.
        base: what was generated once.
        rng: for all random choices.
    """

    folder: Path
    base: Base
    rng: np.random.Generator
    given: dict[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("in", "out", "cwd"):
            (self.folder / name).mkdir(parents=True)

    def input(self, name: str) -> Path:
        """A path for a file of the user's."""
        path = self.folder / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def out(self, name: str) -> Path:
        """A path for a result."""
        return self.folder / "out" / name

    def copy(self, source: Path, name: str) -> Path:
        """A copy of a file or folder of the base among the user's files."""
        path = self.input(name)
        if source.is_dir():
            shutil.copytree(source, path)
        else:
            shutil.copyfile(source, path)
        return path

    def slide(self, name: str = "P3.tif") -> Path:
        """A copy of the slide to predict."""
        return self.copy(self.base.slide, name)

    def run(self, name: str = "run") -> Path:
        """A copy of the trained run."""
        return self.copy(self.base.run, name)

    @property
    def marker(self) -> Path:
        """What code in the input writes: it must never appear."""
        return self.folder / "cwd" / "EXECUTED"

    @property
    def payload(self) -> str:
        """A Python expression that writes the marker."""
        return f"__import__('pathlib').Path('{self.marker}').write_text('ran')"

    def chance(self, share: float) -> bool:
        """True in a share of cases."""
        return bool(self.rng.random() < share)

    def pick(self, *choices: object) -> object:
        """One of several, whatever they are."""
        return choices[int(self.rng.integers(len(choices)))]

    def word(self, *choices: str) -> str:
        """One of several texts."""
        return choices[int(self.rng.integers(len(choices)))]


Make = Callable[[Build], Case]
#: By kind: how many of a thousand cases it gets, and what makes one.
KINDS: dict[str, tuple[int, Make]] = {}


def kind(name: str, weight: int) -> Callable[[Make], Make]:
    """Register what makes cases of a kind."""

    def register(make: Make) -> Make:
        KINDS[name] = (weight, make)
        return make

    return register


def draw(seed: int, only: str | None = None) -> tuple[str, np.random.Generator]:
    """The kind of a seed's case, and the generator that draws the case."""
    rng = np.random.default_rng([seed, 2022])
    names = sorted(KINDS)
    weights = np.array([KINDS[name][0] for name in names], dtype=float)
    drawn = names[int(rng.choice(len(names), p=weights / weights.sum()))]
    return only or drawn, rng
