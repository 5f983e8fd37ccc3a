"""Time and peak memory of a training step: linear forms beside the dense form of the same equations.

    python -m benchmarks.step                    # N = 500 ... 5000, H = 256 and the published 1500
    python -m benchmarks.step --cells 20000 --forms linear --hidden 256 --genes 2000
    python -m benchmarks.step --device cuda --cells 3000 100000 --forms linear products --hidden 256 --genes 2000

On simulated cells. The forms take turns in one process, since a shared machine is faster at one time than at another; a
ratio is the median of those of the rounds. Peak memory is measured with each form in a process of its own.

'dense' is the published order of computation: N x N losses, projector before the gene product, one message per edge.
'published' adds what the published procedure does after every step: all cells embedded, k-means with one start, scores.
'products' are this implementation's dense matrix products alone, and 'copies' moves as many bytes as a step must: two
times below which no order of computation can go.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from sklearn.cluster import KMeans

from scrcl.cluster.scores import score
from scrcl.messages import format_table
from scrcl.method import training
from scrcl.method.inputs import graph_inputs
from scrcl.method.kernels import compiled
from scrcl.method.losses import Objective
from scrcl.method.network import Architecture
from scrcl.method.training import Schedule
from scrcl.method.updates import Updates
from scrcl.prepare import graphs
from scrcl.prepare.plan import ARRAYS_IN_BLOCKS
from scrcl.runtime import find_device, keep_freed_memory, peak_memory_gib, tf32_products
from tests.dense_reference import PublishedOrder, dense_losses

CLUSTERS = 9
Graph = sparse.csr_matrix
Step = Callable[[], object]


def simulated(n_cells: int, n_genes: int) -> tuple[np.ndarray, Graph, Graph]:
    """Standardised values [N, G] of 9 types, their cell graph and gene graph."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CLUSTERS, 50))
    points = centres[rng.integers(CLUSTERS, size=n_cells)] + rng.normal(size=(n_cells, 50))
    values = (points @ rng.normal(size=(50, n_genes)) / 7 + rng.normal(size=(n_cells, n_genes))).astype(np.float32)
    return values, graphs.cell_graph(points, 15, "euclidean", seed=0), graphs.gene_graph(values, 5)


def linear_step(values: np.ndarray, cells: Graph, genes: Graph, hidden: int) -> Step:
    """A training step of this implementation."""
    inputs = graph_inputs(values, cells, genes, (0, 0), torch.get_default_device())
    model = training.new_model(inputs, Architecture(hidden, CLUSTERS, 0.1))
    optimizer = training.adam(model, Schedule(1, 1e-4, 0.0))
    updates = Updates(model, inputs, optimizer, Objective(1.0, 100.0, 1.0))
    return lambda: updates().tolist()


