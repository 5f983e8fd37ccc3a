"""Tell genes from what else a matrix may count: antibodies, hashtags, guides, controls of a platform, spike-ins."""

from __future__ import annotations

import re
from typing import Literal

import numpy as np
import pandas as pd

from scrcl.keys import FEATURE_TYPES
from scrcl.messages import log

Features = Literal["genes", "all"]
GENES = ("gene expression", "gene", "rna", "gex")  # in the words of 10x, cellxgene and muon
OTHERS = (
    *("antibody capture", "crispr guide capture", "multiplexing capture", "antigen capture", "custom", "peaks"),
    *("protein expression", "protein", "prot", "adt", "hto", "spike-in", "negative control probe", "genomic control"),
    *("negative control codeword", "unassigned codeword", "blank codeword", "deprecated codeword"),
)
# Names that are no gene's. Case matters where it tells hashtags from genes of the worm, such as adt-1.
_NO_GENE = re.compile(
    r"(?i:neg(ative)?_?control\w*[-_. ].*|(unassigned|deprecated|blank)_?codeword[-_. ].*|blank[-_. ]?\d+"  # Xenium
    r"|antisense[-_. ].+|intergenic[-_. ].*"
    r"|(negprb|negative|systemcontrol|falsecode)[-_. ]?\d+.*"  # CosMx
    r"|ercc-\d{5}|.*totalseq.*|hashtag.*|.*isotype.*"
    r"|.*[-_.](adt|hto|protein|prot|antibody|ab))"
    r"|(ADT|HTO|CMO|AB|PROT)[-_:.].+|(adt|hto|cmo|ab|prot)[_:].+|CMO3\d\d|(sgRNA|gRNA|crispr|CRISPR)[-_:.].+"
)


def are_genes(var: pd.DataFrame, features: Features = "genes") -> np.ndarray:
    """Return which features of a matrix are genes, and say so where some are not.

    A column of feature types decides, for the features it names, and otherwise their names. Where no gene would be
    left, or names would take away most, all features are kept.

    Parameters
    ----------
    var
        The table of the features.
    features
        'genes', or 'all' to keep all.

    Returns
    -------
    [G] booleans.
    """
    if features == "all":
        return np.ones(len(var), dtype=bool)
    types = _types(var)
    named = np.array([_NO_GENE.fullmatch(name) is not None for name in map(str, var.index)], dtype=bool)
    named &= types.isna().to_numpy()
    if named.mean() > 0.5:
        named[:] = False
    if types.isin(GENES).any():
        by_type = (types.notna() & ~types.isin(GENES)).to_numpy()
    else:
        by_type = types.isin(OTHERS).to_numpy()
    genes = ~(by_type | named)
    if not genes.any():
        return np.ones(len(var), dtype=bool)
    if not genes.all():
        given = var[_key(var)].astype(str) if by_type.any() else types
        parts = [f"{n} {name}" for name, n in given[by_type].value_counts().items()]
        if named.any():
            parts.append(f"{named.sum()} by name, such as {var.index[named][0]}")
        log.info(
            "%d of %d features are no genes (%s): left out; --features all keeps them.",
            (~genes).sum(),
            len(var),
            ", ".join(parts),
        )
    return genes


def _key(var: pd.DataFrame) -> str | None:
    """Return the column of feature types, or None."""
    return next((key for key in FEATURE_TYPES if key in var), None)


def _types(var: pd.DataFrame) -> pd.Series:
    """Return the type of every feature in lower case, missing where it is not known."""
    key = _key(var)
    if key is None:
        return pd.Series(None, index=var.index, dtype=object)
    return var[key].astype(object).map(lambda value: str(value).strip().lower(), na_action="ignore")
