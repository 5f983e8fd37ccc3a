"""Time and peak memory of a training step: linear forms against the dense form of the same equations.

    python benchmarks/step.py                    # N = 500 ... 5000, H = 256 and the published 1500
    python benchmarks/step.py --cells 20000 --forms linear --hidden 256 --genes 2000

Every measurement runs in a process of its own, one after the other, on simulated
cells. 'dense' is the published order of computation: N x N losses, projector before
the gene product, one message per edge; 'published' adds what the published procedure does after every step: all cells embedded, k-means with one start, scores. 'products' are this implementation's dense
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
import pandas as pd
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
    optimizer = train.adam(model, 1e-4, 0.0)
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


def published_epoch(values, cells, genes, hidden):
    """What an epoch of the published procedure does: a dense step, an evaluation of all cells, k-means and scores."""
    from dense_reference import PublishedOrder
    from sklearn.cluster import KMeans

    import score

    step = dense_step(values, cells, genes, hidden)
    model = PublishedOrder(*values.shape, hidden, CLUSTERS, 0.1).eval()
    x = torch.as_tensor(values)
    edges, gene_edges = (torch.as_tensor(np.array(graph.nonzero())) for graph in (cells, genes))
    known = pd.Series(np.arange(len(values)) % CLUSTERS).astype(str)

    def epoch():
        step()
        refined = torch.cat(model(x, x, edges, gene_edges)[2:], dim=1).detach().numpy()
        found = KMeans(CLUSTERS, n_init=1, random_state=0).fit_predict(refined)
        score.score(pd.Series(found).astype(str), known)

    return epoch


def products_step(values, cells, genes, hidden):
    """The dense products of one linear step, forward and backward: input layers, inner layers, refinement, gene encoder."""
    (n, g), k = values.shape, CLUSTERS
    shapes = 2 * [(n, g, hidden), (g, n, hidden)] + 6 * [(n, hidden, hidden)]
    shapes += 3 * [(g, n, k)] + 3 * [(hidden, g, k)] + 6 * [(n, hidden, k)]
    pairs = [(torch.randn(a, b), torch.randn(b, c)) for a, b, c in set(shapes)]
    repeats = [shapes.count((a.shape[0], a.shape[1], b.shape[1])) for a, b in pairs]
    return lambda: [a @ b for (a, b), times in zip(pairs, repeats) for _ in range(times)]


FORMS = {"linear": linear_step, "dense": dense_step, "published": published_epoch, "products": products_step}


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
    options = f"--single {form} --cells {n_cells} --genes {n_genes} --hidden {hidden}"
    done = subprocess.run([sys.executable, __file__, *options.split()], capture_output=True, text=True)
    if done.returncode != 0:
        print(f"{form} at {n_cells} cells failed: {(done.stderr.splitlines() or ['killed'])[-1]}", file=sys.stderr)
        return {"seconds": np.nan, "gib": np.nan}
    return json.loads(done.stdout)


def compare(n_cells: int, n_genes: int, hidden: int, forms: list[str]) -> dict[str, str]:
    """One line of the table: every form, and how the linear one stands to the others."""
    found = {form: in_new_process(form, n_cells, n_genes, hidden) for form in forms}
    line = {"cells x genes": f"{n_cells} x {n_genes}, H {hidden}"}
    for form, measured in found.items():
        line |= {f"{form} s": f"{measured['seconds']:.3f}", f"{form} GiB": f"{measured['gib']:.2f}"}
    if {"dense", "linear"} <= set(found):
        line["dense/linear"] = f"{found['dense']['seconds'] / found['linear']['seconds']:.2f}"
    if {"published", "linear"} <= set(found):
        line["published/linear"] = f"{found['published']['seconds'] / found['linear']['seconds']:.2f}"
    if {"products", "linear"} <= set(found):
        line["linear/products"] = f"{found['linear']['seconds'] / found['products']['seconds']:.2f}"
    return line


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
    lines = []
    for hidden in args.hidden:
        for n_cells in args.cells:
            lines.append(compare(n_cells, args.genes, hidden, args.forms))
            print(*lines[-1].values(), flush=True)
    print(f"\n{torch.get_num_threads()} threads, torch {torch.__version__}")
    print("seconds per step (median), peak memory of the process\n")
    print(format_table(list(lines[0]), [list(line.values()) for line in lines]))


if __name__ == "__main__":
    main()
