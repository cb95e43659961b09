"""Run a command in a process forked from one that has imported the libraries, within bounds of time and memory."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["FUNCTIONS", "Bounds", "Outcome", "preload", "run"]

#: Python and the libraries take seconds to import, more than most cases take to run.
_PRELOAD = [
    "torch", "monai.bundle", "ignite.engine", "anndata", "zarr", "nibabel", "tifffile", "matplotlib.pyplot",
    "sklearn.decomposition", "bundle.cli.main", "bundle.workflows", "bundle.audit", "bundle.report",
    "bundle.readers", "bundle.datasets.phantom", "bundle.integrations.bundle_zip", "bundle.integrations.onnx_file",
    "networks", "transforms", "benchmarks.fuzz.runner",
]  # fmt: skip
_CONTEXT = multiprocessing.get_context("forkserver")


def preload() -> None:
    """Have the processes' parent import the libraries once; before the first command."""
    _CONTEXT.set_forkserver_preload(_PRELOAD)


@dataclass(frozen=True)
class Bounds:
    """Time and memory that a command may take.

    Attributes:
        seconds: wall time; a busy machine may need several times what an idle one does.
        cpu_seconds: of processor time.
        memory_gb: beyond what the libraries take.
    """

    seconds: float = 180.0
    cpu_seconds: int = 60
    memory_gb: float = 6.0


@dataclass(frozen=True)
class Outcome:
    """The end of a command.

    Attributes:
        status: its exit status, below 0 for a signal; None where it was out of time.
        out, err: its output.
        seconds: how long it took.
    """

    status: int | None
    out: str
    err: str
    seconds: float


def run(
    arguments: Sequence[str],
    folder: Path,
    bounds: Bounds,
    function: str = "pixnet",
    send: tuple[int, float] | None = None,
    number: str = "",
) -> Outcome:
    """Run a command to its end, or to the end of its time.

    Args:
        arguments: of `pixnet`.
        folder: the case's; the command starts in `cwd/`, and its output goes to `stdout.txt` and `stderr.txt`.
        bounds: of time and memory.
        function: one of `FUNCTIONS`.
        send: a signal, and after how many seconds to send it.
        number: of the files, where two commands run at once.
    """
    said = [folder / f"stdout{number}.txt", folder / f"stderr{number}.txt"]
    for path in said:
        path.unlink(missing_ok=True)
    started = time.monotonic()
    process = _CONTEXT.Process(
        target=_child, args=(function, [str(a) for a in arguments], str(folder / "cwd"), [str(p) for p in said], bounds)
    )
    process.start()
    assert process.pid is not None
    if send is not None:
        process.join(send[1])
        if process.is_alive():
            os.kill(process.pid, send[0])
    process.join(max(bounds.seconds - (time.monotonic() - started), 0.0))
    status = process.exitcode
    if status is None:
        _kill_group(process.pid)
        process.join()
    elif status in (-signal.SIGXCPU, -signal.SIGKILL):  # the kernel's, at the bound of processor time
        status = None
    _kill_group(process.pid)  # what it started goes with it
    out, err = (path.read_text(errors="replace") if path.exists() else "" for path in said)
    process.close()
    return Outcome(status, out, err, time.monotonic() - started)


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _child(function: str, arguments: list[str], folder: str, said: list[str], bounds: Bounds) -> None:
    os.setsid()
    for descriptor, path in enumerate(said, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), descriptor)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (bounds.cpu_seconds, bounds.cpu_seconds + 5))
    memory = int(bounds.memory_gb * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    os.chdir(folder)
    sys.argv = ["pixnet", *arguments]
    sys.exit(FUNCTIONS[function](arguments))


def _pixnet(arguments: list[str]) -> int:
    from bundle.cli.main import main

    return main(arguments)


def _interrupted(arguments: list[str]) -> int:
    """The command, killed when it begins to write the first result: its work folder stays."""
    from bundle.writers.prediction import PredictionWriter

    def die(*_: object) -> None:
        os._exit(0)

    PredictionWriter.__call__ = die  # type: ignore[assignment, method-assign]
    return _pixnet(arguments)


def _open_map(arguments: list[str]) -> int:
    """What a user's script does with a map: open it, and compute a gene."""
    import numpy as np

    from bundle import open_map
    from bundle.errors import user_message

    path, gene = arguments
    try:
        dense = open_map(path)
        values = np.asarray(dense.gene(gene).compute())
    except Exception as error:
        message = user_message(error)
        if message is None:
            raise
        print(message, file=sys.stderr)
        return 2
    print(values.shape, float(np.nanmin(values)), float(np.nanmax(values)))
    return 0


def _fault(arguments: list[str]) -> int:
    """Commands with a fault each, to show that the verdicts tell them apart."""
    how, *paths = arguments
    if how == "traceback":
        raise TypeError("planted")
    if how == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if how == "hang":
        time.sleep(3600)
    if how == "spin":
        while True:
            pass
    if how == "memory":
        bytearray(2**40)
    if how == "success":
        for path in paths:
            Path(path).write_text("whole")
        return 0
    for path in paths:
        Path(path).write_text("written by a refusal")
    if how == "delete":
        next(Path("../in").iterdir()).unlink()
    if how != "silent":
        print("pixnet fault: planted.txt is refused; give another.", file=sys.stderr)
    return 2


#: What a case may run.
FUNCTIONS = {"pixnet": _pixnet, "interrupted": _interrupted, "open_map": _open_map, "fault": _fault}
