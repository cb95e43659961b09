"""Tables and a plot of `benchmarks.scales`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bundle.files.atomic import replacing

from .markdown import table
from .store import Results

__all__ = ["METHODS", "TABLE", "TRAIN_UM", "differences_table", "newest", "plot", "scores_table"]

#: The CSV.
TABLE = "scales"
TRAIN_UM = {
    "train_100": [100],
    "train_55": [55],
    "train_56": [56],  # squares, which the 8 µm bins are binned to
    "train_16": [16],
    "train_8": [8],
    "train_all": [100, 55, 16, 8, 2],
}
#: The dense model, its head alone, the crop model, the one with ST-Net's crops, and no model.
METHODS = ("pixnet", "head", "crop", "stnet", "interpolation")
#: The size of the measured units that are interpolated for comparison, where it is not the training's own.
_MEASURED_UM = {"train_56": "8", "train_all": "100"}

Row = dict[str, Any]
#: Lines of the CSV by the size tested, in µm.
BySize = dict[str, Row]


def newest(results: Results, data: str, against: str) -> dict[tuple[str, str], BySize]:
    """Of each method and training the newest run's lines.

    Args:
        results: where they are.
        data: `phantom` or `her2st`.
        against: `truth` (the noise-free rate) or `counts`.
    """
    keys: dict[tuple[str, str], str] = {}
    rows = [row for row in results.rows(TABLE) if row["data"] == data]
    for row in rows:  # oldest first
        keys[row["method"], row["trained"]] = row["key"]
    found: dict[tuple[str, str], BySize] = {}
    for row in rows:
        name = row["method"], row["trained"]
        if row["key"] == keys[name] and row["against"] == against:
            found.setdefault(name, {})[row["size_um"]] = row
    return {name: found[name] for name in sorted(found, key=_place)}


def _place(name: tuple[str, str]) -> tuple[int, str, int]:
    method, trained = name
    how, _, size = trained.rpartition("_")  # train_100, linear_100
    return METHODS.index(method), how, list(TRAIN_UM).index(f"train_{size}")


def scores_table(results: Results, data: str, against: Sequence[str]) -> str:
    """PCC@M at each size, the best of each column in bold."""
    found = {what: newest(results, data, what) for what in against}
    columns = {
        (what, size): max(float(sizes[size]["PCC@M"]) for sizes in by_method.values() if size in sizes)
        for what, by_method in found.items()
        for size in sorted({size for sizes in by_method.values() for size in sizes}, key=float)
    }

    def entry(name: tuple[str, str], column: tuple[str, str]) -> str | None:
        row = found[column[0]].get(name, {}).get(column[1])
        if row is None:
            return None
        value = float(row["PCC@M"])
        return f"**{value:.3f}**" if value == columns[column] else f"{value:.3f}"

    names = dict.fromkeys(name for by_method in found.values() for name in by_method)
    titles = [f"{what}, {size} µm" for what, size in columns]
    return table(["PCC@M", *titles], [[" ".join(name), *(entry(name, c) for c in columns)] for name in names])


def differences_table(results: Results, data: str, against: str) -> str:
    """The dense model minus its rivals, and its head alone minus the crop models, with 95 % intervals.

    A difference whose interval excludes 0 is bold.
    """
    found = newest(results, data, against)
    sizes = sorted({size for by_size in found.values() for size in by_size}, key=float)
    rows = [
        [f"{' '.join(name)} − {' '.join(rival)}", *(_difference(results, found[name], found[rival], s) for s in sizes)]
        for name in found
        for rival in _rivals(*name)
        if rival in found
    ]
    return table(["PCC@M [95 %]", *(f"{s} µm" for s in sizes)], rows)


def _rivals(method: str, trained: str) -> Iterable[tuple[str, str]]:
    if method not in ("pixnet", "head"):
        return []
    rivals = [("crop", trained), ("stnet", trained)]
    if method == "head":
        return rivals
    size = _MEASURED_UM.get(trained, trained.removeprefix("train_"))
    return [("head", trained), *rivals, *(("interpolation", f"{how}_{size}") for how in ("nearest", "linear"))]


def _difference(results: Results, mine: BySize, other: BySize, size: str) -> str | None:
    if size not in mine or size not in other:
        return None
    a, b = mine[size], other[size]
    gap = float(a["PCC@M"]) - float(b["PCC@M"])
    sides = [[[f"{row['key']}/{row['against']}/{size}"]] for row in (a, b)]
    about = {name: f"{row['method']} {row['trained']}" for name, row in (("method", a), ("other", b))}
    bounds = results.interval(*sides, table=TABLE, of=f"{a['data']}, {a['against']}, {size} µm", **about)
    if bounds is None:
        return f"{gap:+.3f}"
    text = f"{gap:+.3f} [{bounds[0]:+.3f}, {bounds[1]:+.3f}]"
    return f"**{text}**" if bounds[0] > 0 or bounds[1] < 0 else text


#: A method's line and marker.
_LOOKS: dict[str, tuple[Any, str]] = {
    "pixnet": ("-", "o"),
    "head": ("-.", "."),
    "crop": ("--", "s"),
    "stnet": ((0, (9, 2)), "D"),
    "interpolation": (":", "^"),
}
_COLOURS = {
    "train_100": "#1b4f72",
    "train_55": "#1f8a70",
    "train_56": "#6c8f2a",
    "train_16": "#c77d0a",
    "train_8": "#a93226",
    "train_all": "#000000",
    "linear_100": "#808080",
    "nearest_100": "#b5b5b5",
}


def plot(results: Results, path: Path) -> None:
    """PCC@M on the phantom over the size tested, a line for each model, against the noise-free rate and counts."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    titles = {"truth": "against the noise-free rate", "counts": "against measured counts"}
    axes = figure.subplots(1, len(titles), sharey=False)
    for axis, (against, title) in zip(axes, titles.items(), strict=True):
        ticks: set[float] = set()
        for (method, trained), by_size in newest(results, "phantom", against).items():
            if trained not in _COLOURS:
                continue
            line = {float(size): float(row["PCC@M"]) for size, row in by_size.items()}
            sizes, (style, marker) = sorted(line), _LOOKS[method]
            ticks |= set(sizes)
            looks = {"linestyle": style, "marker": marker, "markersize": 4, "color": _COLOURS[trained]}
            label = f"{method}, {trained.replace('_', ' ')} µm"
            axis.plot(sizes, [line[s] for s in sizes], label=label, **looks)
        axis.set_xscale("log")
        axis.set_xticks(sorted(ticks), [f"{s:g}" for s in sorted(ticks)])
        axis.minorticks_off()
        axis.set_xlabel("test size, µm")
        axis.set_ylabel("PCC@M")
        axis.set_title(title, size=10)
        axis.grid(alpha=0.3)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=7)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150, format=path.suffix[1:])
