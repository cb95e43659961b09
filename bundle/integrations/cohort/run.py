"""Predict a cohort: find the slides that are not done, give each to a worker, and report on all."""

from __future__ import annotations

import hashlib
import json
import logging
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from ...config.root import bundle_root
from ...errors import InputError, missing_extra
from ...files.atomic import file_state
from ...files.ownership import claim
from ...inference.uncertainty import check_request
from ...workflows.inferring import check_prediction
from ...workflows.trained_run import trained_run
from . import remote
from .slides import CohortSlide, read_cohort
from .summary import Progress, Result, count_units, table, write_summary

__all__ = ["arguments_of", "predict_cohort"]

logger = logging.getLogger(__name__)

#: Options of one slide, which a cohort's table gives or which would be overwritten by each.
_ONE_SLIDE = {
    "spots": "name each slide's units in a column units",
    "cells": "name each slide's units in a column units",
    "map": "write it slide by slide",
    "nifti": "write it slide by slide",
}
#: Options that arrange units, for slides that bring none of their own.
_ARRANGEMENT = ("spot_um", "pitch_um", "lattice", "bin_um")


def predict_cohort(
    cohort: str | Path,
    out: str | Path | None,
    run: str | Path,
    options: Mapping[str, Any],
    *,
    scheduler: str | None = None,
    workers: int | None = None,
    as_zarr: bool = False,
    say: Callable[[str], Any] = print,
) -> list[Result]:
    """Predict each slide of a table; skip those that were done before with the same options.

    Args:
        cohort: the CSV, see `read_cohort`.
        out: folder that gets `<name>.h5ad`, `logs/<name>.log` and `summary.csv`.
        run: the run folder of the model.
        options: of the command line for one slide, `{"bin_um": [16.0], "settings": [("device", "cpu")], ...}`.
        scheduler: address of a running cluster; workers are started here by default.
        workers: how many slides at once, where they are started here.
        as_zarr: write `<name>.zarr`, for more units than an `.h5ad` should hold.
        say: receives lines about the progress.

    Returns:
        The result of each slide, in the table's order.

    Raises:
        InputError: if the table, the model, an option or the scheduler is not usable.
    """
    slides = read_cohort(cohort)
    if out is None:
        raise InputError("Give the folder for the results after the cohort: pixnet predict COHORT.csv OUT_DIR ...")
    if scheduler is not None and workers is not None:
        raise InputError("--workers start on this machine, but --scheduler has its own workers: leave one of them out.")
    for option, instead in _ONE_SLIDE.items():
        if options.get(option) is not None:
            raise InputError(f"--{option} is for one slide, and {cohort} lists {len(slides)}: {instead}.")
    ending = ".zarr" if as_zarr else ".h5ad"
    if options.get("standard_error"):
        check_request(ending, options)
    trust = bool(options.get("trust"))
    run, _ = trained_run(run, trust)
    records = {"*.done.json": "asked", "summary.csv": ",".join(field.name for field in fields(Result))}
    folder = claim(Path(out).resolve(), "cohort", ("summary.csv",), records, mark=False)
    model = _model_hash(run)
    settings = {"output": str(folder), **dict(options.get("settings") or ())}
    check_prediction(run, settings, options.get("genes"), trust)
    jobs: dict[str, dict[str, Any]] = {}
    results: dict[str, Result] = {}
    for slide in slides:
        job = _job(slide, folder, run, model, options, ending)
        if _is_done(job):
            results[slide.name] = Result(slide.name, "skipped", count_units(folder, _outputs(job)))
        else:
            jobs[slide.name] = job
    if jobs:
        claim(
            folder / "logs",
            "logs",
            [f"{slide.name}.log" for slide in slides],
            {f"../{name}": key for name, key in records.items()},
        )
        with _cluster(scheduler, workers, len(jobs)) as client:
            slots = _slots(client)
            at_once = f"{sum(slots.values())} at once" if slots else "as soon as there is a worker"
            say(f"{len(jobs)} of {len(slides)} slides to predict, {at_once}.")
            progress = Progress(len(jobs), say)
            for result in _run(client, [{**job, "slots": slots} for job in jobs.values()]):
                results[result.name] = result
                progress(result)
    ordered = [results[slide.name] for slide in slides]
    write_summary(folder / "summary.csv", ordered)
    say(table(ordered))
    return ordered


def arguments_of(options: Mapping[str, Any]) -> list[str]:
    """Parsed options as arguments again: a worker may be in another folder, where a list's file is not."""
    found = []
    for key, value in options.items():
        name = f"--{key.replace('_', '-')}"
        if key == "settings":
            found += [f"--set={setting}={json.dumps(v)}" for setting, v in value]
        elif value is True:
            found.append(name)
        elif isinstance(value, (list, tuple)):
            found.append(f"{name}={','.join(map(str, value))}")
        elif value is not None and value is not False:
            found.append(f"{name}={value}")
    return found


def _model_hash(run: Path) -> str:
    """What identifies a model: its weights, panel and configuration."""
    digest = hashlib.sha256()
    for part in ("models/model.pt", "models/panel.json", "configs/model.json"):
        digest.update((run / part).read_bytes())
    return digest.hexdigest()


