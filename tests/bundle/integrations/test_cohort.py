"""A cohort: each slide once, whatever happens to some of them, to the workers or to the command."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
import torch

from bundle.cli.main import main
from bundle.cli.parser import build_parser
from bundle.cli.predict import NOT_OF_A_SLIDE
from bundle.errors import InputError
from bundle.integrations.cohort import predict_cohort, read_cohort
from bundle.integrations.cohort import run as cohort_run
from bundle.integrations.cohort.run import arguments_of
from bundle.integrations.cohort.summary import Progress, Result, count_units, table

distributed = pytest.importorskip("distributed", reason="needs the extra cohort")
#: Stands in for the command line: what it does is in the slide's own text, and it counts how often it was called.
STUB = """
import os, pathlib, subprocess, sys, time

sys.path.append("ROOT")
from bundle.cli.child import end_with_parent

def main(arguments):
    slide, out = map(pathlib.Path, arguments[1:3])
    calls = out.with_suffix(".calls")
    with calls.open("a") as file:
        file.write(f"{os.getpid()} {os.environ['OMP_NUM_THREADS']} {' '.join(arguments[3:])}\\n")
    todo = slide.read_text()
    if todo == "hang" or (todo == "hang once" and len(calls.read_text().splitlines()) == 1):
        print(subprocess.Popen(["sleep", "600"]).pid, flush=True)
        time.sleep(600)
    if todo == "fail":
        print("pixnet predict: This slide is of another planet.", file=sys.stderr)
        return 2
    if todo == "fault":
        raise RuntimeError("a bug")
    if todo == "memory":
        os.kill(os.getpid(), 9)
    for suffix in ("_16um", "_8um") if any("16.0,8.0" in a for a in arguments) else ("",):
        out.with_stem(out.stem + suffix).write_text(todo)
    return 2 if "--mpp=9.0" in arguments else 0

