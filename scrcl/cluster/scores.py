"""Compare finished labels with known types. Predictions are never changed here."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score, f1_score, normalized_mutual_info_score

METRICS = ("ACC", "NMI", "ARI", "F1")


def matched_types(predicted: pd.Series, known: pd.Series) -> dict[str, str]:
    """One type per cluster and one cluster per type, the assignment with the most cells in common (Hungarian method).

    Clusters and types may differ in number; what is left over has no partner.
    """
    table = pd.crosstab(predicted, known)
    rows, columns = linear_sum_assignment(table.to_numpy(), maximize=True)
    return dict(zip(table.index[rows], table.columns[columns]))


def score(predicted: pd.Series, known: pd.Series) -> dict:
    """Scores of a labelling against known types, on the cells that have both.

    predicted, known: strings with the same index, missing values allowed.
    Returns ACC, NMI (arithmetic mean), ARI and F1 (macro over the known types; ACC
    and F1 after one-to-one matching, clusters without a partner counting as
    wrong), 'recall' per known type, 'n_scored', the number of cells compared.
    """
    both = known.notna() & predicted.notna()
    known, predicted = known[both].astype(str), predicted[both].astype(str)
    types = matched_types(predicted, known)
    named = predicted.map(types).fillna("")
    hit = named == known
    names = sorted(known.unique())
    return {
        "ACC": float(hit.mean()),
        "NMI": float(normalized_mutual_info_score(known, predicted)),
        "ARI": float(adjusted_rand_score(known, predicted)),
        "F1": float(f1_score(known, named, labels=names, average="macro", zero_division=0)),
        "recall": {name: float(np.mean(hit[known == name])) for name in names},
        "n_scored": int(both.sum()),
    }


def largest_overlaps(predicted: pd.Series, known: pd.Series) -> pd.DataFrame:
    """For every cluster the known type it shares most cells with, on the cells that have both.

    Rows: the clusters, in their order. Columns: n_cells (with a known type), known_type, n_overlap, share_of_cluster,
    share_of_type and jaccard (cells of both over cells of either). Clusters without any known cell are left out.
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
