"""Tables of single transcripts (MERSCOPE, CosMx, Stereo-seq, or any with x, y and gene), counted in square bins."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp

from ..data.units import bin_prefix
from ..errors import InputError
from .alignment import apply, px_per_unit, read_matrix_3x3, size_of_picture
from .sample import Options, Place, Sample, UnitTable
from .tables import columns_of, pick, read_batches
from .tenx import clean_id

__all__ = ["PRESETS", "TITLE", "Preset", "bin_tables", "find", "is_control", "read"]

TITLE = "tables of transcripts (MERSCOPE, CosMx, Stereo-seq, or any with x, y and gene)"
USUAL_SIZE_UM = 8.0
#: Bins without any transcript are real zeros where transcripts lie this near.
_MEASURED_UM = 50.0
_TOLERANCE = 0.05
_MOST_BINS = 2**31 - 1
_CONTROL = re.compile(
    r"neg(ative)?[_\- ]?(control|prb|probe|ctrl)?([_\- ].*|probe.*|\d*$|codeword.*)|negcontrol.*|blank.*|unassigned.*"
    r"|deprecated.*|antisense.*|intergenic.*|system[_\- ]?control.*|false[_\- ]?code.*|.*codeword.*|bg[_\- ]probe.*"
    r"|noncoding_control.*|custom_neg.*",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Preset:
    """How a vendor's table of transcripts looks.

    Attributes:
        files: regular expression of its name.
        x, y, gene: names of its columns.
        unit_um: micrometres of one step of x and y.
        count: column of how many transcripts a row stands for, if not one.
        qv: column of a transcript's quality.
        is_gene: column that tells genes from controls.
    """

    files: str
    x: tuple[str, ...]
    y: tuple[str, ...]
    gene: tuple[str, ...]
    unit_um: float
    count: tuple[str, ...] = ()
    qv: tuple[str, ...] = ()
    is_gene: tuple[str, ...] = ()


PRESETS = {
    "xenium": Preset(
        r"transcripts\.(parquet|csv)(\.gz)?",
        ("x_location",),
        ("y_location",),
        ("feature_name",),
        1.0,
        qv=("qv",),
        is_gene=("is_gene",),
    ),
    "merscope": Preset(
        r"(.*_)?(detected|vizgen)_?transcripts.*\.(csv|parquet|gz)(\.gz)?", ("global_x",), ("global_y",), ("gene",), 1.0
    ),
    # Bruker's CosMx: global positions hold the fields' offsets; local ones (x_local_px) begin anew in each field.
    "cosmx": Preset(r".*tx_file\.(csv|parquet)(\.gz)?", ("x_global_px",), ("y_global_px",), ("target",), 0.12028),
    # BGI's Stereo-seq: one step is a nanoball, 500 nm from the next.
    "stereo-seq": Preset(
        r".*\.gem(\.gz)?",
        ("x",),
        ("y",),
        ("geneID", "geneName", "gene"),
        0.5,
        count=("MIDCount", "MIDCounts", "UMICount", "UMICounts"),
    ),
}


def find(src: Path, options: Options) -> list[Place]:
    """The given table, or tables in a folder under the names that vendors give them."""
    if options.transcripts is not None:
        return [Place(_stem(options.transcripts), src, (options.transcripts,), options.preset)]
    if src.is_file() and re.search(r"\.(csv|tsv|txt|parquet|gem|gz)$", src.name, re.IGNORECASE):
        return [Place(_stem(src), src, (src,), options.preset or _preset_of(src))]
    if not src.is_dir():
        return []
    found = []
    for path in sorted(p for p in src.iterdir() if p.is_file()):
        preset = _preset_of(path)
        if preset is not None and preset != "xenium":
            found.append(Place(_stem(path), path, (path,), options.preset or preset))
    return [Place(src.resolve().name, found[0].path, found[0].files, found[0].hint)] if len(found) == 1 else found


def _stem(path: Path) -> str:
    return path.name.split(".")[0]


def _preset_of(path: Path) -> str | None:
    return next((name for name, preset in PRESETS.items() if re.fullmatch(preset.files, path.name, re.I)), None)


def read(place: Place, options: Options) -> Sample:
    """Count one table's transcripts in bins of the sizes wanted, on a grid that begins at the picture's corner."""
    (path,) = place.files
    name = options.preset or place.hint
    if name is not None and name not in PRESETS:
        raise InputError(f'There is no preset "{name}"; choose one of {", ".join(PRESETS)}.')
    preset = PRESETS.get(name) if name else None
    found = [f"{path.name} is read as {name} writes it."] if name else []
    image = options.image
    if image is None:
        raise InputError(f"{place.name}: a table of transcripts has no H&E with it. Name it with --image.")
    to_px, mpp, mpp_from = _to_pixels(place, preset, options, found)
    tables = bin_tables(path, preset, options, to_px, mpp, size_of_picture(image), found)
    return Sample(place.name, image, mpp, mpp_from, tables, found=found)


def _to_pixels(
    place: Place, preset: Preset | None, options: Options, found: list[str]
) -> tuple[Callable[[np.ndarray], np.ndarray], float, str]:
    """What takes x and y to pixels of the picture, the picture's mpp and where that comes from."""
    unit_um = options.unit_um if options.unit_um is not None else preset.unit_um if preset else None
    if options.transform is not None:
        matrix = read_matrix_3x3(options.transform)
        matrix = np.linalg.inv(matrix) if options.transform_inverted else matrix
        scale = px_per_unit(matrix, np.zeros((1, 2)))
        if unit_um:
            mpp, mpp_from = (
                unit_um / scale,
                f"{options.transform.name} makes {scale:.4g} px of a step of {unit_um:g} µm",
            )
            if options.mpp is not None and abs(options.mpp / mpp - 1) > _TOLERANCE:
                raise InputError(
                    f"{place.name}: --mpp says {options.mpp:g} µm per pixel, but {mpp_from}, which makes {mpp:.4g}. Is "
                    "the matrix the way back (--transform-inverted), or are x and y no micrometres (--unit-um)?"
                )
        elif options.mpp is not None:
            mpp, mpp_from = options.mpp, "as given"
        else:
            raise InputError(f"{place.name}: give --mpp, or how many µm a step of x and y means (--unit-um).")
        return lambda points: apply(matrix, points), mpp, mpp_from
    if unit_um is None:
        raise InputError(
            f"{place.name}: say what x and y are: --unit-um 1 for micrometres, --unit-um 0 for pixels of the picture, "
            "or --transform FILE with a 3 x 3 matrix to pixels of the picture."
        )
    if options.mpp is None:
        raise InputError(f"{place.name}: give the picture's micrometres per pixel (--mpp).")
    step = unit_um / options.mpp if unit_um else 1.0
    origin = np.array(options.origin or (0.0, 0.0))
    if options.origin is None and unit_um:
        found.append("The table's (0, 0) is taken for the picture's upper left corner; --origin X,Y says otherwise.")
    return lambda points: (points - origin) * step, options.mpp, "as given"


