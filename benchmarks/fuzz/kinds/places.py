"""Where results go: folders of the user's, full and read-only disks, names that look like something else; signals."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from ..base import TINY, settings
from ..case import Build, Case, Must, kind
from ..checks import finite_json, predicted, trained, whole_map
from .slides import work_of
from .units import of_evaluation, of_training


def _predict(build: Build, slide: Path, out: Path, *more: str) -> list[str]:
    model = ["--model", str(build.base.run), "--set", "all_genes=true"]
    return ["predict", str(slide), str(out), *model, *(more or ("--bin-um", "55"))]


@kind("places", 70)
def places(build: Build) -> Case:
    """Files and folders of the user's stay as they are."""
    how = build.word(
        "the slide", "the spots", "the model", "a folder", "a full folder", "below a file", "too long", "no ending",
        "spaces", "a map's folder", "a map's folder", "work_dir", "work_dir", "work_dir", "work folder", "run folder",
        "run file", "audit file", "report folder", "zip", "same twice", "two maps", "nifti folder", "new folder",
        "train folder",
    )  # fmt: skip
    slide, out = build.slide(), build.out("o.h5ad")
    must: Must = "either"
    case = Case(f"output: {how}", _predict(build, slide, out), outputs=[out], leaves=work_of("o.h5ad"))
    case.check = predicted(out, build.base.result("bins.h5ad"))
    if how == "the slide":
        slide = slide.rename(slide.with_suffix(".h5ad"))
        case.arguments, case.must, case.outputs, case.leaves = _predict(build, slide, slide), "sentence", [], []
    elif how == "the spots":
        spots = build.copy(build.base.units, "spots.h5ad")
        case.arguments, case.outputs, case.leaves = _predict(build, slide, spots, "--spots", str(spots)), [], []
        case.must = "sentence"
    elif how == "the model":
        run = build.run()
        model = run / "models" / "model.pt"
        case.arguments = ["predict", str(slide), str(model), "--model", str(run), "--bin-um", "55"]
        case.must, case.outputs = "sentence", []
    elif how in ("a folder", "a full folder"):
        out.mkdir()
        if how == "a full folder":
            (out / "mine.txt").write_text("mine")
        case.must, case.outputs = "sentence", []
    elif how == "below a file":
        case.arguments, case.outputs, case.must = _predict(build, slide, slide / "o.h5ad"), [], "sentence"
    elif how == "too long":
        case.arguments, case.outputs, case.must = _predict(build, slide, build.out("x" * 300 + ".h5ad")), [], "sentence"
    elif how == "no ending":
        name = build.word("o", "o.txt", "o.h5", "o.H5AD", ".h5ad", "o.v1.2")
        case.arguments, case.outputs = _predict(build, slide, build.out(name)), []
        case.writes, case.check = ["out/*"], None
    elif how == "spaces":
        name = build.word(
            "a b.h5ad", "ü.h5ad", "$x.h5ad", "@x.h5ad", "%x.h5ad", "a#b.h5ad", "'.h5ad", "*.h5ad", "[a].h5ad", "-o.h5ad"
        )
        out = build.out(name)
        case.what = f"output: {name}"
        case.arguments, case.outputs, case.leaves = _predict(build, slide, out), [out], work_of(name)
        case.check = predicted(out, build.base.result("bins.h5ad"))
        case.must = "right" if name[0] in "aü" and "#" not in name else "either"
    elif how in ("a map's folder", "nifti folder"):
        out = build.out("m.zarr" if how != "nifti folder" else "n.nii.gz")
        out.mkdir()
        (out / "mine.txt").write_text("mine")
        option = ["--map", str(out)] if how != "nifti folder" else ["--nifti", str(out), "--region", "0,0,300,300"]
        case = Case(
            f"output: {how} with the user's files", ["predict", str(slide), "--model", str(build.base.run), *option]
        )
        case.must = "sentence"
        case.leaves = work_of(out.name)
    elif how == "work_dir":
        mine = build.input("mine")
        inside = build.word("P3", "P3", "other")
        (mine / inside).mkdir(parents=True)
        (mine / inside / build.word("picture.jpg", "done.json", "map.zarr")).write_text("mine")
        case.arguments = [*case.arguments, "--set", f"work_dir={mine}"]
        case.what = f"work_dir is a folder of the user's with {inside}"
        case.leaves = [*case.leaves, "in/mine/P3/*"]
    elif how == "work folder":
        mine = build.out("o.h5ad.work/P3")
        mine.mkdir(parents=True)
        (mine / "notes.txt").write_text("mine")
        case.leaves = ()
    elif how in ("run folder", "run file", "train folder"):
        run = build.out("run")
        if how == "run file":
            run.write_text("mine")
        else:
            for name in (
                "notes.txt",
                "models/old.pt",
                "checkpoints/old.pt",
                "evaluation/mine.csv",
                "configs/mine.json",
            ):
                (run / name).parent.mkdir(parents=True, exist_ok=True)
                (run / name).write_text("mine")
        arguments = ["train", str(build.base.dataset), str(run), *settings(TINY)]
        return Case(
            f"output: {how}",
            arguments,
            outputs=[run] if how != "run file" else [],
            leaves=of_training("run"),
            writes=[],
        )
    elif how == "audit file":
        audit = build.out("audit")
        kind_of = build.word("a file", "their own")
        if kind_of == "a file":
            audit.write_text("mine")
        else:
            audit.mkdir()
            (audit / "notes.txt").write_text("mine")
        pred = build.copy(build.base.result("spots.h5ad"), "pred.h5ad")
        arguments = ["audit", str(pred), str(build.base.units), "--out", str(audit), "--min-total", "20"]
        case = Case(f"audit into {kind_of}", arguments, writes=["out/audit/audit*"], leaves=["out/audit/audit*"])
        case.must = "sentence" if kind_of == "a file" else "right"
    elif how == "report folder":
        report = build.out("r.html")
        report.mkdir()
        (report / "notes.txt").write_text("mine")
        return Case("report into a folder", ["report", str(build.run()), str(report)], "sentence")
    elif how == "zip":
        run = build.run()
        target = build.word("models/model.pt", "x", ".zip", "configs.zip", "a b.zip")
        out = run / target if target.startswith("models") else build.out(target)
        case = Case(f"export-bundle to {target}", ["export-bundle", str(run), str(out)], writes=["out/*"])
        case.must = "sentence" if target in ("models/model.pt", "x") else "either"
    elif how == "same twice":
        zarr = build.out("o.zarr")
        case = Case("one output twice", [*_predict(build, slide, zarr), "--map", str(zarr)], "sentence")
    elif how == "two maps":
        zarr, again = build.out("o.zarr"), build.out("./x/../o.zarr")
        case = Case(
            "one output twice, by another name", [*_predict(build, slide, zarr), "--map", str(again)], "sentence"
        )
        case.leaves = ["out/x"]
    elif how == "new folder":
        out = build.out("new/deep/o.h5ad")
        case.arguments, case.outputs, case.must = _predict(build, slide, out), [out], "right"
        case.writes, case.check = ["out/new*"], predicted(out, build.base.result("bins.h5ad"))
    assert must
    return case


