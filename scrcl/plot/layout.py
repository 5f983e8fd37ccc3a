"""Lay cells out in two dimensions for figures. Nothing is clustered on it."""

from __future__ import annotations

import anndata as ad
import numpy as np
import scanpy as sc

from scrcl.annotate import NEIGHBORS, graph_among, rows_among
from scrcl.keys import OURS, UMAP
from scrcl.messages import log

UMAP_ON = 50_000  # cells; its layout takes one thread where it is to be repeatable


def add_umap(cells: ad.AnnData, use_rep: str = OURS.embedding) -> None:
    """Write obsm['X_umap'] of obsm[use_rep], with scanpy's neighbours in obsp['distances'] and obsp['connectivities'].

    Of more than 50,000 cells, a random 50,000 are laid out; the others have NaN, and no neighbours.
    """
    if cells.n_obs <= UMAP_ON:
        sc.pp.neighbors(cells, n_neighbors=min(15, cells.n_obs - 1), use_rep=use_rep, random_state=0)
        sc.tl.umap(cells, random_state=0)
        return
    log.info("The UMAP is of %d cells drawn at random; it would take hours for all.", UMAP_ON)
    drawn = np.sort(np.random.default_rng(0).choice(cells.n_obs, UMAP_ON, replace=False))
    part = ad.AnnData(obsm={use_rep: cells.obsm[use_rep][drawn]})
    add_umap(part, use_rep)
    cells.obsm[UMAP] = rows_among(part.obsm[UMAP], drawn, cells.n_obs)
    for name in NEIGHBORS:
        cells.obsp[name] = graph_among(part.obsp[name], drawn, cells.n_obs)
    cells.uns["neighbors"] = part.uns["neighbors"]
