"""Time and memory of whole runs against the number of cells, stage by stage.

    python -m benchmarks.scale --cells 1000 3000 10000 30000 100000 --csv scale.csv   # killed, it continues
    python -m benchmarks.scale --cells 1000000 --methods scRCL --csv scale.csv
    python -m benchmarks.scale --cells 100000 1000000 --methods scRCL --device cuda --csv card.csv
    python -m benchmarks.scale --tables scale.csv --figure docs/scale.png             # tables, exponents, figure

Cells are simulated (`write_cells`: negative binomial types, 5,000 genes, about 7 % of the values not 0). 'scRCL' is
`python runSC.py` as a user runs it, one seed, 20 epochs, without figures. 'PCA + Leiden' is scanpy's normalisation,
2,000 HVGs, PCA, neighbours and Leiden. 'dense' is a training step of the equations as they are written, with N x N
matrices, where it fits. Every measurement runs in a process of its own, one after the other. `--tables` also prints
how many times longer each stage of a run takes than it must at least (`floors`).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.step import seconds_in_turn, wait_for
from scrcl.messages import format_table
from scrcl.prepare.plan import ARRAYS_IN_BLOCKS
from scrcl.readers.simulated import write_cells
from scrcl.recipes import CellSettings
from scrcl.runtime import find_device, peak_memory_gib

ROOT = Path(__file__).resolve().parent.parent
GENES, HIDDEN, WIDTH = 2000, CellSettings().hidden, CellSettings().refined_width
METHODS = ("scRCL", "PCA + Leiden", "dense")
STORED = 0.07  # share of the simulated values that are not 0
DENSE_UP_TO = 10_000  # cells; some 24 bytes per pair of cells
EXPONENT_FROM = 10_000
STAGES = ["read", "preprocess", "graphs", "train", "cluster"]  # the others: starting, scoring and writing


def run_scrcl(data: Path, n_cells: int, epochs: int, device: str) -> dict[str, float]:
    """A run by `runSC.py`."""
    folder = data.parent / f"scRCL_{n_cells}"  # stays, to be looked at
    flags = ["--seed", "5", "--epochs", str(epochs), "--plateau", "0", "--no-figures", "--device", device]
    command = [sys.executable, str(ROOT / "runSC.py"), "--dataset", str(data), "--output", str(folder), *flags]
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=sys.stderr)
    total = time.perf_counter() - start
    found = json.loads((folder / "metrics.json").read_text())
    peak = found["peak_memory_gib"]
    own = {"total": total, "gib": peak["cpu"], "card gib": peak.get("cuda"), "step": found["seconds"]["train"] / epochs}
    return own | found["seconds"] | {"ARI": found["scores"]["scrcl"]["ARI"]}


def run_leiden(data: Path, n_cells: int, epochs: int, device: str) -> dict[str, float]:
    """scanpy's usual clustering on the CPU, and what it loads."""
    import anndata as ad
    import scanpy as sc
    from sklearn.metrics import adjusted_rand_score

    start = time.perf_counter()
    adata = ad.read_h5ad(data)
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    sc.pp.highly_variable_genes(adata, n_top_genes=GENES)
    adata = adata[:, adata.var["highly_variable"]].copy()
    sc.pp.pca(adata, n_comps=50)
    sc.pp.neighbors(adata)
    sc.tl.leiden(adata, flavor="igraph", n_iterations=2, directed=False)
    total = time.perf_counter() - start
    ari = adjusted_rand_score(adata.obs["cell_type"], adata.obs["leiden"])
    return {"total": total, "gib": peak_memory_gib("cpu")["cpu"], "ARI": ari}


def run_dense(data: Path, n_cells: int, epochs: int, device: str) -> dict[str, float]:
    """A dense step, for which nothing is read."""
    seconds = seconds_in_turn(["dense"], find_device(device), n_cells, GENES, HIDDEN)["dense"]
    return {"step": float(np.median(seconds)), "gib": peak_memory_gib("cpu")["cpu"]}


RUNS = dict(zip(METHODS, (run_scrcl, run_leiden, run_dense)))


def best_seconds(work: Callable[[], object], device: torch.device) -> float:
    """The least of twenty times that some work takes."""
    best = np.inf
    for _ in range(20):
        wait_for(device)
        start = time.perf_counter()
        work()
        wait_for(device)
        best = min(best, time.perf_counter() - start)
    return best


