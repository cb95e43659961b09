"""Cells as GeoJSON, read by `predict --cells`."""

from __future__ import annotations

import copy
import gzip
import json
import math
from pathlib import Path
from typing import Any

from ..case import Build, Case, Must, kind
from ..checks import predicted
from ..damage import damage
from .slides import work_of


def predict_cells(build: Build, path: Path, what: str, must: Must = "either", **check: Any) -> Case:
    """Predict the cells of a file."""
    out = build.out("o.h5ad")
    arguments = ["predict", str(build.slide()), str(out), "--model", str(build.base.run), "--cells", str(path)]
    arguments += ["--set", "all_genes=true"]
    return Case(what, arguments, must, [out], leaves=work_of("o.h5ad"), check=predicted(out, **check))


def _read(build: Build) -> dict[str, Any]:
    return json.loads(build.base.cells.read_text())


@kind("cells-same", 35)
def harmless(build: Build) -> Case:
    """The same cells, written otherwise."""
    content = _read(build)
    features = content["features"]
    like = build.base.result("cells.h5ad")
    name, encoding = "cells.geojson", "utf-8"
    how = build.word(
        "reordered", "reversed rings", "a list", "indented", "BOM", "gzip", "more properties", "points twice",
        "open rings", "MultiPolygon", "null geometry", "a point", "nucleus", "degenerate", "crs", "one far vertex",
    )  # fmt: skip
    within = False
    if how == "reordered":
        build.rng.shuffle(features)
    elif how == "reversed rings":
        for feature in features:
            feature["geometry"]["coordinates"][0].reverse()
    elif how == "a list":
        content = features
    elif how == "BOM":
        encoding = "utf-8-sig"
    elif how == "more properties":
        for feature in features:
            feature["properties"] |= {"measurements": {"Area": 3.5, "DAB": None}, "isLocked": True, "color": [1, 2, 3]}
    elif how == "points twice":
        for feature in features:
            feature["geometry"]["coordinates"] = [[p for p in feature["geometry"]["coordinates"][0] for _ in "ab"]]
    elif how == "open rings":
        for feature in features:
            feature["geometry"]["coordinates"][0].pop()
    elif how == "MultiPolygon":
        for feature in features:
            rings = feature["geometry"]["coordinates"]
            feature["geometry"] = {"type": "MultiPolygon", "coordinates": [rings]}
    elif how in ("null geometry", "a point", "degenerate"):
        geometry: Any = None
        if how == "a point":
            geometry = {"type": "Point", "coordinates": [100.0, 100.0]}
        elif how == "degenerate":
            geometry = {"type": "Polygon", "coordinates": [[[10, 10], [20, 20], [10, 10]]]}
        features.insert(3, {"type": "Feature", "id": "extra", "geometry": geometry, "properties": {}})
    elif how == "nucleus":
        for feature in features:
            feature["nucleusGeometry"] = copy.deepcopy(feature["geometry"])
    elif how == "crs":
        content = {"crs": {"type": "name"}, **content, "name": "cells"}
    elif how == "one far vertex":  # the slide ends at 600: what lies beyond has no pixels
        features.append(_feature("far", [[500, 500], [5e4, 500], [500, 5e4]]))
        within = True
    text = json.dumps(content, indent=2 if how == "indented" else None)
    path = build.input(name)
    path.write_text(text, encoding=encoding)
    if how == "gzip":
        path.unlink()
        path = build.input("cells.geojson.gz")
        path.write_bytes(gzip.compress(text.encode()))
    must: Must = "either" if within else "right"  # its centre lies off the slide
    return predict_cells(build, path, f"cells: {how}", must, like=like, within=within)


def _feature(name: Any, ring: list, **properties: Any) -> dict[str, Any]:
    ring = [*ring, ring[0]] if ring else ring
    geometry = {"type": "Polygon", "coordinates": [ring]}
    return {"type": "Feature", "id": name, "geometry": geometry, "properties": properties}