def is_control(genes: Sequence[str]) -> np.ndarray:
    """Which names are those of controls: negative probes, blanks, unassigned codewords, (G,) bool."""
    return np.array([_CONTROL.fullmatch(str(gene)) is not None for gene in genes], dtype=bool)


@dataclass
class _Bins:
    """Counts of one size, as numbers of bin and gene, merged from time to time.

    Attributes:
        size_px: side of a bin.
        columns: bins in a row.
        rows: bins in a column.
    """

    size_px: float
    columns: int
    rows: int
    keys: list[np.ndarray] = field(default_factory=list)
    values: list[np.ndarray] = field(default_factory=list)
    waiting: int = 0

    def add(self, at_px: np.ndarray, gene: np.ndarray, count: np.ndarray) -> None:
        """Count transcripts that lie on the picture."""
        column, row = np.floor(at_px / self.size_px).astype(np.int64).T
        kept = (column < self.columns) & (row < self.rows)
        column, row, gene, count = column[kept], row[kept], gene[kept], count[kept]
        key = ((row * self.columns + column) << 20) | gene
        self._put(*_summed(key, count))
        if self.waiting > 2**24:
            self.merge()

    def _put(self, keys: np.ndarray, values: np.ndarray) -> None:
        self.keys.append(keys)
        self.values.append(values)
        self.waiting += len(keys)

    def merge(self) -> tuple[np.ndarray, np.ndarray]:
        """All that was counted, by number of bin and gene."""
        if len(self.keys) > 1:
            keys, values = _summed(np.concatenate(self.keys), np.concatenate(self.values))
            self.keys, self.values, self.waiting = [keys], [values], 0
        if not self.keys:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        return self.keys[0], self.values[0]


