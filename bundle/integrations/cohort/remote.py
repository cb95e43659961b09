"""What a worker does for one slide: it runs the command line in a child process and keeps a record of it.

A worker may not find PixNet, so dask sends it these functions as code (`_ByValue`): they use only the standard library
and dask. The child finds PixNet by the path in its environment, whatever folder the worker is in.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

__all__ = ["place", "record_path", "run_slide"]

#: How long a child may tidy up before it is killed.
_PATIENCE_S = 10.0


def place() -> str:
    """The host and its processors that this worker may use; workers of one place share them."""
    processors = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return f"{socket.gethostname()} {processors}"


def record_path(folder: str | Path, name: str) -> Path:
    """The file that records the options of a slide whose outputs are whole."""
    return Path(folder) / f"{name}.done.json"


def run_slide(job: dict[str, Any]) -> dict[str, Any]:
    """Predict one slide.

    Args:
        job: `name`; `folder` of the outputs; `ending` of their names; `slide` and further `arguments` of the command
            line; `asked`, kept in the record; `module`, the name of `bundle.cli.child`, and, if that is not
            installed, the `source` folder that it lies in; `slots`, how many slides each place predicts at once.

    Returns:
        `status` (done or failed), `seconds` and, if it failed, `message`.
    """
    from dask.system import CPU_COUNT
    from distributed import Reschedule, get_worker

    started = time.monotonic()
    folder, name = Path(job["folder"]), job["name"]
    if not folder.is_dir():
        seen = f"{folder} is not there on {socket.gethostname()}: workers need the file system that holds the results."
        return {"status": "failed", "seconds": 0.0, "message": seen}
    worker = get_worker()
    task = worker.state.tasks[worker.get_current_task()]
    threads = str(max(1, CPU_COUNT // job["slots"].get(place(), worker.state.nthreads)))
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    for library in ("OMP", "MKL", "OPENBLAS", "NUMEXPR"):
        env[f"{library}_NUM_THREADS"] = threads
    if job["source"] is not None:
        env["PYTHONPATH"] = os.pathsep.join(p for p in (job["source"], env.get("PYTHONPATH")) if p)
    output = folder / (name + job["ending"])
    command = [sys.executable, "-P", "-m", job["module"], "predict", job["slide"], str(output)]
    command += job["arguments"]

    record = record_path(folder, name)
    earlier = record.read_bytes() if record.is_file() else None
    record.unlink(missing_ok=True)  # from now on the outputs may be made with other options
    before = _outputs(folder, name)
    log = folder / "logs" / f"{name}.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("wb") as file:
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=file, stderr=subprocess.STDOUT, env=env, start_new_session=True
        )
        try:
            while True:
                try:
                    status = child.wait(0.5)
                    break
                except subprocess.TimeoutExpired:
                    if task.state == "cancelled" or worker.status.name in ("closing", "closed"):
                        raise Reschedule from None  # nobody waits for it here
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGTERM)  # it tidies up
                try:
                    child.wait(_PATIENCE_S)
                except subprocess.TimeoutExpired:
                    os.killpg(child.pid, signal.SIGKILL)
                    child.wait()
            assert child.stdin is not None
            child.stdin.close()
    seconds = time.monotonic() - started
    if status != 0:
        if earlier is not None and _outputs(folder, name) == before:  # they are still the earlier ones
            _replace(record, earlier)
        return {"status": "failed", "seconds": seconds, "message": _reason(status, log)}
    written = sorted(path for path, stamp in _outputs(folder, name).items() if before.get(path) != stamp)
    _replace(record, (json.dumps({"asked": job["asked"], "outputs": written}, indent=2) + "\n").encode())
    return {"status": "done", "seconds": seconds, "message": ""}


def _replace(record: Path, content: bytes) -> None:
    temporary = record.with_name(f".{os.getpid()}.part.{record.name}")
    temporary.write_bytes(content)
    os.replace(temporary, record)


def _outputs(folder: Path, name: str) -> dict[str, list[int]]:
    """A slide's outputs that are there, and what tells each from an earlier one of its name."""
    pattern = re.compile(re.escape(name) + r"(_[0-9.e+-]+um)?\.(h5ad|zarr)")
    stats = {path.name: path.stat() for path in folder.iterdir() if pattern.fullmatch(path.name)}
    return {output: [stat.st_ino, stat.st_mtime_ns] for output, stat in stats.items()}


def _reason(status: int, log: Path) -> str:
    """Why a child failed: the sentence it said, else the last line of its log."""
    if status < 0:
        return (
            f"It was stopped by {signal.Signals(-status).name}, often for want of memory (fewer workers need less). "
            f"Log: {log}"
        )
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    said = [line for line in lines if line.startswith("pixnet predict: ")]
    if said:
        return said[-1].removeprefix("pixnet predict: ")
    return f"{lines[-1] if lines else f'It ended with status {status}.'} Log: {log}"
