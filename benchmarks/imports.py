"""Import of a Visium HD output of ten million bins of 2 µm and 18,000 genes: peak memory, and time over a plain read.

`python -m benchmarks.imports`: generates Space Ranger's files, imports them in a process of their own, and reads the
same matrix with h5py alone. `ratio` is how many times longer the import takes.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from .workload import arguments, finish, measured, phantom_slide, row, workspace

__all__ = ["main", "write_visium_hd"]

BIN_UM, MPP = 2.0, 0.5
_BLOCK = 250_000  # bins that are generated at once


def write_visium_hd(folder: Path, slide: Path, bins: int, genes: int, per_bin: int, seed: int = 0) -> Path:
    """Write `bins` bins of 2 µm, `per_bin` genes seen in each, as Space Ranger 3 does; the slide is linked.

    Args:
        folder: `outs`.
        slide: the picture, at 0.5 µm per pixel.
        bins: how many; they lie in a square.
        genes: how many are listed.
        per_bin: how many are seen in a bin.
        seed: of the counts.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    part = folder / "binned_outputs" / "square_002um"
    if (part / "done").is_file():
        return folder
    (part / "spatial").mkdir(parents=True, exist_ok=True)
    side = int(np.ceil(np.sqrt(bins)))
    rng = np.random.default_rng(seed)
    schema = pa.schema(
        [
            ("barcode", pa.string()),
            ("in_tissue", pa.int32()),
            ("array_row", pa.int32()),
            ("array_col", pa.int32()),
            ("pxl_row_in_fullres", pa.float64()),
            ("pxl_col_in_fullres", pa.float64()),
        ]
    )
    compressed = {"compression": "gzip", "compression_opts": 4, "shuffle": True}  # as Cell Ranger's files are
    with (
        pq.ParquetWriter(part / "spatial" / "tissue_positions.parquet", schema) as positions,
        h5py.File(part / "filtered_feature_bc_matrix.h5", "w") as file,
    ):
        group = file.create_group("matrix")
        names = np.array([f"GENE{i}" for i in range(genes)], "S")
        group["features/id"] = np.array([f"ENSG{i:011d}" for i in range(genes)], "S")
        group["features/name"] = names
        group["features/feature_type"] = np.full(genes, "Gene Expression", "S15")
        group["shape"] = np.array([genes, bins], np.int32)
        group["indptr"] = np.arange(bins + 1, dtype=np.int64) * per_bin
        data = group.create_dataset("data", (bins * per_bin,), np.int32, chunks=(2**18,), **compressed)
        indices = group.create_dataset("indices", (bins * per_bin,), np.int64, chunks=(2**18,), **compressed)
        barcodes = group.create_dataset("barcodes", (bins,), "S21", chunks=(2**16,), **compressed)
        for start in range(0, bins, _BLOCK):
            number = np.arange(start, min(start + _BLOCK, bins))
            r, c = np.divmod(number, side)
            text = [f"s_002um_{a:05d}_{b:05d}-1" for a, b in zip(r.tolist(), c.tolist(), strict=True)]
            barcodes[start : start + len(number)] = np.array(text, "S21")
            at = [(v + 0.5) * BIN_UM / MPP for v in (r, c)]
            columns = [pa.array(text), np.ones(len(number), np.int32), r.astype(np.int32), c.astype(np.int32), *at]
            positions.write_table(pa.table([pa.array(v) for v in columns], schema=schema))
            values = slice(start * per_bin, (start + len(number)) * per_bin)
            step = genes // per_bin
            gene = np.arange(per_bin) * step + rng.integers(0, step, (len(number), per_bin))
            indices[values] = gene.ravel()
            data[values] = rng.geometric(0.7, len(number) * per_bin)
    factors = {"bin_size_um": BIN_UM, "microns_per_pixel": MPP, "spot_diameter_fullres": BIN_UM / MPP}
    (part / "spatial" / "scalefactors_json.json").write_text(json.dumps(factors))
    (folder / slide.name).unlink(missing_ok=True)
    (folder / slide.name).symlink_to(slide.resolve())
    (part / "done").touch()
    return folder


def plain_read(path: Path) -> float:
    """Seconds to read data and indices of a matrix with h5py, block by block."""
    start = time.perf_counter()
    with h5py.File(path) as file:
        for name in ("data", "indices"):
            dataset = file["matrix"][name]
            for at in range(0, len(dataset), 4_000_000):
                dataset[at : at + 4_000_000]
        file["matrix/barcodes"][:]
    return time.perf_counter() - start


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Run it."""
    parser = arguments(__doc__)
    parser.add_argument("--bins", type=float, default=1e7)
    parser.add_argument("--genes", type=int, default=18_000)
    parser.add_argument("--per-bin", type=int, default=16, help="genes seen in each bin")
    args = parser.parse_args(argv)
    bins = int(2e5 if args.quick else args.bins)
    with workspace(args.work) as work:
        side_px = int(np.ceil(np.sqrt(bins)) * BIN_UM / MPP) + 8
        slide = phantom_slide(work, max(side_px, 1000))
        outs = write_visium_hd(work / f"hd_{bins}_{args.per_bin}" / "outs", slide, bins, args.genes, args.per_bin)
        matrix = outs / "binned_outputs" / "square_002um" / "filtered_feature_bc_matrix.h5"
        plain = plain_read(matrix)
        code = "import sys; from bundle.readers import prepare; prepare(sys.argv[1], sys.argv[2], sizes_um=[2])"
        out = work / f"imported_{bins}"
        shutil.rmtree(out, ignore_errors=True)
        timed = measured([sys.executable, "-c", code, str(outs), str(out)], OMP_NUM_THREADS=str(args.threads))
        megabytes = bins * args.per_bin * 12 / 1e6
        row("bins", "plain read s", "import s", "peak GB")
        row(bins, plain, timed.seconds, timed.rss_mb / 1000)
    result = {
        "bins": float(bins),
        "peak_gb": timed.rss_mb / 1000,
        "seconds": timed.seconds,
        "mb_per_s": megabytes / timed.seconds,
        "mb_per_s_over_plain_read": timed.seconds / plain,
    }
    finish(result)
    return result


if __name__ == "__main__":
    main()
