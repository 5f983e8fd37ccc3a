"""Lay cells out in two dimensions for figures; nothing is clustered on this layout."""

from __future__ import annotations

from contextlib import suppress

import anndata as ad
import numpy as np
import scanpy as sc

from scrcl.annotate import NEIGHBORS, graph_among, rows_among
from scrcl.keys import OURS, UMAP
from scrcl.messages import log

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
        _keep_what_is_compiled()
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


def _keep_what_is_compiled() -> None:
    """Let numba keep on disk what it compiles of umap-learn, for the next run: 3 to 4 seconds, however few the cells.

    umap-learn does not ask for it, and a run uses each of these functions once.
    """
    from umap import layouts, umap_  # takes seconds itself, so only where a UMAP is made

    with suppress(AttributeError, RuntimeError):  # another version, or no folder that numba may write to
        for function in (
            umap_.smooth_knn_dist,
            umap_.compute_membership_strengths,
            layouts._nb_optimize_layout_euclidean_single_epoch,
        ):
            function.enable_caching()
