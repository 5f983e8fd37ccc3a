"""Join several samples into one AnnData."""

from __future__ import annotations

from collections.abc import Mapping

import anndata as ad

from scrcl.messages import UserError, log

SAMPLE = "sample"  # obs: the sample of a cell, where there are several
SHOWN = 5  # samples that a message names


def join_samples(samples: Mapping[str, ad.AnnData], where: object) -> ad.AnnData:
    """Put the cells of several samples below each other, with the genes that all of them have.

    Genes are joined by gene_ids where all samples have them, since the same symbol may stand for two ids; and by name
    where more genes are shared so.

    Parameters
    ----------
    samples
        Cells x genes by the name of the sample; their var_names are changed.
    where
        The folder, as named in messages.

    Returns
    -------
    All cells, with obs['sample'], and barcodes that end in a hyphen and the sample's name.

    Raises
    ------
    UserError
        When the samples share no gene.
    """
    _name_by_ids(samples)
    parts = list(samples.values())
    joined = ad.concat(samples, join="inner", label=SAMPLE, index_unique="-", merge="first")
    named = ", ".join([*list(samples)[:SHOWN], *(["..."] if len(samples) > SHOWN else [])])
    if joined.n_vars == 0:
        raise UserError(
            f"The samples in {where} ({named}) have no gene in common; name one of them, or move those of another kind."
        )
    if "_symbols" in joined.var:
        joined.var_names = joined.var.pop("_symbols").astype(str).rename(None)
        joined.var_names_make_unique()
    log.info("%s holds %d samples with %d cells in all: %s.", where, len(parts), joined.n_obs, named)
    n_genes = len(set().union(*(part.var_names for part in parts)))
    if n_genes > joined.n_vars:
        log.info("The samples differ in their genes: the %d of %d that all have are read.", joined.n_vars, n_genes)
    return joined


def _name_by_ids(samples: Mapping[str, ad.AnnData]) -> None:
    """Name genes by their ids, and keep the symbols, where ids join at least as many genes as symbols do."""
    parts = list(samples.values())
    if not all("gene_ids" in part.var and part.var["gene_ids"].is_unique for part in parts):
        return
    by_id = set.intersection(*(set(part.var["gene_ids"]) for part in parts))
    if len(by_id) >= len(set.intersection(*(set(part.var_names) for part in parts))):
        for part in parts:
            part.var["_symbols"] = part.var_names.to_numpy()
            part.var_names = part.var["gene_ids"].astype(str).to_numpy()