@kind("disks", 35)
def disks(build: Build) -> Case:
    """Full and read-only file systems; where none may be mounted, a device that is always full."""
    slide, disk = build.slide(), build.out("disk")
    disk.mkdir()
    how = build.word("full", "full", "full", "read-only", "read-only", "read-only input")
    command = build.word("predict", "predict", "map", "train", "train", "report", "audit", "export-bundle", "evaluate")
    size_kb = int(2 ** build.rng.uniform(3, 11))
    mounted = _mount(disk, f"size={size_kb if how == 'full' else 20_000}k")
    if not mounted:
        return Case(
            "nothing may be mounted here: as it is",
            _predict(build, slide, build.out("o.h5ad")),
            "right",
            [build.out("o.h5ad")],
        )
    run = disk / "run"
    if command == "evaluate" or how == "read-only input":
        try:
            shutil.copytree(build.base.run, run)
        except (OSError, shutil.Error):  # full already
            shutil.rmtree(run, ignore_errors=True)
            command = "predict"
    if how == "read-only input":
        shutil.copy(slide, disk / "S.tif")
        out = build.out("o.h5ad")
        arguments = [
            "predict",
            str(disk / "S.tif"),
            str(out),
            "--model",
            str(run),
            "--bin-um",
            "55",
            "--set",
            "all_genes=true",
        ]
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        check = predicted(out, build.base.result("bins.h5ad"))
        return Case("slide and run are read-only", arguments, "right", [out], check=check, clean=_unmount(disk))
    if how == "read-only":
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    pred = build.copy(build.base.result("spots.h5ad"), "pred.h5ad")
    arguments, result = {
        "predict": (_predict(build, slide, disk / "o.h5ad"), "o.h5ad"),
        "map": (["predict", str(slide), "--model", str(build.base.run), "--map", str(disk / "m.zarr")], "m.zarr"),
        "train": (["train", str(build.base.dataset), str(run), *settings(TINY)], "run"),
        "report": (["report", str(build.run()), str(disk / "r.html")], "r.html"),
        "audit": (
            ["audit", str(pred), str(build.base.units), "--out", str(disk / "audit"), "--min-total", "20"],
            "audit",
        ),
        "export-bundle": (["export-bundle", str(build.run("run2")), str(disk / "m.zip")], "m.zip"),
        "evaluate": (["evaluate", str(run), "--dataset", str(build.base.dataset)], "run/evaluation"),
    }[command]
    leaves = [
        "out/disk/*.work",
        "out/disk/*.work/*",
        *of_training("disk/run"),
        "out/disk/run/.pixnet.json",
        "out/disk/run/models/model.pt",  # the best weights so far, whole
        "out/disk/run/evaluation/*",
        "out/disk/audit*",
    ]
    case = Case(
        f"a {how} disk ({size_kb} KB), {command}",
        arguments,
        outputs=[disk / result],
        leaves=leaves,
        clean=_unmount(disk),
    )
    case.writes = [*of_evaluation("disk/run"), "out/disk/run*"]
    if how == "read-only":
        case.must, case.outputs = "sentence", []
    elif command in ("predict",):
        case.check = predicted(disk / result, build.base.result("bins.h5ad"))
    elif command == "train":
        case.check = trained(disk / "run")
    return case


