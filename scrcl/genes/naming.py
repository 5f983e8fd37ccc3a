"""Name clusters by the known markers that are highest in them."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd

from scrcl.genes.ranking import GROUP, bare_copy, statistics

# A name in doubt ends with a question mark: the best score, or its lead over the next, is below these.
FAINT, CLOSE = 0.2, 0.1


def name_clusters(cells: ad.AnnData, known: dict[str, list[str]], groupby: str = GROUP) -> pd.DataFrame:
    """Name every cluster by the known type whose markers are highest in it.

    A gene's score in a cluster is 2 AUC - 1 (Somers' D), from -1 to 1: the chance that a cell of the cluster has more
    of the gene than a cell of another, minus the chance that it has less. A type's score is the mean over its genes. So
    every gene has the same weight however high it is, and a few cells cannot name a cluster in which they are a small
    minority.

    Parameters
    ----------
    cells
        As for `ranking.rank`.
    known
        Marker genes of each known type, all of them in cells.var_names.
    groupby
        The obs column of the clusters.

    Returns
    -------
    One row per cluster of more than one cell. Columns: name, the type with the best score, 'unknown' if none is above
    0, with a question mark if the score is below 0.2 or the margin below 0.1; score; runner_up; margin, between the
    two, NaN for a single type; and 'score of TYPE' for each type.
    """
    genes = list(dict.fromkeys(gene for own in known.values() for gene in own))
    bare = bare_copy(cells[:, genes], groupby)
    sizes = bare.obs[GROUP].value_counts(sort=False)
    table = statistics(bare, list(sizes.index[sizes > 1]), "wilcoxon")
    z = table.pivot(index="group", columns="names", values="scores")
    # Wilcoxon's z is Somers' D over its standard deviation, sqrt((N + 1) / (3 n (N - n))), without ties.
    to_d = np.sqrt((cells.n_obs + 1) / (3 * sizes[z.index] * (cells.n_obs - sizes[z.index])))
    of_genes = z.mul(to_d.to_numpy(), axis=0)
    scores = pd.DataFrame({name: of_genes[own].mean(axis=1) for name, own in known.items()})
    scores.index = scores.index.astype(str)
    ordered = np.argsort(-scores.to_numpy(), axis=1, kind="stable")
    best = np.take_along_axis(scores.to_numpy(), ordered, axis=1)
    several = scores.shape[1] > 1
    in_doubt = (best[:, 0] < FAINT) | (several & (best[:, 0] - best[:, min(1, best.shape[1] - 1)] < CLOSE))
    names = scores.columns[ordered[:, 0]] + np.where(in_doubt, "?", "")
    named = pd.DataFrame(
        {
            "name": np.where(best[:, 0] > 1e-6, names, "unknown"),
            "score": best[:, 0],
            "runner_up": scores.columns[ordered[:, 1]] if several else "",
            "margin": best[:, 0] - best[:, 1] if several else np.nan,
        },
        index=scores.index,
    )
    return named.join(scores.add_prefix("score of ")).rename_axis("cluster")