end_with_parent()
sys.exit(main(sys.argv[1:]))
""".replace("ROOT", str(Path(__file__).parents[3]))


@pytest.fixture
def model(tmp_path) -> Path:
    """What is looked at of a run before its slides are: its files, not what is in them."""
    folder = tmp_path / "model"
    (folder / "models").mkdir(parents=True)
    (folder / "configs").mkdir()
    torch.save({}, folder / "models" / "model.pt")
    (folder / "models" / "panel.json").write_text("{}")
    (folder / "configs" / "model.json").write_text("{}")
    return folder


@pytest.fixture
def stub(tmp_path, monkeypatch) -> Path:
    """The module that the children run."""
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "stub_of_pixnet.py").write_text(STUB)
    own = cohort_run._job

    def job(*args: Any) -> dict[str, Any]:
        return {**own(*args), "module": "stub_of_pixnet", "source": str(folder)}

    monkeypatch.setattr(cohort_run, "_job", job)
    monkeypatch.setattr(cohort_run, "trained_run", lambda run, trust=False: (Path(run), Path()))
    monkeypatch.setattr(cohort_run, "check_prediction", lambda *_: None)
    return folder


def stub_slides(tmp_path: Path, **todo: str) -> Path:
    """A cohort of text files that tell the stub what to do."""
    for name, text in todo.items():
        (tmp_path / f"{name}.svs").write_text(text)
    return write_csv(tmp_path / "cohort.csv", ["slide"], *([f"{name}.svs"] for name in todo))


def write_csv(path: Path, *rows: list[Any]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def calls(out: Path, name: str) -> list[list[str]]:
    """Each call of the stub: its process, its threads, its arguments."""
    path = out / f"{name}.calls"
    return [line.split(" ") for line in path.read_text().splitlines()] if path.is_file() else []


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until(condition: Callable[[], Any], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


@contextmanager
def cluster(folder: Path, workers: int) -> Iterator[tuple[str, Any]]:
    """A cluster of processes that work in a folder without our source, and a client of it."""
    folder.mkdir()
    address_file = folder / "scheduler.json"
    started: list[subprocess.Popen] = []

    def start(*arguments: str) -> None:
        command = [sys.executable, "-m", "dask", *arguments, f"--scheduler-file={address_file}", "--no-dashboard"]
        started.append(subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    try:
        start("scheduler", "--host=127.0.0.1", "--port=0")
        start("worker", f"--nworkers={workers}", "--nthreads=1")
        until(address_file.is_file)
        # dask's own reader waits for what the scheduler has not written yet
        with distributed.Client(scheduler_file=str(address_file), set_as_default=False) as client:
            client.wait_for_workers(workers, timeout=60)
            yield client.scheduler_info()["address"], client
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait(20)


# The table ------------------------------------------------------------------------------------------------------------


def test_a_table_is_read(tmp_path):
    (tmp_path / "far").mkdir()
    for name in ("a.ome.tif", "b.svs", "far/a.tif", "b.geojson"):
        (tmp_path / name).touch()
    path = tmp_path / "c.csv"
    path.write_text(
        f"slide, mpp,units,name,patient\na.ome.tif,,,,P1\n{tmp_path}/b.svs,0.5,b.geojson,,\n,,,,\n", "utf-8-sig"
    )
    with pytest.raises(InputError, match="line 4: no slide is named"):
        read_cohort(path)
    path.write_text(path.read_text("utf-8-sig").replace("\n,,,,\n", "\n\nfar/a.tif,,,c,\n"), "utf-8-sig")
    a, b, c = read_cohort(path)
    assert (a.name, a.path, a.mpp, a.units) == ("a", tmp_path / "a.ome.tif", None, None)
    assert (b.name, b.path, b.mpp, b.units) == ("b", tmp_path / "b.svs", 0.5, tmp_path / "b.geojson")
    assert (c.name, c.path) == ("c", tmp_path / "far" / "a.tif")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "No such cohort"),
        ("", "is empty"),
        ("slide\n", "lists no slide"),
        ("slide;mpp\na.svs;1\n", 'no column "slide".*slide;mpp'),
        ("file,mpp\na.svs,1\n", 'no column "slide".*file, mpp'),
        ("slides\na.svs\n", 'has a column "slides"; did you mean "slide"'),
        ("slide,Mpp\na.svs,1\n", 'did you mean "mpp"'),
        ("slide\nnone.svs\n", "line 2: .*none.svs does not exist"),
        ("slide,units\na.svs,none.h5ad\n", "line 2: .*none.h5ad does not exist"),
        ("slide,mpp\na.svs,half\n", 'line 2: mpp is "half"; it must be a number'),
        ("slide,mpp\na.svs,0\n", 'mpp is "0"'),
        ("slide,mpp\na.svs,nan\n", 'mpp is "nan"'),
        ("slide,mpp\na.svs,0,5\n", "more values than columns"),
        ("slide\na.svs\na.svs\n", 'would both be written as "a"'),
        ("slide,name\na.svs,one\nb.svs,one\n", 'would both be written as "one"'),
        ("slide,name\na.svs,../b\n", "leave out slashes"),
        (b"slide\n\xff\n", "cannot be read as CSV"),
    ],
)
def test_a_table_that_does_not_work(tmp_path, capsys, text: str | bytes | None, says: str):
    for name in ("a.svs", "b.svs"):
        (tmp_path / name).touch()
    path = tmp_path / "cohort.csv"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=says):
        read_cohort(path)
    assert main(["predict", str(path), str(tmp_path / "out"), "--model", "run"]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("pixnet predict: ")
    assert said.endswith((".", "?"))


# Options --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["--bin-um", "16,8"],
        ["--spot-um", "55", "--pitch-um", "100.5", "--lattice", "hex", "--mpp", "0.2527"],
        ["--genes", ",".join(f"GENE{i}" for i in range(500)), "--region=-5,0,100,200.5"],
        ["--set", "device=cpu", "--set", 'intensity={"mean": [1, 2.5]}', "--set", "tile_px=null", "--set", "name=a b"],
    ],
)
def test_options_are_the_same_when_passed_on(arguments):
    command = ["predict", "slide", "out", "--model", "run"]
    parsed = build_parser().parse_args([*command, *arguments])
    options = {key: value for key, value in vars(parsed).items() if key not in NOT_OF_A_SLIDE}
    assert build_parser().parse_args([*command, *arguments_of(options)]) == parsed


def test_names_that_several_sizes_would_give_are_refused(tmp_path):
    for name in ("A", "A_16um", "A_6", "B_16um"):
        (tmp_path / f"{name}.svs").touch()
    with pytest.raises(InputError, match='outputs of "A" for several sizes would be taken for those of "A_16um"'):
        read_cohort(write_csv(tmp_path / "c.csv", ["slide"], ["A_16um.svs"], ["A.svs"]))
    assert len(read_cohort(write_csv(tmp_path / "c.csv", ["slide"], ["A.svs"], ["A_6.svs"], ["B_16um.svs"]))) == 3


def test_every_option_is_passed_on_under_its_own_name(capsys):
    """`arguments_of` goes by the attribute's name; an option that has another would be lost."""
    known = vars(build_parser().parse_args(["predict", "slide", "out", "--model", "run"]))
    with pytest.raises(SystemExit):
        build_parser().parse_args(["predict", "--help"])
    options = re.findall(r"--[a-z-]+", capsys.readouterr().out)
    for key in set(known) - NOT_OF_A_SLIDE:
        ((name, *_), *_) = (a.split("=") for a in arguments_of({key: [("k", 1)] if key == "settings" else 1}))
        assert name in options