@kind("cells", 75)
def changed(build: Build) -> Case:
    """Outlines, names and files of every bad kind."""
    content = _read(build)
    features = content["features"]
    feature = features[int(build.rng.integers(len(features)))]
    path = build.input("cells.geojson")
    how = build.word("outline", "outline", "coordinate", "coordinate", "name", "feature", "file", "file", "text")
    if how == "outline":
        return _outline(build, content, path)
    if how == "coordinate":
        value = build.word(
            "NaN", "Infinity", "-Infinity", "1e400", "1e300", "-1e9", "1" + "0" * 400, '"abc"', "null", "true", "[]",
            "{}", '"12.5"', "1e-320",
        )  # fmt: skip
        feature["geometry"]["coordinates"][0][2][int(build.rng.integers(2))] = "HERE"
        path.write_text(json.dumps(content).replace('"HERE"', value))
        return predict_cells(build, path, f"a coordinate of {value[:12]}")
    if how == "name":
        return _names(build, content, path)
    if how == "feature":
        return _features(build, content, path)
    if how == "text":
        text = build.word(
            "", "{}", "[]", "null", "3", '"text"', "[null, 1]", '{"features": null}', '{"features": {}}',
            '{"features": [[]]}', "[" * 100_000, '{"a":' * 50_000, '{"type": "FeatureCollection", "features": []}',
            '{"features": [{"geometry": ' + "[" * 3000 + "]" * 3000 + "}]}", "\x00" * 50, "{'a': 1}",
            '{"type":"FeatureCollection"}',
        )  # fmt: skip
        path.write_text(text)
        return predict_cells(build, path, f"text {text[:40]!r}", "sentence")
    text = json.dumps(content)
    if build.chance(0.5):
        path = build.input("cells.geojson.gz")
        path.write_bytes(gzip.compress(text.encode()))
        return predict_cells(build, path, f"gzip: {damage(path, build.rng)}", names=None)
    encoding = build.word("utf-16", "utf-32", "cp037", "damage", "damage")
    if encoding == "damage":
        path.write_text(text)
        return predict_cells(build, path, f"GeoJSON: {damage(path, build.rng)}")
    path.write_text(text, encoding=encoding)
    return predict_cells(build, path, f"GeoJSON in {encoding}")


def _outline(build: Build, content: dict[str, Any], path: Path) -> Case:
    features, rng = content["features"], build.rng
    names: list[str] | None = [f["id"] for f in features] + ["new"]
    must: Must = "either"
    how = build.word(
        "bow tie", "star", "reach", "off", "many points", "hole outside", "3D", "tiny", "slide", "spikes", "random"
    )
    x, y = (float(v) for v in rng.uniform(100, 500, 2))
    ring: list = [[x, y], [x + 20, y], [x + 20, y + 20], [x, y + 20]]
    if how == "bow tie":
        ring = [[x, y], [x + 20, y + 20], [x + 20, y], [x, y + 15]]
    elif how == "star":
        ring = [[x + 15 * math.cos(k * 4 * math.pi / 5), y + 15 * math.sin(k * 4 * math.pi / 5)] for k in range(5)]
    elif how == "reach":
        e = float(rng.choice([700, 5e3, 5e4, 1e6, 1e9, 1e15, 1e18, 1e30, 1e150]))
        ring = [[-e, -e], [e + 600, -e], [e + 600, e + 600], [-e, e + 600]]
        how = f"reaches {e:g} px beyond"
    elif how == "off":
        ring = [[px + 1000, py] for px, py in ring]
    elif how == "many points":
        n = int(rng.choice([10_000, 200_000]))
        ring = [[x + 30 * math.cos(k * 2 * math.pi / n), y + 30 * math.sin(k * 2 * math.pi / n)] for k in range(n)]
        must = "right"
    elif how == "3D":
        ring = [[*point, 1.0] for point in ring]
    elif how == "tiny":
        ring = [[x, y], [x + 1e-9, y], [x, y + 1e-9]]
        names = None
    elif how == "slide":
        ring = [[0, 0], [600, 0], [600, 600], [0, 600]]
    elif how == "spikes":
        ring = [[float(rng.uniform(0, 600)), float(rng.uniform(0, 600))] for _ in range(50)]
    elif how == "random":
        ring = [[float(rng.normal(300, 1e4)), float(rng.normal(300, 1e4))] for _ in range(5)]
    features.append(_feature("new", ring))
    if how == "hole outside":
        features[-1]["geometry"]["coordinates"].append([[0, 0], [5, 0], [5, 5], [0, 5], [0, 0]])
    path.write_text(json.dumps(content))
    return predict_cells(build, path, f"an outline: {how}", must, names=names)


