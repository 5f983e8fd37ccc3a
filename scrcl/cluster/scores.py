"""Compare finished labels with known labels; the finished labels are never changed here."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score, f1_score, normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix

METRICS = ("ACC", "NMI", "ARI", "F1")


def matched_types(predicted: pd.Series, known: pd.Series) -> dict[str, str]:
    """Match clusters with known types one to one, so that they have the most cells in common (Hungarian method).

    Clusters and types may differ in number; the ones left over have no partner.

    Parameters
    ----------
    predicted, known
        Strings with the same index.

    Returns
    -------
    The type of each matched cluster, by cluster.
    """
    known = known.reindex(predicted.index)
    both = known.notna() & predicted.notna()
    codes, clusters = pd.factorize(predicted[both], sort=True)
    of_types, types = pd.factorize(known[both], sort=True)
    return {clusters[own]: types[other] for own, other in _matched(codes, of_types)}


def _matched(codes: np.ndarray, of_types: np.ndarray) -> list[tuple[int, int]]:
    """Return the pairs of `matched_types`, of integers from 0."""
    rows, columns = linear_sum_assignment(contingency_matrix(codes, of_types), maximize=True)
    return list(zip(rows.tolist(), columns.tolist()))


def score(predicted: pd.Series, known: pd.Series) -> dict:
    """Score labels against known types, on the cells that have both.

    Parameters
    ----------
    predicted, known
        Strings with the same index; values may be missing.

    Returns
    -------
    ACC, NMI (arithmetic mean), ARI and F1 (macro over the known types); 'recall' per known type; and 'n_scored', the
    number of cells compared. ACC and F1 are computed after one-to-one matching, where clusters without a partner count
    as wrong.
    """
    known = known.reindex(predicted.index)
    both = known.notna() & predicted.notna()
    # In integers, since comparing strings takes half a minute for a million cells.
    codes, clusters = pd.factorize(predicted[both].astype(str), sort=True)
    types, names = pd.factorize(known[both].astype(str), sort=True)
    partner = np.full(len(clusters), -1)
    for own, other in _matched(codes, types):
        partner[own] = other
    hit = partner[codes] == types
    recall = np.bincount(types[hit], minlength=len(names)) / np.bincount(types, minlength=len(names))
    return {
        "ACC": float(hit.mean()),
        "NMI": float(normalized_mutual_info_score(types, codes)),
        "ARI": float(adjusted_rand_score(types, codes)),
        "F1": float(f1_score(types, partner[codes], labels=range(len(names)), average="macro", zero_division=0)),
        "recall": dict(zip(names, recall.tolist())),
        "n_scored": int(both.sum()),
    }


def largest_overlaps(predicted: pd.Series, known: pd.Series) -> pd.DataFrame:
    """Return, for every cluster, the known type it shares most cells with, on the cells that have both.

    Parameters
    ----------
    predicted, known
        Categories or strings with the same index; values may be missing.

    Returns
    -------
    A table with the clusters in rows, in their order, and the columns n_cells (with a known type), known_type,
    n_overlap, share_of_cluster, share_of_type and jaccard (cells of both over cells of either). Clusters without any
    known cell are left out.
    """
    table = pd.crosstab(predicted, known)
    largest, overlap = table.idxmax(axis=1), table.max(axis=1)
    of_cluster, of_type = table.sum(axis=1), table.sum().loc[largest].to_numpy()
    return pd.DataFrame(
        {
            "n_cells": of_cluster,
            "known_type": largest,
            "n_overlap": overlap,
            "share_of_cluster": overlap / of_cluster,
            "share_of_type": overlap / of_type,
            "jaccard": overlap / (of_cluster + of_type - overlap),
        }
    ).rename_axis("cluster")