def test_a_list_of_genes_need_not_be_where_a_worker_is(tmp_path):
    (tmp_path / "genes.txt").write_text("A\nB\n")
    parsed = build_parser().parse_args(["predict", "s", "o", "--model", "r", "--genes", str(tmp_path / "genes.txt")])
    assert arguments_of({"genes": parsed.genes}) == ["--genes=A,B"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--spots", "s.h5ad"], "--spots is for one slide, and .* lists 2: name each slide's units in a column units"),
        (["--map", "m.zarr"], "slide by slide"),
        (["--scheduler", "tcp://127.0.0.1:1", "--workers", "2"], "leave one of them out"),
        (["--scheduler", "nowhere://x"], 'No scheduler answers at "nowhere://x"'),
    ],
)
def test_options_that_do_not_work_for_a_cohort(stub, tmp_path, model, capsys, arguments, says):
    path = stub_slides(tmp_path, a="", b="")
    assert main(["predict", str(path), str(tmp_path / "out"), "--model", str(model), *arguments]) == 2
    said = capsys.readouterr().err
    assert said.startswith("pixnet predict: ")
    with pytest.raises(InputError, match=says):
        raise InputError(said)


def test_a_cohort_without_a_folder_a_model_or_dask(tmp_path, phantom, stub, model, monkeypatch, capsys):
    path = stub_slides(tmp_path, a="")
    assert main(["predict", str(path), "--model", str(model)]) == 2
    assert "OUT_DIR" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert main(["predict", str(path), str(tmp_path / "file"), "--model", str(model)]) == 2
    assert "choose another place" in capsys.readouterr().err
    assert main(["predict", str(tmp_path / "a.svs"), "o.h5ad", "--model", str(model), "--workers", "2"]) == 2
    assert "are for a cohort" in capsys.readouterr().err
    asked = ["--model", str(model), "--standard-error", "--bin-um", "16"]
    for more in (["--zarr"], ["--bin-um", "16,8"]):
        assert main(["predict", str(path), str(tmp_path / "out"), *asked, *more]) == 2
        assert "one size of units" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert main(["predict", str(path), str(tmp_path / "out"), "--model", str(model)]) == 2
    assert "pip install '.[cohort]'" in capsys.readouterr().err
    monkeypatch.undo()
    assert main(["predict", str(path), str(tmp_path / "out"), "--model", str(phantom)]) == 2
    assert "pixnet train" in capsys.readouterr().err