def _names(build: Build, content: dict[str, Any], path: Path) -> Case:
    features = content["features"]
    how = build.word(
        "above 2^53", "equal", "objects", "code", "numbers and texts", "null", "long", "surrogate", "empty"
    )
    must: Must = "either"
    names: list[str] | None = [f["id"] for f in features]
    n: int | None = len(features)
    if how == "above 2^53":
        must = "right"
        first = 2 ** int(build.rng.choice([53, 60, 63, 70]))
        names = [str(first + number) for number in range(len(features))]
        for number, feature in enumerate(features):
            feature["id"] = first + number
    elif how == "equal":
        features[3]["id"] = features[4]["id"]
        names, n = None, None
    elif how == "objects":
        features[3]["id"] = build.pick({"a": 1}, [1, 2], 1.5, True)
        names = None
    elif how == "code":
        features[3]["id"], features[4]["id"] = f"${build.payload}", "@network"
        features[5]["properties"]["classification"] = {"name": f"${build.payload}"}
        names = [f["id"] for f in features]
        must = "right"
    elif how == "numbers and texts":
        features[3]["id"], features[4]["id"] = 7, "7"
        names, n = None, None
    elif how == "null":
        for feature in features:
            feature["id"] = None
        names = None
    elif how == "long":
        features[3]["id"] = "x" * 100_000
        names = None
    elif how == "surrogate":
        features[3]["id"] = "\ud800"
        names = None
    else:
        features[3]["id"] = ""
        names = None
    path.write_text(json.dumps(content))
    return predict_cells(build, path, f"names of cells: {how}", must, names=names, n=n)


def _features(build: Build, content: dict[str, Any], path: Path) -> Case:
    features = content["features"]
    bad: list[Any] = [
        None, 3, "text", [], {}, {"type": "Feature"}, {"geometry": None}, {"geometry": {"type": "Polygon"}},
        {"geometry": {"type": "Polygon", "coordinates": None}}, {"geometry": {"type": "Polygon", "coordinates": 5}},
        {"geometry": {"type": "Polygon", "coordinates": [[]]}},
        {"geometry": {"type": "Polygon", "coordinates": [[[1]]]}},
        {"geometry": {"type": "Polygon", "coordinates": [[1, 2, 3, 4]]}}, {"geometry": {"type": "Circle"}},
        {"geometry": {"type": "Polygon", "coordinates": {"0": 1}}}, {"geometry": [1, 2]}, {"geometry": {"type": 7}},
        {"geometry": {"type": "GeometryCollection", "geometries": []}},
        {"geometry": {"type": "MultiPolygon", "coordinates": [[[[]]]]}},
        {"geometry": features[0]["geometry"], "properties": 5},
        {"geometry": features[0]["geometry"], "properties": {"classification": 5}},
        {"geometry": features[0]["geometry"], "properties": {"classification": {"name": ["a", 1]}}, "id": "q"},
        {"geometry": features[0]["geometry"], "properties": {"classification": [[]]}, "id": "q"},
        {"geometry": features[0]["geometry"], "properties": {"objectType": {"a": 1}}, "id": "q"},
    ]  # fmt: skip
    item = bad[int(build.rng.integers(len(bad)))]
    if build.chance(0.5):
        features.insert(2, item)
    else:
        content["features"] = [item]
    path.write_text(json.dumps(content))
    return predict_cells(build, path, f"a feature of {json.dumps(item)[:60]}")