def peak_gflops(device: torch.device) -> float:
    """The best rate of a matrix product of the shapes of training, float32, on this device."""
    x, w = torch.randn(4096, GENES, device=device), torch.randn(GENES, HIDDEN, device=device)
    return 2 * 4096 * GENES * HIDDEN / best_seconds(lambda: x @ w, device) / 1e9


def peak_gb_per_second(device: torch.device) -> float:
    """The best rate of a copy, bytes read and written."""
    source = torch.ones(2**26, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / best_seconds(lambda: target.copy_(source), device) / 1e9


def gflop_of_step(run: dict[str, float]) -> float:
    """Of the products of one step, forward and backward, nothing counted twice; a card makes all values dense."""
    n_cells, stored = run["cells"], STORED if np.isnan(run.get("card gib", np.nan)) else 1
    inputs = 2 * 2 * 2 * n_cells * stored * GENES * HIDDEN  # two encoders, there and back
    inner = 2 * 3 * 2 * n_cells * HIDDEN**2
    refined = 2 * 2 * n_cells * stored * GENES * WIDTH + 2 * 3 * 2 * n_cells * HIDDEN * WIDTH
    return (inputs + inner + refined) / 1e9


def floors(run: dict[str, float]) -> dict[str, float]:
    """Seconds below which no stage of a run can go on this device: its operations, or its bytes, at the best rate.

    Read: the file. Preprocess: every stored value read and written, and the products of genes. Train: as in
    `benchmarks.step`. Cluster: PCs of the embedding beside the PCs. A search for neighbours has no such floor.
    """
    n, epochs, width = run["cells"], run["epochs"], 2 * HIDDEN + CellSettings().n_pcs
    gb = {
        "read": run["file GB"],
        "preprocess": 2 * run["file GB"],
        "train": epochs * 4 * n * (4 * GENES + 2 * ARRAYS_IN_BLOCKS * HIDDEN) / 1e9,
        "cluster": 2 * 4 * n * width / 1e9,
    }
    gflop = {
        "preprocess": 2 * n * GENES**2 / 1e9,
        "train": epochs * gflop_of_step(run),
        "cluster": 2 * n * width**2 / 1e9,
    }
    return {stage: max(gb[stage] / run["peak GB/s"], gflop.get(stage, 0) / run["peak GFLOP/s"]) for stage in gb}


def measure(args: argparse.Namespace) -> None:
    """Add to the CSV what it does not hold yet."""
    done = pd.read_csv(args.csv) if args.csv.exists() else pd.DataFrame(columns=["method", "cells"])
    for n_cells in args.cells:
        data = args.data / f"sim{n_cells}.h5ad"
        if not data.exists():
            write_cells(data, n_cells)
        for method in args.methods:
            if ((done["method"] == method) & (done["cells"] == n_cells)).any():
                continue
            if method == "dense" and n_cells > DENSE_UP_TO:
                continue
            found = {
                "method": method,
                "cells": n_cells,
                "epochs": args.epochs,
                "peak GFLOP/s": peak_gflops(find_device(args.device)),
                "peak GB/s": peak_gb_per_second(find_device(args.device)),
                "file GB": data.stat().st_size / 1e9,
            }
            options = ["--single", method, "--cells", n_cells, "--epochs", args.epochs, "--data", args.data]
            options += ["--device", args.device]
            command = [sys.executable, "-m", "benchmarks.scale", *map(str, options)]
            ended = subprocess.run(command, stdout=subprocess.PIPE, text=True)
            if ended.returncode != 0:
                print(f"{method} at {n_cells} cells failed", file=sys.stderr)
                continue
            done = pd.concat([done, pd.DataFrame([found | json.loads(ended.stdout.splitlines()[-1])])])
            done.to_csv(args.csv, index=False)
            print(done.iloc[-1].dropna().to_dict(), flush=True)


def exponent(cells: pd.Series, values: pd.Series) -> float:
    """Slope of the logarithms, from 10,000 cells up."""
    used = (cells >= EXPONENT_FROM) & values.notna()
    return np.polyfit(np.log(cells[used]), np.log(values[used]), 1)[0] if used.sum() > 1 else np.nan


def tables(csv: Path, figure: Path | None) -> None:
    """Print the tables of what was measured, and draw the figure where there is a path for it."""
    found = pd.read_csv(csv).sort_values(["method", "cells"])
    found["others"] = found["total"] - found[STAGES].sum(axis=1)
    ours = found[found["method"] == "scRCL"].set_index("cells")
    stages = [*STAGES, "others", "total", "step", "gib"]
    rows = [[f"{n:,}", *(f"{ours.loc[n, stage]:.3g}" for stage in stages)] for n in ours.index]
    rows.append(["exponent", *(f"{exponent(ours.index.to_series(), ours[stage]):.2f}" for stage in stages)])
    print(format_table(["cells", *stages], rows), end="\n\n")
    measured = {n: row | {"cells": n} for n, row in ours.to_dict("index").items()}
    share = [gflop_of_step(run) / run["peak GFLOP/s"] / run["step"] for run in measured.values()]
    others = {method: found[found["method"] == method].set_index("cells").reindex(ours.index) for method in METHODS[1:]}
    rows = []
    for i, n in enumerate(ours.index):
        leiden, dense = (others[method].loc[n] for method in METHODS[1:])
        values = [
            *(ours.loc[n, "peak GFLOP/s"], share[i], dense["step"] / ours.loc[n, "step"], dense["gib"]),
            *(ours.loc[n, "total"] / leiden["total"], leiden["gib"], ours.loc[n, "ARI"], leiden["ARI"]),
        ]
        rows.append([f"{n:,}", *("" if np.isnan(value) else f"{value:.2f}" for value in values)])
    header = [*("cells", "peak GFLOP/s", "products' share of a step", "dense step / ours", "dense GiB")]
    print(format_table([*header, "ours / Leiden, total", "Leiden GiB", "ARI", "Leiden ARI"], rows), end="\n\n")
    if "peak GB/s" in ours and ours["peak GB/s"].notna().all():
        lowest = {n: floors(run) for n, run in measured.items()}
        rows = [[f"{n:,}", *(f"{ours.loc[n, s] / lowest[n][s]:.3g}" for s in lowest[n])] for n in ours.index]
        print("seconds over those of the floor\n" + format_table(["cells", *lowest[ours.index[0]]], rows))
    if figure:
        draw(found, figure)


def draw(found: pd.DataFrame, path: Path) -> None:
    """Seconds per stage and peak memory against cells, both axes logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    ours = found[found["method"] == "scRCL"]
    for stage in ("total", *STAGES, "others"):
        left.plot(ours["cells"], ours[stage], marker="o", ms=4, lw=2.5 if stage == "total" else 1.3, label=stage)
    for method, part in found.groupby("method"):
        if method == "PCA + Leiden":
            left.plot(part["cells"], part["total"], "k--", marker="s", ms=4, label="PCA + Leiden, total")
        right.plot(part["cells"], part["gib"], marker="o", ms=4, label=method if method != "dense" else "dense step")
    epochs = f"{ours['epochs'].iloc[0]:.0f}"
    left.set(xscale="log", yscale="log", xlabel="cells", ylabel="seconds", title=f"one seed, {epochs} epochs, 2 cores")
    right.set(xscale="log", yscale="log", xlabel="cells", ylabel="GiB", title="peak memory of the process")
    for axes in (left, right):
        axes.grid(alpha=0.3, which="both")
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--cells", type=int, nargs="+", default=[1000, 3000, 10_000, 30_000, 100_000])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--device", default="cpu", help="as for runSC.py")
    parser.add_argument("--csv", type=Path, default=Path("scale.csv"))
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()), help="folder of the simulated files")
    parser.add_argument("--single", choices=METHODS, help="measure one method in this process and print JSON")
    parser.add_argument("--tables", type=Path, metavar="CSV", help="only print the tables of this file")
    parser.add_argument("--figure", type=Path, help="with --tables: where to draw the figure")
    args = parser.parse_args()
    if args.tables:
        tables(args.tables, args.figure)
    elif args.single:
        n_cells = args.cells[0]
        data = args.data / f"sim{n_cells}.h5ad"
        print(json.dumps(RUNS[args.single](data, n_cells, args.epochs, args.device)))
    else:
        measure(args)


if __name__ == "__main__":
    main()