# Slides, with a stand-in for the command line -------------------------------------------------------------------------


def test_what_fails_is_reported_and_what_is_missing_is_done(stub, tmp_path, model):
    path = stub_slides(tmp_path, a="fine", b="fail", c="fault", d="memory", e="fine")
    out, options = tmp_path / "out", {"bin_um": [16.0]}
    said: list[str] = []
    first = predict_cohort(path, out, model, options, workers=2, say=said.append)
    assert [r.status for r in first] == ["done", "failed", "failed", "failed", "done"]
    assert first[1].message == "This slide is of another planet."
    assert first[2].message.startswith("RuntimeError: a bug Log: ")
    assert "SIGKILL" in first[3].message
    assert "Traceback" in (out / "logs" / "c.log").read_text()
    assert said[0] == "5 of 5 slides to predict, 2 at once."
    assert said[5].startswith("5 of 5, ")
    assert said[-1] == table(first)
    rows = list(csv.DictReader((out / "summary.csv").open()))
    assert [(r["name"], r["status"]) for r in rows] == [(r.name, r.status) for r in first]
    assert rows[1]["message"] == first[1].message

    (tmp_path / "b.svs").write_text("fine")  # mended
    os.utime(tmp_path / "e.svs", (1, 1))  # another file of that name
    (out / "a.h5ad").unlink()  # lost
    for name in ("c", "d"):
        (tmp_path / f"{name}.svs").write_text("good")
    assert [r.status for r in predict_cohort(path, out, model, options, workers=2)] == ["done"] * 5
    assert [r.status for r in predict_cohort(path, out, model, options)] == ["skipped"] * 5
    assert [len(calls(out, name)) for name in "abcde"] == [2] * 5


def test_a_failure_that_wrote_nothing_leaves_what_was_done(stub, tmp_path, model):
    path, out = stub_slides(tmp_path, a="fine"), tmp_path / "out"
    slide = tmp_path / "a.svs"
    os.utime(slide, (1, 1))
    predict_cohort(path, out, model, {})
    slide.write_text("fail")
    assert [r.status for r in predict_cohort(path, out, model, {})] == ["failed"]
    slide.write_text("fine")
    os.utime(slide, (1, 1))
    assert [r.status for r in predict_cohort(path, out, model, {})] == ["skipped"]


def test_a_cluster_that_does_not_close_loses_no_summary(stub, tmp_path, model, monkeypatch):
    close = distributed.LocalCluster.close

    def late(self, *args: Any, **kwargs: Any) -> None:
        close(self, *args, **kwargs)
        raise TimeoutError

    monkeypatch.setattr(distributed.LocalCluster, "close", late)
    out = tmp_path / "out"
    predict_cohort(stub_slides(tmp_path, a="fine"), out, model, {})
    assert [row["status"] for row in csv.DictReader((out / "summary.csv").open())] == ["done"]


@pytest.mark.parametrize(
    ("more", "says"),
    [(["--genes", "NOSUCH"], "does not predict NOSUCH"), (["--set", "tile_px=wide"], "must be a whole number")],
)
def test_what_no_slide_can_be_predicted_with_is_refused_at_once(tiny_run, tmp_path, capsys, more: list[str], says: str):
    path, out = stub_slides(tmp_path, a="fine"), tmp_path / "out"
    assert main(["predict", str(path), str(out), "--model", str(tiny_run), "--bin-um", "16", *more]) == 2
    assert says in capsys.readouterr().err
    assert not (out / "logs").exists()


def test_changed_options_are_predicted_again(stub, tmp_path, model):
    path = stub_slides(tmp_path, a="fine")
    out = tmp_path / "out"

    def status(**options: Any) -> str:
        (result,) = predict_cohort(path, out, model, options)
        return result.status

    assert status(bin_um=[16.0]) == "done"
    assert status(bin_um=[16.0]) == "skipped"
    assert status(bin_um=[16.0, 8.0]) == "done"
    assert json.loads((out / "a.done.json").read_text())["outputs"] == ["a_16um.h5ad", "a_8um.h5ad"]
    (out / "a_8um.h5ad").unlink()
    assert status(bin_um=[16.0, 8.0]) == "done"
    (model / "models" / "panel.json").write_text('{"another": "model"}')
    assert status(bin_um=[16.0, 8.0]) == "done"
    assert status(bin_um=[16.0, 8.0]) == "skipped"
    assert status(bin_um=[16.0, 8.0], mpp=9.0) == "failed"  # after the outputs were written anew
    assert status(bin_um=[16.0, 8.0]) == "done"


