"""Scores of peer methods on labelled data sets, by the code that scores ours.

    python -m benchmarks.peers --datasets a.h5ad b.h5ad --envs peers/ --csv peers.csv
    python -m benchmarks.peers --task ST --datasets 151510 c.h5ad --peers nichepca banksy --envs peers/ --csv peers.csv
    python -m benchmarks.peers --tables peers.csv spatial.csv  # beside ours, from benchmarks.accuracy

Every peer has an environment of its own in the folder --envs, made once, with the versions of `PEERS`. There it runs as
`benchmarks/peer_methods.py` has it, with its documented defaults, in a process of its own. It is given values that are
counts or amounts, positions, a number of clusters and a seed: labels stay here, and so do the names of the cells.

A row per data set, way of clustering and seed goes to the CSV as soon as it is known; a second call with the same CSV
continues where the first one ended. A peer that fails gets a row that says why: take it out to try again. Labels are
scored as a peer gives them; those of our baselines are smoothed for spots. Seconds are CPU seconds of the whole
process, imports and all ways of clustering included, gib the most memory that it held: compare them where both runs had
OMP_NUM_THREADS=1.

STAGATE_pyG (github.com/QIFEIDKN/STAGATE_pyG) is not on PyPI, and GraphST is without what it needs; here are the
distributions 'stagate-modern' and 'graphst-modern' of both. R's mclust, which both use, is replaced.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import anndata as ad
import numpy as np
import pandas as pd

from benchmarks.accuracy import KEY, row_of
from benchmarks.accuracy_tables import markdown, means
from benchmarks.datasets import AS_IT_IS, read
from scrcl.cluster.scores import METRICS
from scrcl.commands.script import guarded
from scrcl.contents.places import placed
from scrcl.contents.values import find_expression
from scrcl.keys import SPATIAL
from scrcl.messages import UserError, log, one_line
from scrcl.prepare.prepared import known_labels
from scrcl.readers.find import dataset_name
from scrcl.recipes import RECIPES, Task

SCRIPT = Path(__file__).with_name("peer_methods.py")
TORCH = "torch==2.13.0"
SCVI = "scvi-tools==1.4.2"
SCANPY = (
    *("scanpy==1.11.5", "anndata==0.12.19", "numpy==2.3.5", "scikit-learn==1.9.1", "scikit-misc==0.5.3"),
    "pynndescent==0.5.13",  # 0.7 breaks scanpy's neighbors
)
LEIDEN = ("igraph==0.11.9", "leidenalg==0.10.2")


class Peer(NamedTuple):
    """A method: what it is for, its ways of clustering, and what pip installs for it, in this order."""

    task: Task
    methods: tuple[str, ...]
    requirements: tuple[str, ...]


PEERS = {  # by the name of the function of peer_methods.py
    "scanpy": Peer("SC", ("scanpy",), (*SCANPY, *LEIDEN)),
    "scvi": Peer("SC", ("scVI + Leiden", "scVI + tied GMM"), (TORCH, SCVI, *SCANPY, *LEIDEN)),
    "nichepca": Peer("ST", ("NichePCA + Leiden", "NichePCA + tied GMM"), (TORCH, "nichepca==0.1.0", *SCANPY, *LEIDEN)),
    "banksy": Peer("ST", ("BANKSY + Leiden", "BANKSY + tied GMM"), ("pybanksy==1.3.5", *SCANPY, *LEIDEN)),
    "cellcharter": Peer(
        "ST",
        ("CellCharter", "CellCharter + tied GMM"),
        (TORCH, "cellcharter==0.3.7", "torchgmm==0.1.4", "squidpy==1.8.2", SCVI, *SCANPY),
    ),
    "graphst": Peer(
        "ST",
        ("GraphST + tied GMM", "GraphST + tied GMM, refined"),
        (TORCH, "graphst-modern==1.1.1.post3", "POT==0.9.7.post1", *SCANPY),
    ),
    "stagate": Peer(
        "ST",
        ("STAGATE + Leiden", "STAGATE + tied GMM"),
        (TORCH, "stagate-modern==1.0.0.post1", "torch-geometric==2.8.1", *SCANPY, *LEIDEN),
    ),
}


def interpreter(name: str, envs: Path) -> Path:
    """The Python of a peer's environment, which is made where it is missing or holds other versions."""
    folder, wanted = envs.resolve() / name, list(PEERS[name].requirements)
    python, installed = folder / "bin" / "python", folder / "requirements.txt"
    if not installed.exists() or installed.read_text().split() != wanted:
        log.info("%s: installing %s.", name, ", ".join(wanted))
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        # torch first: what is resolved with it could bring another build
        for part in (wanted[:1], wanted) if wanted[0] == TORCH else (wanted,):
            subprocess.run([python, "-m", "pip", "install", "--quiet", *part], check=True, stdout=sys.stderr)
        installed.write_text("\n".join(wanted))
    return python


def without_labels(task: Task, dataset: str) -> tuple[ad.AnnData, pd.Series]:
    """What a peer is given of a data set, with numbers for names, and the known labels of the same cells."""
    adata = read(task, dataset, AS_IT_IS)
    adata = placed(adata) if task == "ST" else adata
    expression = find_expression(adata)
    cells = expression.cells
    if expression.kind == "log-normalised":
        np.expm1(cells.X.data, out=cells.X.data)
    cells = cells[np.asarray(cells.X.sum(axis=1)).ravel() > 0]
    known = known_labels(adata.obs, RECIPES[task](), cells)
    if known is None:
        raise UserError(f"{dataset} has no known labels to score by.")
    names = pd.Index(np.arange(cells.n_obs).astype(str))
    given = ad.AnnData(cells.X.copy(), obs=pd.DataFrame(index=names), var=cells.var[[]])
    if task == "ST":
        given.obsm[SPATIAL] = np.asarray(cells.obsm[SPATIAL])
    return given, known.set_axis(names)