def dense_step(values: np.ndarray, cells: Graph, genes: Graph, hidden: int) -> Step:
    """The same step in the published order of computation."""
    x, adjacency = torch.as_tensor(values), torch.as_tensor(cells.toarray())
    edges, gene_edges = edges_of(cells), edges_of(genes)
    model = PublishedOrder(*values.shape, hidden, CLUSTERS, 0.1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        terms = dense_losses(*model(x, x, edges, gene_edges), adjacency, 1.0)
        (terms["hea_global"] + terms["hea_cell"] + 100 * terms["ndc"] + terms["cvc"]).backward()
        optimizer.step()

    return step


def published_epoch(values: np.ndarray, cells: Graph, genes: Graph, hidden: int) -> Step:
    """An epoch of the published procedure: a dense step, an evaluation of all cells, k-means and scores."""
    step = dense_step(values, cells, genes, hidden)
    model = PublishedOrder(*values.shape, hidden, CLUSTERS, 0.1).eval()
    x, edges, gene_edges = torch.as_tensor(values), edges_of(cells), edges_of(genes)
    known = pd.Series(np.arange(len(values)) % CLUSTERS).astype(str)

    def epoch() -> None:
        step()
        refined = torch.cat(model(x, x, edges, gene_edges)[2:], dim=1).detach().cpu().numpy()
        found = KMeans(CLUSTERS, n_init=1, random_state=0).fit_predict(refined)
        score(pd.Series(found).astype(str), known)

    return epoch


def edges_of(graph: Graph) -> torch.Tensor:
    """[2, edges], the ends of each."""
    return torch.as_tensor(np.array(graph.nonzero()))


def products_step(values: np.ndarray, cells: Graph, genes: Graph, hidden: int) -> Step:
    """The dense products of one linear step, forward and backward.

    They are those of the input layers, the inner layers, the refinement and the gene encoder.
    """
    (n, g), k = values.shape, CLUSTERS
    shapes = 2 * [(n, g, hidden), (g, n, hidden)] + 6 * [(n, hidden, hidden)]
    shapes += 3 * [(g, n, k)] + 3 * [(hidden, g, k)] + 6 * [(n, hidden, k)]
    pairs = [(torch.randn(a, b), torch.randn(b, c)) for a, b, c in set(shapes)]
    repeats = [shapes.count((a.shape[0], a.shape[1], b.shape[1])) for a, b in pairs]
    return lambda: [a @ b for (a, b), times in zip(pairs, repeats) for _ in range(times)]


def copies_step(values: np.ndarray, cells: Graph, genes: Graph, hidden: int) -> Step:
    """A copy of as many bytes as a linear step must move.

    The values are read by two layers, forward and backward; each array [N, H] that a step holds is written and read.
    """
    moved = 4 * values.size + 2 * int(ARRAYS_IN_BLOCKS) * len(values) * hidden
    source = torch.ones(moved // 2)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


RATIOS = [("dense", "linear"), ("published", "linear"), ("linear", "products"), ("linear", "copies")]
FORMS = {
    "linear": linear_step,
    "dense": dense_step,
    "published": published_epoch,
    "products": products_step,
    "copies": copies_step,
}


def prepared(forms: list[str], device: torch.device, n_cells: int, n_genes: int, hidden: int) -> dict[str, Step]:
    """The steps of these forms on the same data, each taken once to warm up."""
    keep_freed_memory()
    torch.manual_seed(0)
    data = simulated(n_cells, n_genes)
    with device:  # where new tensors are made; not during steps, since torch then asks at every call
        steps = {form: FORMS[form](*data, hidden) for form in forms}
    for step in steps.values():
        step()
    return steps


def wait_for(device: torch.device) -> None:
    """Wait until a card has done what it was given; a CPU has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_in_turn(forms: list[str], device: torch.device, *sizes: int) -> dict[str, list[float]]:
    """Seconds of a step of every form, one of each a round, for at least 9 rounds and 3 seconds."""
    steps = prepared(forms, device, *sizes)
    seconds: dict[str, list[float]] = {form: [] for form in forms}
    began = time.perf_counter()
    while (rounds := len(seconds[forms[0]])) < 9 or (time.perf_counter() - began < 3 and rounds < 20):
        for form, step in steps.items():
            start = time.perf_counter()
            step()
            wait_for(device)
            seconds[form].append(time.perf_counter() - start)
    return seconds


def gib_of(form: str, device: torch.device, *sizes: int) -> float:
    """Peak memory of this process after two steps, GiB; on a card, that of the card."""
    prepared([form], device, *sizes)[form]()
    peak = peak_memory_gib(str(device))
    return peak.get("cuda", peak["cpu"])


def in_new_process(measure: str, forms: list[str], run: list[str], n_cells: int, n_genes: int, hidden: int) -> Any:
    """What a call with --measure in a process of its own prints; `run` are flags."""
    options = f"--measure {measure} --forms {' '.join(forms)} --cells {n_cells} --genes {n_genes} --hidden {hidden}"
    options = " ".join([options, *run])
    done = subprocess.run([sys.executable, "-m", "benchmarks.step", *options.split()], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{measure} of {forms} at {n_cells} cells failed: {(done.stderr.splitlines() or ['killed'])[-1]}")
    return json.loads(done.stdout)


def compare(n_cells: int, n_genes: int, hidden: int, forms: list[str], run: list[str]) -> dict[str, str]:
    """One line of the table: every form, and how the linear one stands to the others."""
    sizes = n_cells, n_genes, hidden
    seconds = in_new_process("seconds", forms, run, *sizes)
    line = {"cells x genes": f"{n_cells} x {n_genes}, H {hidden}"}
    for form in forms:
        line[f"{form} s"] = f"{np.median(seconds[form]):.3f}"
        line[f"{form} GiB"] = f"{in_new_process('memory', [form], run, *sizes):.2f}"
    for above, below in RATIOS:
        if {above, below} <= set(forms):
            line[f"{above}/{below}"] = f"{np.median(np.divide(seconds[above], seconds[below])):.2f}"
    return line


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.step",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--cells", type=int, nargs="+", default=[500, 1000, 2000, 3000, 5000])
    parser.add_argument("--genes", type=int, default=1500)
    parser.add_argument("--hidden", type=int, nargs="+", default=[256, 1500])
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--device", default="cpu", help="as for runSC.py")
    parser.add_argument("--tf32", action="store_true", help="as for runSC.py")
    parser.add_argument("--compile", action="store_true", help="as for runSC.py; the linear form alone")
    parser.add_argument("--measure", choices=["seconds", "memory"], help="measure one line in this process, print JSON")
    args = parser.parse_args()
    device = find_device(args.device)
    if args.measure:
        where = device, args.cells[0], args.genes, args.hidden[0]
        with tf32_products(device, args.tf32), compiled(device, args.compile):
            found = seconds_in_turn(args.forms, *where) if args.measure == "seconds" else gib_of(args.forms[0], *where)
        print(json.dumps(found))
        return
    run = [f"--device {device}", *(f"--{flag}" for flag in ("tf32", "compile") if vars(args)[flag])]
    lines = []
    for hidden in args.hidden:
        for n_cells in args.cells:
            lines.append(compare(n_cells, args.genes, hidden, args.forms, run))
            print(*lines[-1].values(), flush=True)
    print(f"\n{device}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print("seconds per step and ratios (medians over rounds), peak memory of a process\n")
    print(format_table(list(lines[0]), [list(line.values()) for line in lines]))


if __name__ == "__main__":
    main()
