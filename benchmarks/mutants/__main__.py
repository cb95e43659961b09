"""Do the tests notice when the code is wrong?

`python -m benchmarks.mutants [--jobs N] [--only TEXT ...]` copies the repository, checks that the tests named in
`mutants.json` pass there, puts in one fault after the other, and runs the tests that must notice it. The last line says
how many did: `{"mutants": N, "killed": N}`. The exit status is 1 if a fault survives or its line is gone.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from . import ROOT, Mutant, StaleError, read_mutants

__all__ = ["main"]

#: What every test imports; a process that is forked has it already.
_LIBRARIES = (
    "torch",
    "monai.bundle",
    "ignite.engine",
    "anndata",
    "zarr",
    "nibabel",
    "tifffile",
    "sklearn.linear_model",
)
_ROOMS = ("bundle", "networks", "transforms", "tests", "benchmarks", "pixnet")
_LEFT_OUT = shutil.ignore_patterns(
    ".*", "__pycache__", "*.egg-info", "results", "models", "runs", "demo", "build", "dist"
)
_SECONDS = 600  # for the tests of one fault; a test that hangs has not said what is wrong
_PASSED, _FAILED = 0, 1  # pytest's statuses


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mutants", description=__doc__)
    parser.add_argument("--jobs", type=int, default=1, help="faults tried at the same time")
    parser.add_argument("--only", nargs="+", default=[""], metavar="TEXT", help="those whose name or file holds a text")
    parser.add_argument("--verbose", action="store_true", help="print pytest's output for a fault that survives")
    options = parser.parse_args(arguments)
    chosen = [m for m in read_mutants() if any(text in m.name or text in m.file for text in options.only)]
    mutants = [mutant for mutant in chosen if _is_current(mutant)]

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # a fault of the same length within a second would not be compiled
    sys.dont_write_bytecode = True
    for name in _LIBRARIES:
        __import__(name)

    killed = 0
    with tempfile.TemporaryDirectory(prefix="mutants_") as folder:
        trees = [_Tree(Path(folder, str(number))) for number in range(max(options.jobs, 1))]
        tests = sorted({test for mutant in mutants for test in mutant.tests})
        if not _all_pass(trees, tests):
            return 1
        left = list(mutants)
        while left or any(tree.mutant for tree in trees):
            for tree in trees:
                if tree.mutant is None and left:
                    tree.start(left.pop(0))
                if tree.mutant is not None and (status := tree.poll()) is not None:
                    killed += status == _FAILED
                    _tell(tree, status, options.verbose)
                    tree.restore()
            time.sleep(0.05)
    print(json.dumps({"mutants": len(chosen), "killed": killed}))
    return int(killed < len(chosen))


def _is_current(mutant: Mutant) -> bool:
    try:
        mutant.place(ROOT)
    except StaleError as error:
        print(f"stale     {error}", flush=True)
        return False
    return True


def _all_pass(trees: Sequence[_Tree], tests: Sequence[str]) -> bool:
    """Whether the tests pass without a fault, some in each tree."""
    by_file: dict[str, list[str]] = {}
    for test in tests:
        by_file.setdefault(test.partition("::")[0], []).append(test)
    files = sorted(by_file)
    parts = [[test for file in files[number :: len(trees)] for test in by_file[file]] for number in range(len(trees))]
    running = [tree for tree, part in zip(trees, parts, strict=True) if part]
    for tree, part in zip(trees, parts, strict=True):
        if part:
            tree.run(part, seconds=1800)
    good = True
    for tree in running:
        while (status := tree.poll()) is None:
            time.sleep(0.05)
        if status != _PASSED:
            good = False
            print(f"The tests fail without a fault:\n{tree.said()[-6000:]}")
    return good


def _tell(tree: _Tree, status: int, verbose: bool) -> None:
    assert tree.mutant is not None
    outcome = {_PASSED: "SURVIVED", _FAILED: "killed"}.get(status, f"ERROR {status}")
    print(f"{outcome:9} {tree.seconds:4.0f} s  {tree.mutant.name}: {tree.mutant.what}", flush=True)
    if status not in (_PASSED, _FAILED) or (verbose and status == _PASSED):
        print(tree.said()[-3000:], flush=True)


class _Tree:
    """A copy of the repository in which one fault at a time is tried."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "tree"
        self.mutant: Mutant | None = None
        self._log = folder / "log"
        shutil.copytree(ROOT, self.root, ignore=_LEFT_OUT)

    @property
    def seconds(self) -> float:
        """How long the tests have run."""
        return time.monotonic() - self._started

    def start(self, mutant: Mutant) -> None:
        """Put in a fault and run its tests."""
        self.mutant = mutant
        self._file = mutant.place(self.root)
        self._content = self._file.read_text()
        self._file.write_text(self._content.replace(mutant.old, mutant.new))
        self.run(["-x", *mutant.tests])

    def restore(self) -> None:
        """Take the fault out."""
        self._file.write_text(self._content)
        self.mutant = None

    def run(self, arguments: Sequence[str], seconds: float = _SECONDS) -> None:
        """Start pytest in a process of its own."""
        self._started, self._limit = time.monotonic(), seconds
        sys.stdout.flush()
        self._pid = os.fork()
        if self._pid == 0:
            self._child(arguments)

    def _child(self, arguments: Sequence[str]) -> None:
        """Run in the forked process, which has imported the libraries but no code of ours."""
        status = 3
        try:
            os.setsid()
            log = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for descriptor in (1, 2):
                os.dup2(log, descriptor)
            os.chdir(self.root)
            sys.path[:] = [str(self.root), *(path for path in sys.path if Path(path).resolve() != ROOT)]
            for name in [name for name in sys.modules if name.split(".")[0] in _ROOMS]:
                del sys.modules[name]
            import pytest

            options = [
                "-q",
                "-p",
                "no:cacheprovider",
                "--rootdir",
                str(self.root),
                "--basetemp",
                str(self.folder / "tmp"),
            ]
            status = int(pytest.main([*options, *arguments]))
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)

    def poll(self) -> int | None:
        """Pytest's status; None while it runs, and that of a process that was killed where it took too long."""
        pid, status = os.waitpid(self._pid, os.WNOHANG)
        if pid == 0 and self.seconds > self._limit:
            os.killpg(self._pid, signal.SIGKILL)
            return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        return None if pid == 0 else os.waitstatus_to_exitcode(status)

    def said(self) -> str:
        """What pytest has printed."""
        return self._log.read_text(errors="replace")


if __name__ == "__main__":
    sys.exit(main())
