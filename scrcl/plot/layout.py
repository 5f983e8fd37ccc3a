"""Lay cells out in two dimensions for figures; nothing is clustered on this layout."""

from __future__ import annotations

import anndata as ad
import numpy as np
import scanpy as sc

from scrcl.annotate import NEIGHBORS, graph_among, rows_among
from scrcl.keys import OURS, UMAP
from scrcl.messages import log
from scrcl.runtime import compiled_once

UMAP_ON = 50_000  # most cells laid out; a repeatable layout runs in one thread


def add_umap(cells: ad.AnnData, use_rep: str = OURS.embedding) -> None:
    """Write a UMAP and scanpy's neighbours, on which it is based.

    Of more than 50,000 cells, a random 50,000 are laid out. The others have NaN, and no neighbours.

    Parameters
    ----------
    cells
        Written are obsm['X_umap'], obsp['distances'], obsp['connectivities'] and uns['neighbors'].
    use_rep
        The key of obsm to lay out.
    """
    if OURS.parameters in cells.uns:
        cells.uns[OURS.parameters]["umap"] = UMAP
    if cells.n_obs <= UMAP_ON:
        with compiled_once("umap"):
            sc.pp.neighbors(cells, n_neighbors=min(15, cells.n_obs - 1), use_rep=use_rep, random_state=0)
            sc.tl.umap(cells, random_state=0)
        return
    log.info("The UMAP shows %d random cells; all of them would take hours.", UMAP_ON)
    drawn = np.sort(np.random.default_rng(0).choice(cells.n_obs, UMAP_ON, replace=False))
    part = ad.AnnData(obsm={use_rep: cells.obsm[use_rep][drawn]})
    add_umap(part, use_rep)
    cells.obsm[UMAP] = rows_among(part.obsm[UMAP], drawn, cells.n_obs)
    for name in NEIGHBORS:
        cells.obsp[name] = graph_among(part.obsp[name], drawn, cells.n_obs)
    cells.uns["neighbors"] = part.uns["neighbors"]
