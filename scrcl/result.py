"""What a run found, and how it is told: as numbers, as parameters to be kept, and as the table that ends a run."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from typing import Any

import anndata as ad
import pandas as pd
import torch

from scrcl.cluster.scores import METRICS
from scrcl.cluster.trust import CLEAR
from scrcl.keys import OURS, UNSMOOTHED
from scrcl.messages import format_table
from scrcl.prepare.prepared import Prepared
from scrcl.recipes import RUN_ONLY, CellSettings, TissueSettings
from scrcl.runtime import peak_memory_gib, versions

SURE = 0.9  # agreement from which a label is called sure in the summary
MOST_ROWS = 30  # most clusters that the summary lists; of more, only the doubtful ones


@dataclass
class Result:
    """What a run found.

    Attributes
    ----------
    settings
        Those of the run, with the seeds that were used.
    prepared
        The data set; its cells have everything that was found, under the keys of `scrcl.keys.OURS`.
    n_clusters, n_clusters_from
        How many clusters were asked for, and in words why.
    numbers
        What led to an estimate of that number, a row per number that was tried; None if nothing was estimated.
    labels
        One row per cell of the input, in its order, missing for cells that could not be used. Columns seed_S for every
        seed S, and last scrcl, the final labels, the consensus; where labels are smoothed, also those before it,
        NAME_unsmoothed.
    confidence
        Share of all partitions of all seeds that put the cell where the final labels do, missing as they are; all
        missing where there is a single partition.
    clusters
        One row per cluster of the final labels, how far it can be trusted; see `trust.table`.
    tree
        In which order clusters become one, those first that are least apart; see `trust.tree`.
    scores
        Per column of labels, as `scores.score` returns; empty without known types.
    chosen_seed
        The seed whose labels agree best with the final ones; obsm['X_scrcl'] is its embedding (for 'joint-or-pcs' the
        joint one, which holds both).
    clustered
        Per seed, what was clustered, in words.
    state_dict
        The parameters of the chosen seed's model.
    history
        The losses per seed and epoch.
    device, threads, seconds
        Where it ran, and how long every stage took.
    resumed_from
        In words, what of a checkpoint was used; empty for nothing.
    """

    settings: CellSettings | TissueSettings
    prepared: Prepared
    n_clusters: int
    n_clusters_from: str
    numbers: pd.DataFrame | None
    labels: pd.DataFrame
    confidence: pd.Series
    clusters: pd.DataFrame
    tree: pd.DataFrame
    scores: dict[str, dict]
    chosen_seed: int
    clustered: dict[str, str]
    state_dict: dict[str, torch.Tensor]
    history: list[dict[str, float]]
    device: str
    threads: int
    seconds: dict[str, float]
    resumed_from: str = ""

    @property
    def cells(self) -> ad.AnnData:
        """The AnnData of the cells that have counts, with all results in it."""
        return self.prepared.cells

    @property
    def seeds(self) -> list[str]:
        """Column names of the single runs in labels."""
        return [f"seed_{seed}" for seed in self.settings.seeds]


def facts(result: Result) -> dict[str, Any]:
    """How the run came about, but for its settings: versions, how many clusters and why, the machine."""
    found = {
        "task": result.settings.task,
        "versions": versions(),
        "n_clusters": result.n_clusters,
        "n_clusters_from": result.n_clusters_from,
        "values": result.prepared.values,
        "chosen_seed": result.chosen_seed,
        "device": result.device,
        "threads": result.threads,
        "clustered": result.clustered,
    }
    return found | ({"resumed_from": result.resumed_from} if result.resumed_from else {})


def parameters(result: Result) -> dict[str, Any]:
    """Return what uns['scrcl'] holds: facts, settings, scores, and the losses of every epoch.

    All of it can be written as h5ad.
    """
    settings = {name: value for name, value in dataclasses.asdict(result.settings).items() if name not in RUN_ONLY}
    known = result.prepared.known
    return {
        **facts(result),
        "params": settings,
        "label_key": "" if known is None else str(known.name),
        "section_key": result.prepared.section_key,
        "clusters": result.clusters,
        "tree": result.tree,
        "scores": {name: {metric: own[metric] for metric in METRICS} for name, own in result.scores.items()},
        "losses": {name: column.to_numpy() for name, column in pd.DataFrame(result.history).items()},
        **({} if result.numbers is None else {"numbers": {n: own.to_numpy() for n, own in result.numbers.items()}}),
    }


def metrics(result: Result) -> dict[str, Any]:
    """Scores per seed, their mean and sd, those of the final labels; sizes and times. JSON-ready."""
    unsmoothed = mean_and_sd(result, UNSMOOTHED)
    return {
        "n_cells": len(result.labels),
        "n_without_label": int(result.labels[OURS.labels].isna().sum()),
        "n_clusters": result.n_clusters,
        "n_clusters_from": result.n_clusters_from,
        "chosen_seed": result.chosen_seed,
        "clustered": result.clustered,
        "mean_confidence": float(result.confidence.mean()) if result.confidence.notna().any() else None,
        "clusters": {name: _without_nan(row) for name, row in result.clusters.to_dict("index").items()},
        "n_clusters_found": {name: result.labels[name].nunique() for name in result.labels},
        "scores": result.scores,
        **mean_and_sd(result),
        **({"unsmoothed": unsmoothed} if unsmoothed["mean"] else {}),
        "seconds": result.seconds,
        "peak_memory_gib": peak_memory_gib(result.device),
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


def summary(result: Result, glance: pd.DataFrame | None = None) -> str:
    """What ends a run: its clusters and how sure they are; where there are known types, scores and what they are of.

    glance: what else is known of the clusters, in words, a row for each: 'top genes', and perhaps 'name'.
    """
    unit = result.settings.unit
    lines = [f"Number of clusters: {result.n_clusters}, {result.n_clusters_from}.", ""]
    lines += [*cluster_lines(result.clusters, unit, glance), ""]
    if result.confidence.notna().any():
        sure = (result.confidence.dropna() >= SURE).mean()
        lines.append(f"Agreement: {result.confidence.mean():.2f} on average; {sure:.0%} of {unit} at {SURE} or more.")
    if result.scores:
        if lines[-1]:
            lines.append("")
        lines += [*_score_lines(result), ""]
    if result.resumed_from:
        lines.append(f"Resumed from {result.resumed_from}; the time counts from there.")
    peaks = peak_memory_gib(result.device).items()
    peak = ", ".join(f"{gib:.1f} GiB" + " of the card" * (where != "cpu") for where, gib in peaks)
    lines.append(f"Time and memory: {sum(result.seconds.values()):.0f} s, {peak}.")
    return "\n".join(lines)


def _score_lines(result: Result) -> list[str]:
    """How well each seed and the final labels meet the known types, and what was clustered."""
    assert result.prepared.known is not None
    n_scored, key = result.scores[OURS.labels]["n_scored"], result.prepared.known.name
    lines = [
        f"Against obs[{key!r}] ({n_scored} {result.settings.unit}), of which at most the number of types was used:",
        format_table(["", "clusters", "epochs", "loss", *METRICS], _score_rows(result, METRICS)),
    ]
    clustered = Counter(result.clustered.values())
    if len(clustered) > 1 or result.settings.embedding == "joint-or-pcs":
        told = ", ".join(f"{words} ({n} of {clustered.total()} seeds)" for words, n in clustered.most_common())
        lines.append(f"Clustered, by agreement with the cell graph: {told}.")
    lines.append("Seconds: " + ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in result.seconds.items()) + ".")
    return lines


def cluster_lines(clusters: pd.DataFrame, unit: str, glance: pd.DataFrame | None = None) -> list[str]:
    """The table of the clusters; of many without a name, only the doubtful ones, and how many others there are.

    glance: as for `summary`.
    """
    doubtful = clusters["verdict"] != CLEAR
    all_told = len(clusters) <= MOST_ROWS or (glance is not None and "name" in glance)
    listed = clusters if all_told else clusters[doubtful]
    rows = [
        [str(name), str(row["size"]), _two_digits(row["agreement"]), _two_digits(row["support"]), row["verdict"]]
        for name, row in listed.iterrows()
    ]
    header = ["cluster", unit, "agreement", "support", "verdict"]
    if glance is not None and len(glance):
        told = glance.reindex([row[0] for row in rows]).fillna("")
        header += list(glance)
        rows = [[*row, *words] for row, words in zip(rows, told.itertuples(index=False))]
    lines = [format_table(header, rows, words=("verdict", "name", "top genes"))] if rows else []
    others = clusters["size"].drop(listed.index)
    if len(others):
        which = "The other" if rows else "All"
        lines.append(f"{which} {len(others)} clusters, of {others.min()} to {others.max()} {unit}, are clear.")
    return lines


def _two_digits(value: float) -> str:
    """A number of the table of clusters; a dash where there is none."""
    return "-" if pd.isna(value) else f"{value:.2f}"


def _without_nan(row: dict[str, Any]) -> dict[str, Any]:
    """None in place of NaN, which JSON does not have."""
    return {name: None if pd.isna(value) else value for name, value in row.items()}


def _score_rows(result: Result, scored: tuple[str, ...]) -> list[list[str]]:
    last = {f"seed_{record['seed']}": (str(record["epoch"]), f"{record['total']:.4g}") for record in result.history}
    rows = []

    def add(title: str, name: str, trained: tuple[str, str] = ("", "")) -> None:
        scores = (f"{result.scores[name][m]:.3f}" for m in scored)
        rows.append([title, str(result.labels[name].nunique()), *trained, *scores])

    for suffix in ("", UNSMOOTHED) if OURS.unsmoothed in result.labels else ("",):
        note = ", not smoothed" if suffix else ""
        for name in result.seeds:
            add(name.replace("_", " ") + note, name + suffix, ("", "") if suffix else last[name])
        if len(result.seeds) > 1:
            spread = mean_and_sd(result, suffix)
            shown = [f"{spread['mean'][m]:.3f} ± {spread['sd'][m]:.3f}" for m in scored]
            rows += [[f"mean ± sd{note}", "", "", "", *shown]] if shown else []
            add(f"consensus{note}", OURS.labels + suffix)
    return rows