def _job(
    slide: CohortSlide, folder: Path, run: Path, model: str, options: Mapping[str, Any], ending: str
) -> dict[str, Any]:
    """The job of a worker, see `remote.run_slide`."""
    own = dict(options)
    if slide.mpp is not None:
        own["mpp"] = slide.mpp
    if slide.units is not None:
        own = {key: value for key, value in own.items() if key not in _ARRANGEMENT}
        own["spots" if slide.units.suffix == ".h5ad" else "cells"] = slide.units
    arguments = arguments_of(own)
    asked = {
        "slide": file_state(slide.path),
        "units": None if slide.units is None else file_state(slide.units),
        "model": model,
        "ending": ending,
        "arguments": arguments,
    }
    is_installed = __package__.startswith("pixnet.")  # else it is `bundle` in its source
    return {
        "name": slide.name,
        "folder": str(folder),
        "ending": ending,
        "slide": str(slide.path),
        "arguments": [f"--model={run}", *arguments],
        "asked": asked,
        "module": "pixnet.bundle.cli.child" if is_installed else "bundle.cli.child",
        "source": None if is_installed else str(bundle_root()),
    }


def _record(job: Mapping[str, Any]) -> dict[str, Any]:
    try:
        record = json.loads(remote.record_path(job["folder"], job["name"]).read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _outputs(job: Mapping[str, Any]) -> list[str]:
    outputs = _record(job).get("outputs")
    return [name for name in outputs if isinstance(name, str)] if isinstance(outputs, list) else []


def _is_done(job: Mapping[str, Any]) -> bool:
    """Whether all outputs are there and were made with the same options."""
    outputs = _outputs(job)
    is_there = bool(outputs) and all((Path(job["folder"]) / name).exists() for name in outputs)
    return is_there and _record(job).get("asked") == job["asked"]


class _ByValue:
    """A function that reaches a worker whole: `remote` need not be importable there."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)

    def __reduce__(self) -> tuple[Any, ...]:
        import cloudpickle

        cloudpickle.register_pickle_by_value(remote)
        try:
            return cloudpickle.loads, (cloudpickle.dumps(self.function),)
        finally:
            cloudpickle.unregister_pickle_by_value(remote)


@contextmanager
def _cluster(scheduler: str | None, workers: int | None, slides: int) -> Iterator[Any]:
    """A client of the cluster at an address, or of one that lives as long as the block."""
    try:
        from dask.system import CPU_COUNT
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise missing_extra("A cohort needs dask", "cohort") from error
    if scheduler is not None:
        try:
            client = Client(scheduler, timeout=20, set_as_default=False)
        except (OSError, ValueError, TypeError) as error:
            raise InputError(
                f'No scheduler answers at "{scheduler}" ({error}). Give the address that `dask scheduler` prints, such '
                "as tcp://10.0.0.1:8786."
            ) from error
        with client:
            yield client
        return
    if workers is None:
        workers = 1 if torch.cuda.is_available() else max(1, CPU_COUNT // 4)
    # Threads are enough: a worker only waits for its child. Memory is the children's, which dask does not see.
    local = LocalCluster(
        n_workers=min(workers, slides),
        threads_per_worker=1,
        processes=False,
        dashboard_address=None,
        memory_limit=0,
        silence_logs=logging.CRITICAL,
    )
    client = Client(local, set_as_default=False)
    try:
        yield client
    finally:
        for opened in (client, local):
            try:
                opened.close()
            except TimeoutError:  # the predictions are whole all the same
                logger.warning("dask took too long to close its workers; they end with this process")


def _slots(client: Any) -> dict[str, int]:
    """How many slides are predicted at once at each place where there are workers."""
    places = client.run(_ByValue(remote.place))
    threads = client.nthreads()
    slots: Counter[str] = Counter()
    for address, where in places.items():
        slots[where] += threads.get(address, 1)
    return dict(slots)


def _run(client: Any, jobs: Sequence[Mapping[str, Any]]) -> Iterator[Result]:
    """Results as they come."""
    from distributed import as_completed

    function = _ByValue(remote.run_slide)
    waiting = {
        client.submit(function, job, key=f"pixnet-{job['name']}-{uuid.uuid4().hex}", pure=False): job for job in jobs
    }
    try:
        for future in as_completed(list(waiting), loop=client.loop):
            job = waiting.pop(future)
            yield _result(future, job)
    finally:
        client.cancel(list(waiting))  # stopped before the end: the workers end their children


def _result(future: Any, job: Mapping[str, Any]) -> Result:
    from distributed import KilledWorker

    name = job["name"]
    error = future.exception() if future.status != "finished" else None
    if isinstance(error, KilledWorker):
        message = "Every worker that tried it died, often for want of memory. Try it alone on a larger machine."
        return Result(name, "failed", message=message)
    if error is not None:
        return Result(name, "failed", message=f"{type(error).__name__}: {error}")
    outcome = future.result()
    if outcome["status"] == "failed":
        return Result(name, "failed", None, outcome["seconds"], outcome["message"])
    return Result(name, "done", count_units(Path(job["folder"]), _outputs(job)), outcome["seconds"])