def _summed(keys: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(keys, kind="stable")
    keys, values = keys[order], values[order]
    first = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])) if len(keys) else np.zeros(0, np.int64)
    return keys[first], np.add.reduceat(values, first) if len(first) else values


def bin_tables(
    path: Path,
    preset: Preset | None,
    options: Options,
    to_px: Callable[[np.ndarray], np.ndarray],
    mpp: float,
    size_px: tuple[int, int] | None,
    found: list[str],
) -> list[UnitTable]:
    """Count a table's transcripts in square bins, a million rows at a time.

    A bin without transcripts is kept, as a zero, where others lie within 50 µm.

    Args:
        path: the table.
        preset: names of its columns.
        options: `columns`, `sizes_um`, `min_qv`.
        to_px: takes x and y, (N, 2), to pixels of the picture.
        mpp: micrometres per pixel of the picture.
        size_px: width and height of the picture.
        found: gets what is to be said.

    Raises:
        InputError: if a column is missing, or most transcripts lie outside the picture.
    """
    if size_px is None:
        raise InputError(f"{options.image}: its size is not known without a slide reader. Save it as TIFF.")
    bins = []
    for size_um in options.sizes_um or (USUAL_SIZE_UM,):
        side = size_um / mpp
        columns, rows = (max(1, int(n / side + 0.5)) for n in size_px)  # those whose centre lies on the picture
        if columns * rows > _MOST_BINS:
            raise InputError(f"Bins of {size_um:g} µm are too small for a picture of {size_px[0]} x {size_px[1]} px.")
        bins.append((size_um, _Bins(side, columns, rows)))
    names: dict[str, int] = {}
    said = {"rows": 0, "poor": 0, "control": 0, "outside": 0, "unplaced": 0}
    for points, gene, count in _transcripts(path, preset, options, names, said):
        at_px = to_px(points)
        inside = ((at_px >= 0) & (at_px < size_px)).all(1)
        said["outside"] += int((~inside).sum())
        for _, some in bins:
            some.add(at_px[inside], gene[inside], count[inside])
    used = said["rows"] - said["poor"] - said["control"] - said["unplaced"]
    if used == 0:
        raise InputError(f"{path} holds no transcript of a gene of quality {options.min_qv:g} or more.")
    if said["outside"] > 0.5 * used:
        raise InputError(
            f"{path}: {said['outside'] / used:.0%} of its transcripts lie outside the picture ({size_px[0]} x "
            f"{size_px[1]} px). Are x and y micrometres or pixels (--unit-um), do they begin elsewhere (--origin), "
            "or is the matrix the way back (--transform-inverted)?"
        )
    for key, words in (
        ("poor", f"of a quality below {options.min_qv:g}"),
        ("control", "of controls"),
        ("unplaced", "without a place"),
        ("outside", "outside the picture"),
    ):
        if said[key]:
            found.append(f"{said[key]:,} of {said['rows']:,} transcripts {words} were left out.")
    genes = [clean_id(name) for name in names]
    return [_table(size_um, some, genes, mpp) for size_um, some in bins]