def test_each_slide_gets_the_options_of_its_row(stub, tmp_path, model):
    for name in ("a.svs", "b.svs", "c.svs", "b.h5ad", "c.geojson"):
        (tmp_path / name).touch()
    rows = [["a.svs", "", ""], ["b.svs", "0.5", "b.h5ad"], ["c.svs", "", "c.geojson"]]
    path = write_csv(tmp_path / "cohort.csv", ["slide", "mpp", "units"], *rows)
    out = tmp_path / "out"
    predict_cohort(path, out, model, {"bin_um": [16.0], "lattice": "square", "mpp": 0.25, "genes": ["A"]}, workers=3)
    common = f"--model={model}"
    assert calls(out, "a")[0][2:] == [common, "--bin-um=16.0", "--lattice=square", "--mpp=0.25", "--genes=A"]
    assert calls(out, "b")[0][2:] == [common, "--mpp=0.5", "--genes=A", f"--spots={tmp_path}/b.h5ad"]
    assert calls(out, "c")[0][2:] == [common, "--mpp=0.25", "--genes=A", f"--cells={tmp_path}/c.geojson"]


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_times_threads_are_the_cores(stub, tmp_path, model, workers: int, monkeypatch):
    import dask.system

    monkeypatch.setattr(dask.system, "CPU_COUNT", 6)
    path = stub_slides(tmp_path, a="fine", b="fine")
    predict_cohort(path, tmp_path / "out", model, {}, workers=workers)
    assert {calls(tmp_path / "out", name)[0][1] for name in "ab"} == {str(6 // workers)}


@pytest.mark.parametrize("end", ["kill", "retire"])
def test_a_lost_worker_loses_nothing_and_leaves_nothing_behind(stub, tmp_path, model, end: str):
    """The child hangs until it is ended, with a child of its own; another worker does its slide."""
    path = stub_slides(tmp_path, a="hang once", b="fine", c="fine")
    out = tmp_path / "out"
    with cluster(tmp_path / "elsewhere", 2) as (address, client), ThreadPoolExecutor(1) as pool:
        future = pool.submit(predict_cohort, path, out, model, {}, scheduler=address)
        log = out / "logs" / "a.log"
        until(lambda: future.done() or (log.is_file() and log.read_text().endswith("\n")))
        (hung,) = calls(out, "a")
        child, grandchild = int(hung[0]), int(log.read_text())
        assert is_alive(child)
        assert is_alive(grandchild)
        parent = int(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[1])
        (worker,) = (address for address, pid in client.run(os.getpid).items() if pid == parent)
        assert not any(client.run(eval, "{'bundle', 'torch'} & {*__import__('sys').modules}").values())
        if end == "kill":
            os.kill(parent, signal.SIGKILL)
        else:  # as at the end of a job's time
            client.retire_workers([worker], close_workers=True)
        until(lambda: not is_alive(child) and not is_alive(grandchild), 5)
        results = future.result(60)
    assert [r.status for r in results] == ["done"] * 3
    assert len(calls(out, "a")) == 2
    assert [r.status for r in predict_cohort(path, out, model, {})] == ["skipped"] * 3


@pytest.mark.parametrize("here", [True, False])
def test_a_stopped_command_leaves_nothing_behind(stub, tmp_path, model, here: bool):
    path = stub_slides(tmp_path, a="hang", b="fine")
    out = tmp_path / "out"

    def stop(said: str) -> None:
        if said.startswith("1 of 2"):
            until(lambda: (out / "logs" / "a.log").read_text().endswith("\n"))
            raise KeyboardInterrupt

    with ExitStack() as stack:
        own = {"workers": 2} if here else {"scheduler": stack.enter_context(cluster(tmp_path / "elsewhere", 2))[0]}
        with pytest.raises(KeyboardInterrupt):
            predict_cohort(path, out, model, {}, say=stop, **own)
        (hung,) = calls(out, "a")
        until(lambda: not is_alive(int(hung[0])) and not is_alive(int((out / "logs" / "a.log").read_text())), 5)
    (tmp_path / "a.svs").write_text("fine")
    assert [r.status for r in predict_cohort(path, out, model, {})] == ["done", "skipped"]


# Telling --------------------------------------------------------------------------------------------------------------


def test_progress_tells_rate_and_time_left():
    clock = iter([0.0, 60.0, 120.0])
    said: list[str] = []
    progress = Progress(4, said.append, lambda: next(clock))
    progress(Result("a", "done", 1234, 59.6))
    progress(Result("b", "failed", None, 1.0, "It is torn."))
    assert said == [
        "1 of 4, 60 slides/h, 3 min left | a: 1234 units (60 s)",
        "2 of 4, 60 slides/h, 2 min left | b: failed. It is torn. (1 s)",
    ]


def test_units_are_counted_over_all_outputs(tmp_path):
    ad.AnnData(np.zeros((3, 2))).write_h5ad(tmp_path / "a.h5ad")
    ad.AnnData(np.zeros((4, 2))).write_zarr(tmp_path / "a.zarr")
    (tmp_path / "text.h5ad").write_text("none")
    assert count_units(tmp_path, ["a.h5ad", "a.zarr"]) == 7
    assert count_units(tmp_path, ["a.h5ad", "text.h5ad"]) is None
    assert count_units(tmp_path, ["none.h5ad"]) is None


# The command line itself ----------------------------------------------------------------------------------------------


def test_a_cohort_is_predicted_as_its_slides_alone(tiny_run, phantom, tmp_path, capsys):
    good, spots = phantom / "slides" / "P3.tif", phantom / "units" / "P2_spot55.h5ad"
    torn = tmp_path / "torn.tif"
    torn.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    rows = [[good, "", "bins"], [torn, "", ""], [phantom / "slides" / "P2.tif", spots, ""]]
    path = write_csv(tmp_path / "cohort.csv", ["slide", "units", "name"], *rows)
    out = tmp_path / "out"
    command = ["predict", str(path), str(out), "--model", str(tiny_run), "--bin-um", "16"]
    assert main([*command, "--workers", "1"]) == 1
    said = capsys.readouterr().out
    assert "torn: failed. " in said
    table = {row["name"]: row for row in csv.DictReader((out / "summary.csv").open())}
    assert [row["status"] for row in table.values()] == ["done", "failed", "done"]
    assert "torn.tif is cut short" in table["torn"]["message"]
    assert sorted(p.name for p in out.iterdir()) == [
        *("P2.done.json", "P2.h5ad", "bins.done.json", "bins.h5ad", "logs", "summary.csv")
    ]
    asked = ad.read_h5ad(spots)
    assert list(ad.read_h5ad(out / "P2.h5ad").obs_names) == list(asked.obs_names)
    assert int(table["P2"]["units"]) == asked.n_obs

    torn.write_bytes(good.read_bytes())
    before = (out / "bins.h5ad").stat().st_mtime_ns
    assert main(command) == 0
    table = {row["name"]: row for row in csv.DictReader((out / "summary.csv").open())}
    assert [row["status"] for row in table.values()] == ["skipped", "done", "skipped"]
    assert (out / "bins.h5ad").stat().st_mtime_ns == before
    one, other = ad.read_h5ad(out / "bins.h5ad"), ad.read_h5ad(out / "torn.h5ad")
    assert one.n_obs == other.n_obs == int(table["bins"]["units"]) > 100
    np.testing.assert_array_equal(one.X, other.X)
