"""Name genes as people read them, and name clusters by the known markers that are highest in them."""

from __future__ import annotations

import re

import anndata as ad
import numpy as np
import pandas as pd

from scrcl.genes.ranking import GROUP, bare_copy, statistics
from scrcl.keys import GENE_SYMBOLS
from scrcl.messages import UserError, log

_ID = re.compile(r"ENS[A-Z]*G\d+(\.\d+)?|FBgn\d+|WBGene\d+|\d+")
_NUMBERED = re.compile(r"(g|gene|feature|var|v|x)?[ ._-]*\d+", re.IGNORECASE)


def gene_names(var: pd.DataFrame, gene_key: str = "auto") -> pd.Index:
    """Return the names of the genes as people read them, made unique.

    A warning says so when genes have numbers for names.

    Parameters
    ----------
    var
        The table of the genes.
    gene_key
        A column of var, 'none' for var's own names, or 'auto'. When var's own names are ids or numbers, 'auto' is the
        first usual column of gene symbols, if there is one; otherwise it is var's own names.

    Raises
    ------
    UserError
        When gene_key names a column that is not in var.
    """
    if gene_key not in ("auto", "none", *var.columns):
        raise UserError(
            f"There is no var column {gene_key!r}; the columns are {', '.join(map(str, var.columns)) or 'none'}."
        )
    names = var.index.astype(str)
    keys = [gene_key] if gene_key not in ("auto", "none") else []
    if gene_key == "auto" and _share(names, _ID) > 0.5:
        keys = [key for key in GENE_SYMBOLS if key in var and not pd.api.types.is_numeric_dtype(var[key])]
    if keys:
        symbols = var[keys[0]].astype(object)
        known = symbols.notna() & (symbols.astype(str).str.strip() != "")
        log.info("Gene names: var[%r]; %d genes without one keep their id.", keys[0], (~known).sum())
        names = pd.Index(symbols.astype(str).where(known, names))
    if _share(names, _NUMBERED) > 0.9:
        log.warning("The genes have numbers such as %s instead of names; markers are listed by number.", names[0])
    return ad.utils.make_index_unique(pd.Index(names, name=None))


def _share(names: pd.Index, pattern: re.Pattern[str]) -> float:
    """Return the share of the names that match a pattern as a whole."""
    return float(np.mean([pattern.fullmatch(name) is not None for name in names]))


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
    One row per cluster of more than one cell. Columns: name (the type with the best score, 'unknown' if none is above
    0), score, runner_up, margin (between the two; NaN for a single type), and 'score of TYPE' for each type.
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
    named = pd.DataFrame(
        {
            "name": np.where(best[:, 0] > 1e-6, scores.columns[ordered[:, 0]], "unknown"),
            "score": best[:, 0],
            "runner_up": scores.columns[ordered[:, 1]] if several else "",
            "margin": best[:, 0] - best[:, 1] if several else np.nan,
        },
        index=scores.index,
    )
    return named.join(scores.add_prefix("score of ")).rename_axis("cluster")