def _mount(folder: Path, options: str) -> bool:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def _unmount(folder: Path) -> Callable[[], None]:
    def unmount() -> None:
        subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)

    return unmount


@kind("signals", 25)
def signals(build: Build) -> Case:
    """A command that is stopped at any moment leaves only files from which the same command continues; and it does."""
    sent = int(build.rng.choice([signal.SIGTERM, signal.SIGINT]))
    after = float(build.rng.uniform(0.02, 1.2))
    command = build.word("predict", "map", "train", "audit", "report")
    slide, out = build.slide(), build.out("o.h5ad")
    what = f"{signal.Signals(sent).name} after {after:.2f} s, {command}"
    if command == "predict":
        case = Case(what, _predict(build, slide, out), "right", [out], leaves=work_of("o.h5ad"))
        case.check = predicted(out, build.base.result("bins.h5ad"))
    elif command == "map":
        out = build.out("m.zarr")
        arguments = ["predict", str(slide), "--model", str(build.base.run), "--map", str(out)]
        case = Case(what, arguments, "right", [out], leaves=work_of("m.zarr"))
    elif command == "train":
        run = build.out("run")
        case = Case(what, ["train", str(build.base.dataset), str(run), *settings(TINY)], "right", [run])
        case.leaves, case.check = [*of_training("run"), "out/run/*"], trained(run, build.base.result("run"))
    elif command == "audit":
        pred = build.copy(build.base.result("spots.h5ad"), "pred.h5ad")
        arguments = ["audit", str(pred), str(build.base.units), "--out", str(build.out("audit")), "--min-total", "20"]
        case = Case(what, arguments, "right", [build.out("audit")], leaves=["out/audit*"])
    else:
        case = Case(what, ["report", str(build.run()), str(build.out("r.html"))], "right", [build.out("r.html")])
    case.signal = (sent, after)
    case.leaves = [*case.leaves, *(str(path.relative_to(build.folder)) for path in case.outputs)]  # it may be done
    return case


@kind("at-once", 15)
def at_once(build: Build) -> Case:
    """Two commands with one output: one waits or fails, and the result is that of a single command."""
    command = build.word("predict", "map", "train", "evaluate", "audit", "report", "export-bundle")
    what = f"twice at once, {command}"
    slide, out, run, base = build.slide(), build.out("o.h5ad"), build.out("run"), build.base
    if command == "predict":
        case = Case(what, _predict(build, slide, out), outputs=[out], check=predicted(out, base.result("bins.h5ad")))
    elif command == "map":
        zarr = build.out("m.zarr")
        arguments = ["predict", str(slide), "--model", str(base.run), "--map", str(zarr)]
        case = Case(what, arguments, outputs=[zarr], check=whole_map(zarr, base.result("map.zarr")))
    elif command == "train":
        arguments = ["train", str(base.dataset), str(run), *settings(TINY)]
        case = Case(what, arguments, outputs=[run], check=trained(run), alone=True)
        case.at_once = [*arguments, "--set", "learning_rate=0.01"]
    elif command == "evaluate":
        shutil.copytree(base.run, run)
        arguments = ["evaluate", str(run), "--dataset", str(base.dataset)]
        scores = run / "evaluation" / "test.json"
        case = Case(what, arguments, writes=of_evaluation("run"), check=finite_json(scores))
        case.at_once = [*arguments, "--split", "validation", "--name", "test2"] if build.chance(0.5) else arguments
    elif command == "audit":
        pred, audit = build.copy(base.result("spots.h5ad"), "pred.h5ad"), build.out("audit")
        arguments = ["audit", str(pred), str(base.units), "--out", str(audit), "--min-total", "20"]
        case = Case(what, arguments, outputs=[audit], check=finite_json(audit / "audit.json"))
    elif command == "report":
        case = Case(what, ["report", str(build.run()), str(build.out("r.html"))], outputs=[build.out("r.html")])
    else:
        case = Case(what, ["export-bundle", str(build.run()), str(build.out("m.zip"))], outputs=[build.out("m.zip")])
    case.at_once = case.at_once or case.arguments
    return case
