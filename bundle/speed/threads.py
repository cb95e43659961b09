"""Threads on a machine that others use too: no more than there are free cores, and none in each other's way.

Beside one busy process on two cores, a training step takes 0.48 and a tile 0.63 of the time that it takes with torch's
own choice (`python -m benchmarks.busy`). The switch is OMP_NUM_THREADS: PixNet then leaves the number alone.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from time import monotonic, process_time, sleep

import torch
from threadpoolctl import threadpool_limits

__all__ = ["FreeCores", "keep_to_cores", "use_free_cores"]

#: With one of these the user has chosen the number of threads; PixNet then leaves it alone.
_CHOSEN_BY_USER = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
_STAT = Path("/proc/stat")
_FIRST_S, _INTERVAL_S = 0.1, 1.0
_IGNORED_CORES = 0.25  # what the system's own small tasks use


class FreeCores:
    """How many cores other processes leave to this one, judged by what they used since the last look.

    A network's threads meet after every layer. Where another process holds the core of one of them, all others wait
    for it each time, and fewer threads are faster (`python -m benchmarks.busy`).

    Args:
        interval_s: seconds between two looks, at least.
    """

    def __init__(self, interval_s: float = _INTERVAL_S) -> None:
        self.interval_s = interval_s
        self._cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
        self._last = self._used() if self._cores and _STAT.is_file() else None

    def count(self) -> int | None:
        """The number of free cores, at least 1; None before the interval has passed, or if the system hides it."""
        if self._last is None or monotonic() - self._last[0] < self.interval_s:
            return None
        before, self._last = self._last, self._used()
        seconds, own, everyone = (now - then for now, then in zip(self._last, before, strict=True))
        taken = max(math.ceil((everyone - own) / seconds - _IGNORED_CORES), 0)
        return max(len(self._cores) - taken, 1)

    def _used(self) -> tuple[float, float, float]:
        """The time; the seconds that this process, and that every process, has used of these cores so far."""
        ticks = 0
        for line in _STAT.read_text().splitlines():
            name, *times = line.split()
            if name.startswith("cpu") and name[3:].isdecimal() and int(name[3:]) in self._cores:
                user, nice, system, _idle, _waiting, interrupts, soft_interrupts, *_ = map(int, times)
                ticks += user + nice + system + interrupts + soft_interrupts
        return monotonic(), process_time(), ticks / os.sysconf("SC_CLK_TCK")


class _Threads:
    """The number of torch's threads in this process: at most what it was at first."""

    def __init__(self) -> None:
        self.most = self.now = torch.get_num_threads()
        self.free_cores = FreeCores(_FIRST_S)
        sleep(_FIRST_S)

    def adapt(self) -> None:
        if torch.get_num_threads() != self.now:  # other code has set the number since
            return
        count = self.free_cores.count()
        if count is None:
            return
        self.free_cores.interval_s = _INTERVAL_S
        if min(count, self.most) != self.now:
            self.now = min(count, self.most)
            torch.set_num_threads(self.now)


_threads: _Threads | None = None


def use_free_cores() -> None:
    """Have torch compute with no more threads than there are free cores; call it between steps, from one thread.

    The first call takes a tenth of a second to look, later ones look once a second. It changes nothing where the
    user has set `OMP_NUM_THREADS` or `MKL_NUM_THREADS`.
    """
    global _threads
    if any(name in os.environ for name in _CHOSEN_BY_USER):
        return
    if _threads is None:
        _threads = _Threads()
    _threads.adapt()


def keep_to_cores(cores: int = 1) -> None:
    """Limit the threads that torch uses in the thread that calls this, for `ThreadPoolExecutor(initializer=...)`.

    Otherwise torch gives that thread as many helpers as the machine has cores. When threads outnumber cores, GNU OpenMP
    stops spinning and puts them to sleep, the network's too. That cost a quarter of a pipeline's time on two idle cores
    (`python -m benchmarks.limit`). `torch.set_num_threads` would slow the network as well: a part of it holds for the
    whole process.

    Args:
        cores: threads of torch, the calling one included.
    """
    torch.get_num_threads()  # a thread's first use sets its number; the limit comes after
    threadpool_limits(limits=cores, user_api="openmp")