def _transcripts(
    path: Path, preset: Preset | None, options: Options, names: dict[str, int], said: dict[str, int]
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Places, numbers of genes and counts of transcripts, batch by batch; new genes get the next number."""
    columns = columns_of(path)
    named = dict(options.columns)
    x = pick(path, columns, named.get("x"), preset.x if preset else ("x", "global_x", "x_location", "X"), "x")
    y = pick(path, columns, named.get("y"), preset.y if preset else ("y", "global_y", "y_location", "Y"), "y")
    usual = ("gene", "feature_name", "target", "geneID", "Gene", "gene_name")
    gene = pick(path, columns, named.get("gene"), preset.gene if preset else usual, "genes")
    optional = {}
    for key in ("count", "qv", "is_gene"):
        known = getattr(preset, key) if preset else ()
        if named.get(key) or any(name in columns for name in known):
            optional[key] = pick(path, columns, named.get(key), known, key)
    controls: dict[str, bool] = {}
    for table in read_batches(path, [x, y, gene, *optional.values()]):
        said["rows"] += len(table)
        kept = np.ones(len(table), bool)
        if "qv" in optional:
            good = pd.to_numeric(table[optional["qv"]], errors="coerce").to_numpy(float) >= options.min_qv
            said["poor"] += int((~good).sum())
            kept &= good
        codes, seen = pd.factorize(table[gene].map(_decoded))
        for name in seen:
            if name not in controls:
                controls[name] = bool(is_control([name])[0])
        control = np.array([controls[name] for name in seen] + [True])[codes]
        if "is_gene" in optional:
            control |= ~table[optional["is_gene"]].astype(bool).to_numpy()
        said["control"] += int((control & kept).sum())
        kept &= ~control
        points = table[[x, y]].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
        placed = np.isfinite(points).all(1)
        said["unplaced"] += int((~placed & kept).sum())
        kept &= placed
        number = np.full(len(seen) + 1, -1, np.int64)
        for code in np.unique(codes[kept]):
            number[code] = names.setdefault(seen[code], len(names))
        count = np.ones(len(table), np.int64)
        if "count" in optional:
            count = pd.to_numeric(table[optional["count"]], errors="coerce").fillna(0).to_numpy(np.int64)
        yield points[kept], number[codes[kept]], count[kept]


def _decoded(name: object) -> object:
    return name.decode() if isinstance(name, bytes) else name


def _table(size_um: float, bins: _Bins, genes: list[str], mpp: float) -> UnitTable:
    keys, values = bins.merge()
    place, gene = keys >> 20, keys & (2**20 - 1)
    near = max(1, round(_MEASURED_UM / size_um))
    row, column = place // bins.columns, place % bins.columns
    coarse = np.zeros((bins.rows // near + 1, bins.columns // near + 1), bool)
    coarse[row // near, column // near] = True
    kept = []
    for r in range(bins.rows):
        kept.append(r * bins.columns + np.flatnonzero(np.repeat(coarse[r // near], near)[: bins.columns]))
    measured = np.concatenate(kept)
    counts = sp.csr_matrix(
        (values.astype(np.float32), (np.searchsorted(measured, place), gene)), shape=(len(measured), len(genes))
    )
    at = np.column_stack([measured % bins.columns, measured // bins.columns])
    prefix = bin_prefix(size_um)
    return UnitTable.of_matrix(
        counts,
        name=f"square_{size_um:03g}um",
        shape="square",
        size_um=float(size_um),
        barcodes=np.array([f"{prefix}{r:05d}_{c:05d}" for c, r in at], dtype=object),
        genes=genes,
        centers_px=(at + 0.5) * bins.size_px,
        array_xy=at,
    )
