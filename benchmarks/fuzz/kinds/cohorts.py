"""Tables of slides, read by `predict COHORT.csv`."""

from __future__ import annotations

from ..case import Build, Case, Must, kind
from ..checks import predicted
from ..damage import damage


@kind("cohorts", 30)
def cohorts(build: Build) -> Case:
    """Tables that are rejected before the first slide; and a few that are predicted, which takes a while."""
    table, base = build.input("cohort.csv"), build.base
    build.slide("slides/P3.tif")
    build.copy(base.units, "spots.h5ad")
    out = build.out("results")
    must: Must = "sentence"
    header, row, encoding = "slide,mpp,name", "slides/P3.tif,1.0,A", "utf-8"
    code = f'"${build.payload}"'
    if build.chance(0.12):
        row = build.word(
            row,
            "slides/P3.tif,,A b",
            "slides/P3.tif,1,ä",
            "slides/P3.tif,1.0,$x",
            "slides/P3.tif,1.0,@x",
            "slides/P3.tif,1.0,A.1",
        )
        lines, what = [header, row], f"cohort: {row}"
        if build.chance(0.4):  # which does not keep the other from its result
            what += f", next to a slide: {damage(build.slide('slides/bad.tif'), build.rng)}"
            lines.append("slides/bad.tif,1.0,bad")
        table.write_text("\n".join([*lines, ""]))
        name = row.rpartition(",")[2]
        arguments = ["predict", str(table), str(out), "--model", str(base.run), "--bin-um", "55", "--workers", "1"]
        return Case(
            what, [*arguments, "--set", "all_genes=true"], "either", [out], leaves=["out/results*"],
            check=predicted(out / f"{name}.h5ad", base.result("bins.h5ad")), patience=2.0, partial=True,
        )  # fmt: skip
    bad = {
        "mpp": build.word("slides/P3.tif,abc,A", "slides/P3.tif,-1,A", "slides/P3.tif,nan,A", "slides/P3.tif,1e999,A"),
        "name": build.word("slides/P3.tif,1,../A", "slides/P3.tif,1,/A", "slides/P3.tif,1,.A", "slides/P3.tif,1,a/b"),
        "missing": "slides/nothing.tif,1,A",
        "more values": "slides/P3.tif,1,A,5,6",
        "no slide": ",1,A",
        "twice": "slides/P3.tif,1,A\nslides/P3.tif,1,A",
        "folder": "slides,1,A",
        "code": f"{code},1,A",
        "nul": "slides/P3.tif\x00,1,A",
        "long": "slides/P3.tif,1," + "x" * 200_000,
    }
    how = build.word(*bad, "header", "empty", "semicolons", "utf-16", "latin-1", "damage", "units", "model", "options")
    text = f"{header}\n{bad.get(how, row)}\n"
    more = ["--bin-um", "55"]
    if how == "header":
        text = row + "\n"
    elif how == "empty":
        text = build.word("", "\n", header, ",,,\n")
    elif how == "semicolons":
        text = text.replace(",", ";")
    elif how in ("utf-16", "latin-1"):
        encoding, text = how, text.replace(",A", ",é")
    elif how == "units":
        text = "slide,units\nslides/P3.tif,nothing.h5ad\n"
    elif how == "options":
        more = build.word(
            "--map m.zarr", "--cells c.geojson", "--spots s.h5ad", "--genes NOTHING --bin-um 55", "--set nothing=1"
        ).split()
    table.write_text(text, encoding=encoding)
    if how == "damage":
        how = damage(table, build.rng)
    run = base.run if how != "model" else build.input("nothing")
    leaves = ["out/results"]
    arguments = ["predict", str(table), str(out), "--model", str(run), *more]
    if "rubbish" in how or "flipped" in how or "cut" in how or "zeros" in how:
        must, leaves = "either", ["out/results*"]
    return Case(f"cohort: {how}", arguments, must, [out], leaves=leaves, patience=2.0, partial=must == "either")
