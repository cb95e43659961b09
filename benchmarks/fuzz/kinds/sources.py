"""Public layouts for `prepare`, and the options of `phantom`."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from ..case import Build, Case, Must, kind
from ..checks import prepared
from ..damage import damage


@kind("sources", 60)
def sources(build: Build) -> Case:
    """Tables and pictures of a section, the same in another form or damaged."""
    root = build.copy(build.base.legacy, "her2st")
    counts, spots = root / "ST-cnts" / "A1.tsv.gz", root / "ST-spotfiles" / "A1_selection.tsv"
    picture = root / "ST-imgs" / "A1.jpg"
    out = build.out("data")
    must: Must = "either"
    how = build.word(
        "same", "same", "counts", "counts", "spots", "spots", "picture", "damage", "damage", "gone", "ids", "out"
    )
    arguments = ["prepare", str(root), str(out), "--test", "B"]
    check = None
    if how == "same":
        how, must = _same(build, counts, spots), "right"
        check = prepared(out, build.base.result("prepared"))
    elif how == "counts":
        how = _change(build, counts, True)
    elif how == "spots":
        how = _change(build, spots, False)
    elif how == "picture":
        how = _picture(build, picture)
    elif how == "damage":
        path = [counts, spots, picture][int(build.rng.integers(3))]
        how = f"{path.name}: {damage(path, build.rng)}"
    elif how == "gone":
        path = [counts, spots, picture, root / "ST-imgs"][int(build.rng.integers(4))]
        if path.is_dir():
            for file in path.iterdir():
                file.unlink()
        else:
            path.unlink()
        how = f"{path.name} is gone"
    elif how == "ids":
        arguments[-1] = build.word("Q", "", "A,B", "B,B", f"${build.payload}", "*", "../B")
        how = f"--test {arguments[-1][:20]}"
    else:
        where = build.word("source", "inside", "users")
        if where == "source":
            arguments[3] = str(root)
        elif where == "inside":
            arguments[3] = str(root / "ST-cnts" / "data")
        else:
            for name in ("dataset.json", "slides/A1.tif", "spots/A1.h5ad"):
                mine = out / name
                mine.parent.mkdir(parents=True, exist_ok=True)
                mine.write_text("mine")
        how = f"the output is: {where}"
        case = Case(f"prepare: {how}", arguments, leaves=["out/data*"])
        case.writes = ["in/her2st/dataset.json", "in/her2st/slides*", "in/her2st/spots*", "in/her2st/ST-cnts/data*"]
        return case
    return Case(f"prepare: {how}", arguments, must, [out], leaves=["out/data*"], check=check)


def _same(build: Build, counts: Path, spots: Path) -> str:
    how = build.word(
        "permuted spots", "permuted rows", "permuted genes", "CRLF", "not zipped", "more columns", "as it was"
    )
    table, places = pd.read_csv(counts, sep="\t", index_col=0), pd.read_csv(spots, sep="\t")
    seed = int(build.rng.integers(2**31))
    if how == "permuted spots":
        places = places.sample(frac=1, random_state=seed)
    elif how == "permuted rows":
        table = table.sample(frac=1, random_state=seed)
    elif how == "permuted genes":
        table = table.sample(frac=1, axis=1, random_state=seed)
    elif how == "more columns":
        places["note"] = "a note"
    places.to_csv(spots, sep="\t", index=False)
    text = table.to_csv(sep="\t", lineterminator="\r\n" if how == "CRLF" else "\n")
    if how == "not zipped":
        counts.unlink()
        counts.with_suffix("").write_text(text)
    else:
        counts.write_bytes(gzip.compress(text.encode()))
    return how


def _change(build: Build, path: Path, zipped: bool) -> str:
    table = pd.read_csv(path, sep="\t", index_col=0 if zipped else None).astype(object)
    row, column = int(build.rng.integers(len(table))), int(build.rng.integers(table.shape[1]))
    values = ["abc", np.nan, -3, 1.5, 1e300, "", "inf", "$1", "1,5", 10**20]
    how = build.word(
        "value",
        "value",
        "a column gone",
        "a row gone",
        "twice a row",
        "no rows",
        "header gone",
        "commas",
        "encoding",
        "names",
    )
    encoding = "utf-8"
    if how == "value":
        value = values[int(build.rng.integers(len(values)))]
        table.iat[row, column] = value
        how = f"{table.columns[column]}={value!r}"
    elif how == "a column gone":
        how = f"without {table.columns[column]}"
        table = table.drop(columns=table.columns[column])
    elif how == "a row gone":
        table = table.drop(index=table.index[row])
    elif how == "twice a row":
        table = pd.concat([table, table.iloc[[row]]])
    elif how == "no rows":
        table = table.iloc[:0]
    elif how == "names":
        if zipped:
            table.index = [f"spot {i}" for i in range(len(table))]
        else:
            table.columns = [str(c).upper() for c in table.columns]
    text = table.to_csv(sep="," if how == "commas" else "\t", index=zipped, header=how != "header gone")
    if how == "encoding":
        encoding = build.word("utf-16", "utf-8-sig", "latin-1")
        text = text.replace("GENE0", "Gène").replace("selected", "selectéd")
    content = text.encode(encoding)
    path.write_bytes(gzip.compress(content) if zipped else content)
    return f"{path.name}: {how}"


def _picture(build: Build, path: Path) -> str:
    image: Image.Image = Image.open(path)
    image.load()
    how = build.word("grey", "CMYK", "small", "png inside", "turned", "one pixel", "huge header")
    if how == "grey":
        image = image.convert("L")
    elif how == "CMYK":
        image = image.convert("CMYK")
    elif how == "small":
        image = image.resize((30, 24))
    elif how == "turned":
        image = image.transpose(Image.Transpose.ROTATE_90)
    elif how == "one pixel":
        image = image.resize((1, 1))
    if how == "png inside":
        image.save(path, format="PNG")
    else:
        image.save(path, format="JPEG", quality=95)
    if how == "huge header":
        content = bytearray(path.read_bytes())
        at = content.find(b"\xff\xc0")
        content[at + 5 : at + 9] = b"\xff\xff\xff\xff"
        path.write_bytes(content)
    return f"a picture: {how}"


@kind("phantoms", 20)
def phantoms(build: Build) -> Case:
    """Options of `phantom`."""
    out = build.out("phantom")
    options = {
        "--slides": "3",
        "--size-um": "200",
        "--mpp": "1",
        "--genes": "10",
        "--units": "spot:55:60",
        "--truth": "none",
    }
    bad = {
        "--slides": "0 -1 nan 1.5 99999999",
        "--size-um": "0 -5 nan 1 1e30 inf 101",
        "--mpp": "0 nan 1e30 299 1e-9",
        "--genes": "0 1 -3 x 99999999",
        "--units": "spot spot:55 bin:0 bin:nan spot:55:1 bin:-5 cell:5 bin:16,bin:16 spot:1e30:1e30 , : spot:55:60,",
        "--blank-fraction": "-1 1 nan 0.95",
        "--seed": "-1 x 99999999999999999999",
    }
    key = build.word(*bad)
    value = build.word(*bad[key].split())
    if build.chance(0.15):
        mine = out / build.word("slides/P1.tif", "dataset.json", "notes.txt")
        mine.parent.mkdir(parents=True)
        mine.write_text("mine")
        key, value = "--seed", "3"
    options[key] = value
    arguments = ["phantom", str(out), *(part for pair in options.items() for part in pair)]
    return Case(f"phantom: {key} {value}", arguments, outputs=[out], leaves=["out/phantom"])
