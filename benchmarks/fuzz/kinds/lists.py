"""Lists of genes and panels, given to `--genes` of predict, audit and report."""

from __future__ import annotations

import json

from ..case import Build, Case, Must, kind
from ..checks import finite_json, predicted
from .models import bad_values
from .slides import work_of


@kind("lists", 60)
def lists(build: Build) -> Case:
    """Names are names, whatever they look like."""
    genes = [str(g) for g in build.rng.choice(build.base.genes, 3, replace=False)]
    path, must, wanted = build.input("genes.txt"), "either", genes
    given = str(path)
    code = f"${build.payload}"
    how = build.word(
        "BOM", "CRLF", "blank lines", "twice", "tabs", "commas", "csv", "one line", "code", "code", "code", "latin-1",
        "utf-16", "empty", "binary", "huge", "folder", "missing", "unknown", "case", "header", "panel",
        "panel of code", "panel of code", "bad panel", "typed", "typed code", "quotes", "comment", "dollar names",
    )  # fmt: skip
    if how == "BOM":
        path.write_text("\n".join(genes), encoding="utf-8-sig")
    elif how == "CRLF":
        path.write_bytes("\r\n".join([*genes, ""]).encode())
    elif how == "blank lines":
        path.write_text("\n\n  " + "\n \n".join(genes) + " \n\n")
    elif how == "twice":
        path.write_text("\n".join([*genes, *genes]))
    elif how == "tabs":
        path.write_text("\t".join(genes) + "\n")
    elif how in ("commas", "csv"):
        path = build.input("genes.csv")
        given = str(path)
        path.write_text(",".join(genes) + "\n" if how == "csv" else ",\n".join(genes))
    elif how == "one line":
        path.write_text(genes[0])
        wanted = genes[:1]
    elif how == "typed":
        given = ",".join(genes)
    elif how == "panel":
        path = build.copy(build.base.run / "models" / "panel.json", "panel.json")
        given, wanted = str(path), build.base.genes
    if how in ("BOM", "CRLF", "blank lines", "twice", "tabs", "commas", "csv", "one line", "typed", "panel"):
        must = "right"
    elif how == "code":
        path.write_text("\n".join([code, *genes] if build.chance(0.5) else [code]))
        must = "sentence"
    elif how == "dollar names":
        path.write_text("\n".join([*genes, build.word("@genes", "%genes", "$1", "@network#head", "a#b", "$", "@")]))
        must = "sentence"
    elif how == "typed code":
        given = code
        must = "sentence"
    elif how == "latin-1":
        path.write_bytes("\n".join([*genes, "Gène"]).encode("latin-1"))
        must = "sentence"
    elif how == "utf-16":
        path.write_text("\n".join(genes), encoding="utf-16")
    elif how == "empty":
        path.write_text(build.word("", "\n\n", ",", "\ufeff"))
    elif how == "binary":
        path.write_bytes(build.rng.bytes(2000))
        must = "sentence"
    elif how == "huge":
        path.write_text("\n".join(f"GENE_{i}" for i in range(200_000)))
        must = "sentence"
    elif how == "folder":
        path.mkdir()
    elif how == "missing":
        must = "sentence"
    elif how == "unknown":
        path.write_text("\n".join([*genes, "ERBB99"]))
        must = "sentence"
    elif how == "case":
        path.write_text("\n".join(g.lower() for g in genes))
    elif how == "header":
        path.write_text("\n".join(["gene", *genes]))
    elif how == "quotes":
        path.write_text("\n".join(f'"{g}"' for g in genes))
    elif how == "comment":
        path.write_text("\n".join(["# my genes", *genes]))
    elif "panel" in how:
        path = build.copy(build.base.run / "models" / "panel.json", "panel.json")
        given = str(path)
        content = json.loads(path.read_text())
        if how == "panel of code":
            content["genes"][1] = code
            content["panels"] = {code: [code], **content["panels"]}
        else:
            values = bad_values(build)
            content[build.word("genes", "panels", "mean", "std", "training")] = values[
                int(build.rng.integers(len(values)))
            ]
        path.write_text(json.dumps(content))
    return _asked(build, given, wanted, f"genes: {how}", must)  # type: ignore[arg-type]


def _asked(build: Build, given: str, wanted: list[str], what: str, must: Must) -> Case:
    base, command = build.base, build.word("predict", "predict", "audit", "report")
    what = f"{what}, {command}"
    if command == "predict":
        out = build.out("o.h5ad")
        arguments = [
            "predict",
            str(build.slide()),
            str(out),
            "--model",
            str(base.run),
            "--bin-um",
            "55",
            "--genes",
            given,
        ]
        check = predicted(out, base.result("bins.h5ad"), genes=wanted) if must == "right" else predicted(out)
        return Case(what, arguments, must, [out], leaves=work_of("o.h5ad"), check=check)
    if command == "audit":
        out = build.out("audit")
        must = "either" if must == "sentence" else must  # genes that no file has are counted in a note
        pred = build.copy(base.result("spots.h5ad"), "pred.h5ad")
        arguments = ["audit", str(pred), str(base.units), "--out", str(out), "--min-total", "20", "--genes", given]
        return Case(what, arguments, must, [out], leaves=["out/audit"], check=finite_json(out / "audit.json"))
    out = build.out("report.html")
    return Case(what, ["report", str(build.run()), str(out), "--genes", given], must, [out])
