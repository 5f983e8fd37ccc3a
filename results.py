"""Write what a run found, and find finished runs again. Files go to a folder that the caller moves into place."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shlex
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import anndata as ad
import h5py
import pandas as pd
import torch
import yaml

from folders import complete_for_reading
from pipeline import CONFIDENCE, FINAL, UNSMOOTHED, Result
from score import METRICS
from utils import UserError, format_table, log, one_line, peak_memory_gib

SURE = 0.9  # confidence from which a label is called sure in the summary
RESULTS = Path(__file__).parent / "results"
FILES = ("config.yaml", "labels.csv", "result.h5ad", "metrics.json", "log.jsonl", "model.pt")


def write(result: Result, folder: Path, source: Path | None, hashes: Mapping[str, str] | None = None) -> None:
    """Write labels.csv, result.h5ad, metrics.json, config.yaml, log.jsonl and model.pt into folder.

    source: the input file or folder, None for data that come with a package or are
    simulated; hashes: SHA-256 of its files, by name, as they were read.
    """
    table = result.labels.drop(columns=FINAL).assign(
        **{CONFIDENCE: result.confidence.round(4), FINAL: result.labels[FINAL]}
    )
    table.to_csv(folder / "labels.csv", index_label="barcode")
    _write_h5ad(result.cells, folder / "result.h5ad")
    numbers = metrics(result) | {"peak_memory_gib": _peak_memory(result)}
    (folder / "metrics.json").write_text(json.dumps(numbers, indent=2) + "\n")
    (folder / "config.yaml").write_text(
        yaml.safe_dump(provenance(result, source, hashes), sort_keys=False, allow_unicode=True), encoding="utf-8"
    )
    (folder / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in result.history))
    model = io.BytesIO()  # as for h5ad: only plain writing ends a full disk in an OSError
    torch.save(result.state_dict, model)
    (folder / "model.pt").write_bytes(model.getbuffer())


def _write_h5ad(cells: ad.AnnData, path: Path) -> None:
    """Write the result; annotations of the input that h5ad cannot hold must not cost it."""
    try:
        content = _h5ad(cells)
    except (MemoryError, OSError):
        raise
    except Exception as error:  # anndata and h5py raise many types
        log.warning("result.h5ad leaves out the input's own annotations, which cannot be stored: %s", error)
        ours = cells.obs[[name for name in cells.obs if str(name).startswith("scrcl")]]
        uns = {"scrcl": cells.uns["scrcl"]}
        bare = ad.AnnData(cells.X, obs=ours, var=cells.var[["highly_variable"]], layers=cells.layers, uns=uns)
        for key in ("spatial", "X_pca", "X_pca_spatial", "X_scrcl", "X_umap"):
            if key in cells.obsm:
                bare.obsm[key] = cells.obsm[key]
        bare.obsp["scrcl_graph"] = cells.obsp["scrcl_graph"]
        content = _h5ad(bare)
    path.write_bytes(content)


def _h5ad(cells: ad.AnnData) -> memoryview:
    """The bytes of an h5ad file. Made in memory, because HDF5 itself crashes Python when the disk fills under it."""
    cells.strings_to_categoricals()
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        ad.io.write_elem(file, "/", cells, dataset_kwargs={"compression": "gzip"})
    return buffer.getbuffer()


def _peak_memory(result: Result) -> dict[str, float]:
    return peak_memory_gib(torch.device(result.device))


def metrics(result: Result) -> dict:
    """Scores per seed, their mean and sd, those of the final labels; sizes and times. JSON-ready."""
    unsmoothed = mean_and_sd(result, UNSMOOTHED)
    return {
        "n_cells": len(result.labels),
        "n_without_label": int(result.labels["scrcl"].isna().sum()),
        "n_clusters": result.prepared.n_clusters,
        "n_clusters_from": result.prepared.n_clusters_from,
        "chosen_seed": result.chosen_seed,
        "clustered": result.cells.uns["scrcl"]["clustered"],
        "mean_confidence": float(result.confidence.mean()) if len(result.seeds) > 1 else None,
        "n_clusters_found": {name: result.labels[name].nunique() for name in result.labels},
        "scores": result.scores,
        **mean_and_sd(result),
        **({"unsmoothed": unsmoothed} if unsmoothed["mean"] else {}),
        "seconds": result.seconds,
    }


def mean_and_sd(result: Result, suffix: str = "") -> dict[str, dict[str, float]]:
    """'mean' and 'sd' of every score over the seeds, as far as there are known labels and several seeds.

    suffix: UNSMOOTHED for the labels before smoothing.
    """
    single = [result.scores[name + suffix] for name in result.seeds if name + suffix in result.scores]
    values = pd.DataFrame(single, columns=METRICS)
    return {
        "mean": values.mean().to_dict() if single else {},
        "sd": values.std(ddof=1).to_dict() if len(single) > 1 else {},
    }


def provenance(result: Result, source: Path | None, hashes: Mapping[str, str] | None = None) -> dict:
    """Everything needed to repeat the run: `--config config.yaml` reads the settings back."""
    settings = dataclasses.asdict(result.config) | {"resume": False}
    for name in ("annotation", "output"):
        if settings.get(name, "auto") not in ("auto", "none"):
            settings[name] = str(Path(settings[name]).resolve())
    facts = {name: value for name, value in result.cells.uns["scrcl"].items() if name != "params"}
    origin: dict[str, Any]
    if source is None:
        origin = {"file": result.config.dataset}
    else:
        asked, found = Path(result.config.dataset).resolve(), source.resolve()
        settings["dataset"] = str(asked if found.is_relative_to(asked) else found)  # a folder keeps its name
        origin = {"file": str(source), "sha256": dict(hashes or {})}
    return {
        "settings": settings,
        "provenance": {"command": shlex.join(["python", *sys.argv]), "input": origin, **facts},
    }


def summary(result: Result) -> str:
    """The table that ends a run: per seed, mean ± sd, the final labels; times and memory."""
    scored = METRICS if result.scores else ()
    rows = _score_rows(result, scored)
    lines = [format_table(["", "clusters", "epochs", "loss", *scored], rows), ""]
    if len(result.seeds) > 1:
        sure = (result.confidence.dropna() >= SURE).mean()
        lines += [
            "Final labels: the consensus of all seeds; known labels have no part in it.",
            f"Confidence: {result.confidence.mean():.2f} on average; {sure:.0%} of {result.config.unit} at {SURE} or more.",
        ]
    clustered = Counter(result.cells.uns["scrcl"]["clustered"].values())
    if len(clustered) > 1 or result.config.embedding == "joint-or-pcs":
        told = ", ".join(f"{of} ({n} of {clustered.total()} seeds)" for of, n in clustered.most_common())
        lines.append(f"Clustered, by agreement with the cell graph: {told}.")
    lines.append(f"Number of clusters: {result.prepared.n_clusters}, {result.prepared.n_clusters_from}.")
    if result.prepared.known is not None:
        n_scored, key = result.scores["scrcl"]["n_scored"], result.prepared.known.name
        lines.append(f"Scores: against obs[{key!r}], {n_scored} {result.config.unit}, after the last epoch.")
    resumed_from = result.cells.uns["scrcl"].get("resumed_from")
    if resumed_from:
        lines.append(f"Resumed from {resumed_from}; the seconds are those since then.")
    lines.append("Seconds: " + ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in result.seconds.items()) + ".")
    lines.append(
        "Peak memory: " + ", ".join(f"{gib:.2f} GiB {where}" for where, gib in _peak_memory(result).items()) + "."
    )
    return "\n".join(lines)


def _score_rows(result: Result, scored: tuple[str, ...]) -> list[list[str]]:
    last = {f"seed_{record['seed']}": (str(record["epoch"]), f"{record['total']:.4g}") for record in result.history}
    rows = []

    def add(title: str, name: str, training: tuple[str, str] = ("", "")) -> None:
        scores = (f"{result.scores[name][m]:.3f}" for m in scored)
        rows.append([title, str(result.labels[name].nunique()), *training, *scores])

    for suffix in ("", UNSMOOTHED) if FINAL + UNSMOOTHED in result.labels else ("",):
        note = ", not smoothed" if suffix else ""
        for name in result.seeds:
            add(name.replace("_", " ") + note, name + suffix, ("", "") if suffix else last[name])
        if len(result.seeds) > 1:
            spread = mean_and_sd(result, suffix)
            rows.append(
                [f"mean ± sd{note}", "", "", "", *(f"{spread['mean'][m]:.3f} ± {spread['sd'][m]:.3f}" for m in scored)]
            )
            add(f"consensus{note}", FINAL + suffix)
    return rows


@dataclass(frozen=True)
class Run:
    """A finished run: its folder and task, settings and provenance (config.yaml), and metrics (metrics.json)."""

    folder: Path
    task: Literal["SC", "ST"]
    settings: dict
    provenance: dict
    metrics: dict


def is_finished(folder: Path) -> bool:
    """Whether a run has ended well in folder."""
    return all(os.path.isfile(folder / name) for name in ("config.yaml", "labels.csv", "metrics.json", "result.h5ad"))


def read_run(folder: Path) -> Run | None:
    """The finished run in folder, or None where there is none. Raises UserError for one that is damaged."""
    complete_for_reading(folder)
    if not is_finished(folder):
        return None
    try:
        content = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        run = Run(folder, content["provenance"]["task"], content["settings"], content["provenance"], metrics)
        for part, names in NEEDED.items():
            for name in names:
                getattr(run, part)[name]
        if run.task not in ("SC", "ST"):
            raise KeyError(f"task {run.task}")
        return run
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise UserError(f"The run in {folder} cannot be read back ({one_line(error)}); run it again.") from error


NEEDED = {  # what the readers of a run rely on
    "settings": ("dataset", "label_key"),
    "provenance": ("values", "input", "versions"),
    "metrics": ("scores", "n_clusters", "n_clusters_from"),
}


def latest_run(task: str) -> Run:
    """The run in results/TASK that finished last. Raises UserError where there is none."""
    for folder in (RESULTS / task).glob("*"):
        complete_for_reading(folder)
    finished = [path.parent for path in (RESULTS / task).glob("*/labels.csv") if is_finished(path.parent)]
    if not finished:
        raise UserError(
            f"There is no finished run in {RESULTS / task}; run `python run{task}.py` first, or name data by --dataset "
            "and labels by --labels."
        )
    run = read_run(max(finished, key=lambda folder: (folder / "labels.csv").stat().st_mtime))
    assert run is not None  # is_finished
    return run
