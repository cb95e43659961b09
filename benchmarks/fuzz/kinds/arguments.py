"""Values of options that are impossible, or need more time and memory than there is."""

from __future__ import annotations

from ..case import Build, Case, kind
from ..checks import finite_json, predicted
from .slides import work_of
from .units import of_evaluation

_PREDICT = {
    "--bin-um": "0 -5 nan inf 1e-3 1e-9 1e30 1e300 16,16 , 55, abc 0.5 600 1e4 55,16",
    "--spot-um": "0 -1 nan 1e-3 1e9 55 400",
    "--region": "0,0,0,0 -5,-5,10,10 nan,0,1,1 1e30,0,5,5 0,0,1e30,1e30 0,0 1,2,3,4,5 a,b,c,d 0,0,1,1 599,599,50,50"
    " -1e9,-1e9,2e9,2e9",
    "--mpp": "0 nan 1e-9 1e30 0.5 8 inf -1 1e-3 abc",
    "--genes": ", @x %x $x GENE001,GENE001 GENE001, gene001",
    "--runtime": "onnx openvino torch cuda",
    "--lattice": "hex square round",
    "--model": "nothing . / $x @x",
    "--spots": "nothing.h5ad . $x.h5ad",
    "--cells": "nothing.geojson . x.h5ad $x.geojson",
}
_EVALUATE = {
    "--size-um": "0 -1 nan inf 16 1e30 55 3.7",
    "--scales-um": "0 nan -5 1e-9 1e30 200,200 , 1 16 110,55 inf",
    "--split": "training validation test none",
    "--dataset": "nothing . $x",
    "--set": "tile_px=1 tile_px=1000000 test_time_augmentation=[9] test_time_augmentation=[] score_size_um=nan"
    " scales_um=5 split=[1] name=[1] mpp=0.001",
}


@kind("arguments", 45)
def arguments(build: Build) -> Case:
    """A sentence, or a result; in bounded time and memory."""
    base = build.base
    if build.chance(0.3):
        import shutil

        run = build.out("run")
        shutil.copytree(base.run, run)
        option = build.word(*_EVALUATE)
        value = build.word(*_EVALUATE[option].split())
        given = ["evaluate", str(run), "--dataset", str(base.dataset), option, value]
        writes = [*of_evaluation("run"), "out/run/evaluation/*"]
        check = finite_json(run / "evaluation" / "test.json") if option not in ("--split", "--set") else None
        return Case(f"evaluate {option} {value}", given, writes=writes, leaves=["out/run/predictions*"], check=check)
    out, slide = build.out("o.h5ad"), build.slide()
    option = build.word(*_PREDICT)
    value = build.word(*_PREDICT[option].split())
    given = ["predict", str(slide), str(out), "--model", str(base.run), option, value]
    outputs = [out]
    if option in ("--genes", "--mpp", "--runtime", "--model"):
        given += ["--bin-um", "55"]
    elif option == "--lattice":
        given += ["--spot-um", "55", "--pitch-um", build.word("10", "100", "nan", "1e-6", "1e9", "0")]
    elif option == "--region":
        given += ["--bin-um", "55"]
    several = option == "--bin-um" and "," in value.strip(",")
    case = Case(f"predict {' '.join(given[5:])}", given, outputs=[] if several else outputs, leaves=work_of("o.h5ad"))
    if several:
        case.writes = ["out/o*.h5ad"]
    else:
        case.check = predicted(out)
    return case
