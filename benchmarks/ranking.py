"""Time and memory of ranking marker genes on simulated sparse counts.

    python -m benchmarks.ranking                       # 10,000 cells x 20,000 genes, 20 clusters, every method
    python -m benchmarks.ranking --cells 50000 --methods wilcoxon

Every method runs in a process of its own, so that its peak is its own; "data" is the peak before ranking starts.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from scipy import sparse

from scrcl.messages import format_table
from scrcl.runtime import peak_memory_gib

CLUSTERS = "cluster"  # obs
DENSITY = 0.1  # share of counts above 0


def simulate(n_cells: int, n_genes: int, n_clusters: int) -> ad.AnnData:
    """Log-normalised Poisson counts, each cluster with 50 genes of its own."""
    rng = np.random.default_rng(0)
    counts = sparse.random(n_cells, n_genes, DENSITY, format="csr", dtype=np.float32, rng=rng)
    counts.data = rng.poisson(1.0, counts.nnz).astype(np.float32) + 1
    clusters = np.arange(n_cells) % n_clusters
    own = sparse.csr_matrix((np.arange(n_genes) // 50 == clusters[:, None]).astype(np.float32))
    cells = ad.AnnData(
        sparse.csr_matrix(counts + 2 * own), var=pd.DataFrame(index=[f"gene-{i}" for i in range(n_genes)])
    )
    cells.obs[CLUSTERS] = pd.Categorical(clusters.astype(str))
    sc.pp.normalize_total(cells, target_sum=1e4)
    sc.pp.log1p(cells)
    return cells


def measure(given: tuple[str, int, int, int]) -> list[str]:
    """One row of the table."""
    from scrcl.genes.ranking import rank

    method, *shape = given
    cells = simulate(*shape)
    before = peak_memory_gib("cpu")["cpu"]
    start = time.perf_counter()
    rank(cells, CLUSTERS, method=method)
    seconds = time.perf_counter() - start
    return [method, f"{before:.2f}", f"{peak_memory_gib('cpu')['cpu']:.2f}", f"{seconds:.0f}"]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ranking",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--genes", type=int, default=20_000)
    parser.add_argument("--clusters", type=int, default=20)
    parser.add_argument("--methods", nargs="+", default=["wilcoxon", "t-test", "logreg"])
    given = parser.parse_args()
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        shapes = [(method, given.cells, given.genes, given.clusters) for method in given.methods]
        rows = pool.map(measure, shapes, chunksize=1)
    print(format_table(["method", "data, GiB", "peak, GiB", "seconds"], rows))


if __name__ == "__main__":
    main()
