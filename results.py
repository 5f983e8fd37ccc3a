"""Write what a run found. Every file goes to a folder that the caller moves into place."""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
from pathlib import Path

import numpy as np
import torch
import yaml

from pipeline import Result, versions
from score import METRICS
from utils import format_table, sha256

FILES = ("labels.csv", "result.h5ad", "metrics.json", "config.yaml", "log.jsonl", "model.pt")


def write(result: Result, folder: Path, source: Path | None) -> None:
    """Write labels.csv, result.h5ad, metrics.json, config.yaml and model.pt into folder.

    source: the input file, whose hash is recorded; None for data that come with a package.
    """
    result.labels.to_csv(folder / "labels.csv", index_label="barcode")
    result.cells.write_h5ad(folder / "result.h5ad", compression="gzip")
    (folder / "metrics.json").write_text(json.dumps(metrics(result), indent=2) + "\n")
    (folder / "config.yaml").write_text(yaml.safe_dump(provenance(result, source), sort_keys=False, allow_unicode=True))
    torch.save(result.state_dict, folder / "model.pt")


def metrics(result: Result) -> dict:
    """Scores per seed, their mean and sd, those of the final labels; sizes, times; JSON-ready."""
    single = [result.scores[name] for name in result.seeds if name in result.scores]
    return {
        "n_cells": len(result.labels),
        "n_without_counts": int(result.labels["scrcl"].isna().sum()),
        "n_clusters": result.n_clusters,
        "n_clusters_from": result.n_clusters_from,
        "final_seed": result.final_seed,
        "scores": result.scores,
        "mean": {name: float(np.mean([s[name] for s in single])) for name in METRICS} if single else {},
        "sd": {name: float(np.std([s[name] for s in single], ddof=1)) for name in METRICS} if len(single) > 1 else {},
        "seconds": result.seconds,
    }


def provenance(result: Result, source: Path | None) -> dict:
    """Everything needed to repeat the run: `--config config.yaml` reads the settings back."""
    settings = dataclasses.asdict(result.config)
    if source is not None:
        settings["dataset"] = str(source.resolve())
    return {
        "settings": settings,
        "provenance": {
            "command": shlex.join(["python", *sys.argv]),
            "input": {"file": str(source), "sha256": sha256(source)} if source else {"file": "comes with scanpy"},
            "values": result.values,
            "n_clusters": result.n_clusters,
            "n_clusters_from": result.n_clusters_from,
            "device": result.device,
            "versions": versions(),
        },
    }


def summary(result: Result, peak_memory: dict[str, float]) -> str:
    """The table that ends a run: per seed, mean ± sd, the final labels; times and memory."""
    last_loss = {f"seed_{record['seed']}": record["total"] for record in result.history}
    scored = METRICS if result.scores else ()
    rows = [
        [
            name.replace("_", " "),
            str(result.labels[name].nunique()),
            f"{last_loss[name]:.4g}",
            *(f"{result.scores[name][m]:.3f}" for m in scored),
        ]
        for name in result.seeds
    ]
    if len(result.seeds) > 1:
        single = np.array([[result.scores[name][m] for m in scored] for name in result.seeds]).reshape(
            len(result.seeds), -1
        )
        rows.append(
            ["mean ± sd", "", "", *(f"{a:.3f} ± {b:.3f}" for a, b in zip(single.mean(0), single.std(0, ddof=1)))]
        )
    rows.append(
        [
            f"final (seed {result.final_seed})",
            str(result.labels["scrcl"].nunique()),
            "",
            *(f"{result.scores['scrcl'][m]:.3f}" for m in scored),
        ]
    )
    lines = [format_table(["", "clusters", "loss", *scored], rows), ""]
    if len(result.seeds) > 1:
        lines.append("Final labels: of the seed that agrees best with the others; no known type had a part in it.")
    lines.append(f"Number of clusters: {result.n_clusters}, {result.n_clusters_from}.")
    if result.scores:
        lines.append(
            f"Scores: against obs[{result.known.name!r}], {result.scores['scrcl']['n_scored']} cells, after the last epoch."
        )
    lines.append("Seconds: " + ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in result.seconds.items()) + ".")
    lines.append("Peak memory: " + ", ".join(f"{gib:.2f} GiB {where}" for where, gib in peak_memory.items()) + ".")
    return "\n".join(lines)
