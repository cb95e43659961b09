"""Stands in for `subprocess`: `python -m MODULE ...` in processes forked from one that has imported the libraries.

Importing torch and MONAI takes a process longer than what most tests ask of it. Arguments, folder, environment, output,
signals and exit status are those of a command that is started, and nothing of PixNet has been imported yet.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

DEVNULL = subprocess.DEVNULL
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["torch", "monai.bundle", "ignite.engine", "anndata", "zarr", "nibabel", "tifffile"])


class Popen:
    """A command that has been started, or the processes that `torch.distributed.run` would start, without it."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdout: Path | int = DEVNULL,
        stderr: Path | int = DEVNULL,
    ) -> None:
        interpreter, switch, module, *arguments = command
        assert (interpreter, switch) == (sys.executable, "-m")
        ranks: list[dict[str, str]] = [{}]
        if module == "torch.distributed.run":
            _, number, switch, module, *arguments = arguments
            assert switch == "-m"
            ranks = _ranks(int(number.removeprefix("--nproc_per_node=")))
        folder, env = str(cwd or Path.cwd()), dict(os.environ if env is None else env)
        outputs = [os.devnull if to == DEVNULL else str(to) for to in (stdout, stderr)]
        self._processes = [
            _CONTEXT.Process(target=_run, args=(module, arguments, folder, env | rank, outputs)) for rank in ranks
        ]
        for process in self._processes:
            process.start()

    def poll(self) -> int | None:
        """The status: None until all have ended; that of one that failed at once, and the others are killed."""
        statuses = [process.exitcode for process in self._processes]
        failed = next((status for status in statuses if status), None)
        if failed is not None:
            self.kill()
            return failed
        return None if None in statuses else 0

    def wait(self) -> int:
        try:
            while (status := self.poll()) is None:
                time.sleep(0.01)
        except BaseException:  # a test's time is up
            self.kill()
            raise
        for process in self._processes:
            process.join()
        return status

    @property
    def returncode(self) -> int | None:
        return self.poll()

    def send_signal(self, how: int) -> None:
        for process in self._processes:
            if process.is_alive():
                assert process.pid is not None
                os.kill(process.pid, how)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def run(
    command: Sequence[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None, **_: bool
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; what it says is kept as text."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        status = Popen(command, cwd=cwd, env=env, stdout=out, stderr=err).wait()
        return subprocess.CompletedProcess(list(command), status, out.read_text(), err.read_text())


def _ranks(number: int) -> list[dict[str, str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(number)}
    return [{**meet, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(number)]


def _run(module: str, arguments: list[str], folder: str, env: dict[str, str], outputs: list[str]) -> None:
    import torch

    os.environ.clear()
    os.environ.update(env)
    if "PYTHONWARNINGS" in env:
        warnings.simplefilter(env["PYTHONWARNINGS"])
    torch.set_num_threads(int(env.get("OMP_NUM_THREADS", torch.get_num_threads())))  # OpenMP has read another's
    os.chdir(folder)
    for descriptor, path in enumerate(outputs, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    given = [path for path in env.get("PYTHONPATH", "").split(os.pathsep) if path]
    of_tests = ("", str(Path(__file__).parents[1]))
    sys.path[:] = [folder, *given, *(path for path in sys.path if path not in of_tests)]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
