"""Whole commands in turn, as a user waits for them: runSC.py or runST.py, and scanpy's usual way on the same file.

    python -m benchmarks.whole --datasets a.h5ad b.h5ad
    python -m benchmarks.whole --task ST --datasets 151510 --rounds 5

Both start Python, read, cluster, lay out a UMAP, draw it and write an h5ad file. 'scanpy' is normalisation to the
median, logarithm, 2,000 HVGs, 50 PCs, neighbours, Leiden at resolution 1 and UMAP. Ours has its defaults: five seeds,
and all figures. A first round of each is not counted, since numba then compiles what it keeps. A ratio is the median of
those of the rounds.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from scrcl.commands.script import guarded
from scrcl.messages import format_table
from scrcl.readers import source

ROOT = Path(__file__).resolve().parent.parent


def scanpy_usual(dataset: str, task: str, folder: Path) -> None:
    """Cluster with scanpy, and write result.h5ad and umap.png into a folder."""
    import scanpy as sc

    adata = source(dataset, task).read()
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    sc.pp.highly_variable_genes(adata, n_top_genes=min(2000, adata.n_vars))
    sc.pp.pca(adata, n_comps=min(50, adata.n_obs - 1, int(adata.var["highly_variable"].sum()) - 1))
    sc.pp.neighbors(adata)
    sc.tl.leiden(adata, flavor="igraph", n_iterations=2, directed=False)
    sc.tl.umap(adata)
    figure = sc.pl.umap(adata, color="leiden", return_fig=True)
    figure.savefig(folder / "umap.png", dpi=150)
    adata.write_h5ad(folder / "result.h5ad", compression="gzip")


def seconds(command: list[str]) -> float:
    """How long a command takes."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
    return time.perf_counter() - start


def compare(dataset: str, task: str, rounds: int) -> list[str]:
    """A row of the table: median seconds of both, and of their ratio."""
    with tempfile.TemporaryDirectory() as folder:
        out = ["--output", f"{folder}/ours", "--overwrite"]
        ours = [sys.executable, f"run{task}.py", "--dataset", dataset, *out]
        theirs = [sys.executable, "-m", "benchmarks.whole", "--datasets", dataset, "--task", task, "--scanpy", folder]
        times = np.array([[seconds(ours), seconds(theirs)] for _ in range(1 + rounds)][1:])
    middle, ratio = np.median(times, axis=0), np.median(times[:, 0] / times[:, 1])
    return [Path(dataset).stem, *(f"{value:.1f}" for value in middle), f"{ratio:.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.whole",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--datasets", nargs="+", required=True, help="files, or names as runSC.py takes them")
    parser.add_argument("--task", choices=["SC", "ST"], default="SC")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scanpy", type=Path, metavar="FOLDER", help="run scanpy's way in this process, writing here")
    args = parser.parse_args()
    if args.scanpy:
        scanpy_usual(args.datasets[0], args.task, args.scanpy)
        return
    rows = [compare(dataset, args.task, args.rounds) for dataset in args.datasets]
    print(format_table(["data set", "ours, s", "scanpy, s", "ours / scanpy"], rows))


if __name__ == "__main__":
    sys.exit(guarded(main))