def labels_of(name: str, python: Path, cells: Path, n_clusters: int, seed: int) -> tuple[pd.DataFrame, dict]:
    """Labels that a peer finds, [N] by way of clustering, and what its process cost.

    Raises
    ------
    RuntimeError
        With the last line that the peer said, when it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder, "labels.csv")
        command = [python, "-I", SCRIPT, name, cells, table, n_clusters, seed]
        ended = subprocess.run(list(map(str, command)), cwd=folder, capture_output=True, text=True)
        if ended.returncode:
            said = ended.stderr.strip().splitlines() if ended.returncode > 0 else []  # else it was killed
            raise RuntimeError(said[-1] if said else f"exit status {ended.returncode}")
        return pd.read_csv(table, index_col=0, dtype=str), json.loads(Path(folder, "cost.json").read_text())


def rows_of(name: str, envs: Path, cells: Path, known: pd.Series, seed: int) -> dict[str, dict[str, Any]]:
    """A row by way of clustering: scores, seconds and memory; or what went wrong, in words."""
    methods = PEERS[name].methods
    try:
        found, cost = labels_of(name, interpreter(name, envs), cells, known.nunique(), seed)
        rows = {method: row_of(found[method].set_axis(known.index), known) for method in methods}
        said = ""
    except (RuntimeError, OSError, ValueError, KeyError, subprocess.CalledProcessError) as error:
        nothing = dict.fromkeys([*METRICS, "n_clusters"]) | {"n_types": known.nunique(), "recall": "{}"}
        rows, cost, said = dict.fromkeys(methods, nothing), {"seconds": None, "gib": None}, one_line(error)
    return {method: row | cost | {"error": said} for method, row in rows.items()}


def run(task: Task, datasets: list[str], names: list[str], seeds: list[int], envs: Path, csv: Path) -> None:
    """Score every combination that the CSV does not hold yet."""
    held = pd.read_csv(csv, dtype={"dataset": str}) if csv.exists() else pd.DataFrame(columns=KEY)
    done = set(held[KEY].itertuples(index=False, name=None))
    for dataset in datasets:
        which = task, dataset_name(dataset), AS_IT_IS
        runs = [(name, seed) for name in names for seed in seeds]
        left = [(name, seed) for name, seed in runs if (*which, PEERS[name].methods[-1], seed) not in done]
        if not left:
            continue
        with tempfile.TemporaryDirectory() as folder:
            given, known = without_labels(task, dataset)
            given.write_h5ad(cells := Path(folder, "cells.h5ad"))
            for name, seed in left:
                found = rows_of(name, envs, cells, known, seed)
                rows = [dict(zip(KEY, (*which, method, seed))) | row for method, row in found.items()]
                pd.DataFrame(rows).to_csv(csv, mode="a", header=not csv.exists(), index=False)
                for row in rows:
                    log.info("%s", {key: value for key, value in row.items() if key != "recall"})


def document(rows: pd.DataFrame) -> str:
    """A table per task: ARI of every method on every data set, mean over seeds, and the mean cost of a run."""
    rows = rows[rows["ARI"].notna() & (rows["input"] == AS_IT_IS)]
    rows = rows.assign(dataset=rows["dataset"].astype(str))
    return "\n\n".join(table(rows[rows["task"] == task]) for task in rows["task"].unique())


def table(rows: pd.DataFrame) -> str:
    """A row per method, a column per data set; a mean only where all sets have been run."""
    ari, costs = means(rows, "ARI"), rows.groupby("method")[["seconds", "gib"]].mean()
    lines = []
    for method, values in ari.iterrows():
        numbers = [*values, values.mean(skipna=False)]
        cost = (costs.loc[method, name] for name in ("seconds", "gib"))
        shown = [f"{value:.3f}" for value in numbers] + [f"{value:.{digits}f}" for digits, value in enumerate(cost)]
        lines.append([method, *("" if text == "nan" else text for text in shown)])
    return markdown(["ARI", *ari.columns, "mean", "seconds", "GiB"], lines)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--task", choices=RECIPES, default="SC")
    parser.add_argument("--datasets", nargs="+", metavar="NAME|PATH")
    parser.add_argument("--peers", nargs="+", choices=PEERS, help="of the task; all of them unless named")
    parser.add_argument("--seeds", nargs="+", type=int, default=[5, 15, 25])
    parser.add_argument("--envs", type=Path, help="folder of the peers' environments")
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--tables", nargs="+", type=Path, metavar="CSV", help="print the tables of these")
    return parser.parse_args()


def main() -> None:
    args = parse()
    if args.tables:
        print(document(pd.concat(map(pd.read_csv, args.tables))))
        return
    if not (args.datasets and args.envs and args.csv):
        raise UserError("Runs need --datasets, --envs and --csv; tables --tables.")
    names = [name for name, peer in PEERS.items() if peer.task == args.task]
    others = set(args.peers or []) - set(names)
    if others:
        raise UserError(f"The peers of {args.task} are {', '.join(names)}, not {', '.join(others)}.")
    run(args.task, args.datasets, args.peers or names, args.seeds, args.envs, args.csv)


if __name__ == "__main__":
    sys.exit(guarded(main))
