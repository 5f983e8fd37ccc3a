"""Time and peak memory of a training step: linear forms against the dense form of the same equations.

    python benchmarks/step.py                    # N = 500 ... 5000, then the published size
    python benchmarks/step.py --cells 20000 --forms linear --hidden 256 --genes 2000

Every measurement runs in a process of its own, one after the other, on simulated
cells. 'dense' is the published order of computation: N x N losses, projector before
the gene product, one message per edge. 'products' are this implementation's dense
matrix products alone, the time below which no order of computation can go.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import graphs  # noqa: E402
import train  # noqa: E402
from model import ScRCL  # noqa: E402
from utils import format_table, peak_memory_gib  # noqa: E402

CLUSTERS = 9
CPU = torch.device("cpu")


def simulated(n_cells: int, n_genes: int) -> tuple[np.ndarray, ...]:
    """Standardised values [N, G] of 9 types, their cell graph and gene graph."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CLUSTERS, 50))
    points = centres[rng.integers(CLUSTERS, size=n_cells)] + rng.normal(size=(n_cells, 50))
    values = (points @ rng.normal(size=(50, n_genes)) / 7 + rng.normal(size=(n_cells, n_genes))).astype(np.float32)
    return values, graphs.cell_graph(points, 15, "euclidean", seed=0), graphs.gene_graph(values, 5)


def linear_step(values, cells, genes, hidden):
    inputs = train.graph_inputs(values, cells, genes, (0, 0), CPU)
    model = ScRCL(*values.shape, hidden, CLUSTERS, 0.1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
    return lambda: train.step(model, inputs, optimizer, 1.0, 100.0, 1.0)


def dense_step(values, cells, genes, hidden):
    from dense_reference import PublishedOrder, dense_losses

    x, adjacency = torch.as_tensor(values), torch.as_tensor(cells.toarray())
    edges, gene_edges = (torch.as_tensor(np.array(graph.nonzero())) for graph in (cells, genes))
    model = PublishedOrder(*values.shape, hidden, CLUSTERS, 0.1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)

    def step():
        optimizer.zero_grad()
        terms = dense_losses(*model(x, x, edges, gene_edges), adjacency, 1.0)
        (terms["hea_global"] + terms["hea_cell"] + 100 * terms["ndc"] + terms["cvc"]).backward()
        optimizer.step()

    return step


def products_step(values, cells, genes, hidden):
    """The dense products of one linear step, forward and backward: input layers, inner layers, refinement, gene encoder."""
    (n, g), k = values.shape, CLUSTERS
    shapes = 2 * [(n, g, hidden), (g, n, hidden)] + 6 * [(n, hidden, hidden)]
    shapes += 3 * [(g, n, k)] + 3 * [(hidden, g, k)] + 6 * [(n, hidden, k)]
    pairs = [(torch.randn(a, b), torch.randn(b, c)) for a, b, c in set(shapes)]
    repeats = [shapes.count((a.shape[0], a.shape[1], b.shape[1])) for a, b in pairs]
    return lambda: [a @ b for (a, b), times in zip(pairs, repeats) for _ in range(times)]


FORMS = {"linear": linear_step, "dense": dense_step, "products": products_step}


def measure(form: str, n_cells: int, n_genes: int, hidden: int) -> dict[str, float]:
    """Median seconds of a step after a warm-up, and the peak memory of the process in GiB."""
    torch.manual_seed(0)
    step = FORMS[form](*simulated(n_cells, n_genes), hidden)
    step()
    seconds = []
    while len(seconds) < 3 or (sum(seconds) < 3 and len(seconds) < 20):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return {"seconds": float(np.median(seconds)), "gib": peak_memory_gib(CPU)["cpu"]}


def in_new_process(form: str, n_cells: int, n_genes: int, hidden: int) -> dict[str, float]:
    argv = [
        sys.executable,
        __file__,
        "--single",
        form,
        "--cells",
        str(n_cells),
        "--genes",
        str(n_genes),
        "--hidden",
        str(hidden),
    ]
    done = subprocess.run(argv, capture_output=True, text=True)
    return json.loads(done.stdout) if done.returncode == 0 else {"seconds": np.nan, "gib": np.nan}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--cells", type=int, nargs="+", default=[500, 1000, 2000, 3000, 5000])
    parser.add_argument("--genes", type=int, default=1500)
    parser.add_argument("--hidden", type=int, nargs="+", default=[256, 1500])
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--single", choices=FORMS, help="measure one form in this process and print JSON")
    args = parser.parse_args()
    if args.single:
        print(json.dumps(measure(args.single, args.cells[0], args.genes, args.hidden[0])))
        return
    rows = []
    for hidden in args.hidden:
        for n_cells in args.cells:
            found = {form: in_new_process(form, n_cells, args.genes, hidden) for form in args.forms}
            row = [f"{n_cells} x {args.genes}, H {hidden}"]
            for form in args.forms:
                row += [f"{found[form]['seconds']:.3f}", f"{found[form]['gib']:.2f}"]
            for other in ("dense", "products"):
                ratio = (
                    found[other]["seconds"] / found["linear"]["seconds"] if {other, "linear"} <= set(found) else np.nan
                )
                row.append(f"{ratio if other == 'dense' else 1 / ratio:.2f}")
            rows.append(row)
            print(*row, flush=True)
    header = [
        "cells x genes",
        *(f"{form} {unit}" for form in args.forms for unit in ("s", "GiB")),
        "dense/linear",
        "linear/products",
    ]
    print(
        f"\n{torch.get_num_threads()} threads, torch {torch.__version__}; seconds per step, peak memory of the process\n"
    )
    print(format_table(header, rows))


if __name__ == "__main__":
    main()
