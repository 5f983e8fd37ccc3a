"""Peer methods, each in the few lines that its documentation gives; `benchmarks.peers` runs this file.

    python -I benchmarks/peer_methods.py METHOD cells.h5ad labels.csv N_CLUSTERS SEED

It runs where the method is installed, so it imports nothing of this repository, and a method only once it is asked for.
The file of cells has counts in X, the names of the genes and, for tissue, obsm['spatial']. Labels come in a column per
way of clustering. mclust's model 'EEE' needs R, so a Gaussian mixture of tied covariance, the same model, stands in.
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture

Labels = dict[str, np.ndarray]  # [N] by way of clustering
HVGS = 2000


def mixture(points: np.ndarray, n_clusters: int, seed: int) -> np.ndarray:
    """The likeliest of ten Gaussian mixtures of tied covariance."""
    model = GaussianMixture(n_clusters, covariance_type="tied", n_init=10, max_iter=200, random_state=seed)
    return model.fit_predict(np.asarray(points, dtype=np.float64))


def leiden(cells: ad.AnnData, points: str, n_clusters: int, seed: int) -> np.ndarray:
    """Leiden on scanpy's neighbours at the resolution that comes closest to a number of clusters, found by halving."""
    sc.pp.neighbors(cells, use_rep=points, random_state=seed)
    low, high, found = 0.0, 5.0, []
    for _ in range(20):
        how = {"resolution": (low + high) / 2, "random_state": seed}
        sc.tl.leiden(cells, flavor="igraph", n_iterations=2, directed=False, **how)
        found.append(cells.obs["leiden"].to_numpy())
        n_found = len(np.unique(found[-1]))
        if n_found == n_clusters:
            break
        low, high = (how["resolution"], high) if n_found < n_clusters else (low, how["resolution"])
    return min(found, key=lambda labels: abs(len(np.unique(labels)) - n_clusters))


def scanpy(cells: ad.AnnData, n_clusters: int, seed: int) -> Labels:
    """Normalise, take logarithms, choose genes, scale, PCA, neighbours, Leiden."""
    sc.pp.normalize_total(cells, target_sum=1e4)
    sc.pp.log1p(cells)
    sc.pp.highly_variable_genes(cells, n_top_genes=HVGS)
    cells = cells[:, cells.var["highly_variable"]].copy()
    sc.pp.scale(cells, max_value=10)
    sc.pp.pca(cells, random_state=seed)
    return {"scanpy": leiden(cells, "X_pca", n_clusters, seed)}


def latent(cells: ad.AnnData, seed: int, **how: bool) -> np.ndarray:
    """The latent space of an scVI model with the library's own settings."""
    import scvi

    scvi.settings.seed = seed
    sc.pp.filter_genes(cells, min_counts=3)
    sc.pp.highly_variable_genes(cells, n_top_genes=min(HVGS, cells.n_vars), flavor="seurat_v3")
    cells = cells[:, cells.var["highly_variable"]].copy()
    scvi.model.SCVI.setup_anndata(cells)
    model = scvi.model.SCVI(cells)
    model.train(accelerator="cpu", enable_progress_bar=False, **how)
    return model.get_latent_representation()


def scvi(cells: ad.AnnData, n_clusters: int, seed: int) -> Labels:
    """The latent space of scVI, clustered in two ways."""
    cells.obsm["X_scVI"] = latent(cells.copy(), seed)
    return {
        "scVI + Leiden": leiden(cells, "X_scVI", n_clusters, seed),
        "scVI + tied GMM": mixture(cells.obsm["X_scVI"], n_clusters, seed),
    }


def cellcharter(spots: ad.AnnData, n_clusters: int, seed: int) -> Labels:
    """scVI's latent space beside its means over three rings of neighbours, and CellCharter's mixture."""
    import cellcharter as cc
    import squidpy as sq

    spots.obsm["X_scVI"] = latent(spots.copy(), seed, early_stopping=True)
    sq.gr.spatial_neighbors(spots, coord_type="generic", delaunay=True)
    cc.gr.remove_long_links(spots)
    cc.gr.aggregate_neighbors(spots, n_layers=3, use_rep="X_scVI")
    model = cc.tl.Cluster(n_clusters=n_clusters, random_state=seed, trainer_params={"accelerator": "cpu"})
    model.fit(spots, use_rep="X_cellcharter")
    components = PCA(20, random_state=seed).fit_transform(spots.obsm["X_cellcharter"])
    return {
        "CellCharter": model.predict(spots, use_rep="X_cellcharter"),
        "CellCharter + tied GMM": mixture(components, n_clusters, seed),
    }


def nichepca(spots: ad.AnnData, n_clusters: int, seed: int) -> Labels:
    """PCs of means over the 25 nearest spots, which the documentation advises for brain."""
    import nichepca as npc

    npc.wf.nichepca(spots, knn=25)
    sc.pp.neighbors(spots, use_rep="X_npca", random_state=seed)
    npc.cl.leiden_with_nclusters(spots, n_clusters, seed=seed, random_state=seed)
    return {
        "NichePCA + Leiden": spots.obs["leiden"],
        "NichePCA + tied GMM": mixture(spots.obsm["X_npca"], n_clusters, seed),
    }


def banksy(spots: ad.AnnData, n_clusters: int, seed: int) -> Labels:
    """BANKSY's matrix for domains (lambda .8) and its own Leiden, with its own search for the resolution."""
    from banksy.cluster_methods import run_Leiden_partition
    from banksy.embed_banksy import generate_banksy_matrix
    from banksy.initialize_banksy import initialize_banksy
    from banksy_utils.filter_utils import filter_hvg, normalize_total
    from banksy_utils.umap_pca import pca_umap

    spots, _ = filter_hvg(normalize_total(spots), n_top_genes=min(HVGS, spots.n_vars))
    spots = ad.AnnData(spots.X.toarray(), obs=spots.obs, var=spots.var, obsm=spots.obsm)
    unseen = {"plt_edge_hist": False, "plt_nbr_weights": False, "plt_theta": False}
    graphs = initialize_banksy(spots, ("x", "y", "spatial"), num_neighbours=15, max_m=1, **unseen)
    found, _ = generate_banksy_matrix(spots, graphs, [0.8], max_m=1, verbose=False)
    pca_umap(found, pca_dims=[20], plt_remaining_var=False)
    table, _ = run_Leiden_partition(found, [], max_labels=n_clusters, partition_seed=seed, match_labels=False)
    components = found["scaled_gaussian"][0.8]["adata"].obsm["reduced_pc_20"]
    return {
        "BANKSY + Leiden": table["labels"].iloc[0].dense,
        "BANKSY + tied GMM": mixture(components, n_clusters, seed),
    }


def graphst(spots: ad.AnnData, n_clusters: int, seed: int) -> Labels:
    """GraphST's embedding, its 20 PCs clustered, and its own refinement of the labels over 50 spots."""
    from GraphST.GraphST import GraphST
    from GraphST.utils import refine_label

    spots = GraphST(spots, random_seed=seed).train()
    components = PCA(20, random_state=42).fit_transform(spots.obsm["emb"])
    spots.obs["domain"] = mixture(components, n_clusters, seed).astype(str)
    return {"GraphST + tied GMM": spots.obs["domain"], "GraphST + tied GMM, refined": refine_label(spots, key="domain")}


def stagate(spots: ad.AnnData, n_clusters: int, seed: int) -> Labels:
    """STAGATE's embedding on a graph of 6 neighbours, which its radius gives on Visium."""
    import STAGATE_pyG

    sc.pp.highly_variable_genes(spots, flavor="seurat_v3", n_top_genes=min(3000, spots.n_vars))
    sc.pp.normalize_total(spots, target_sum=1e4)
    sc.pp.log1p(spots)
    STAGATE_pyG.Cal_Spatial_Net(spots, k_cutoff=6, model="KNN")
    spots = STAGATE_pyG.train_STAGATE(spots, random_seed=seed, device="cpu")
    return {
        "STAGATE + Leiden": leiden(spots, "STAGATE", n_clusters, seed),
        "STAGATE + tied GMM": mixture(spots.obsm["STAGATE"], n_clusters, seed),
    }


METHODS = {f.__name__: f for f in (scanpy, scvi, cellcharter, nichepca, banksy, graphst, stagate)}


def peak_gib() -> float:
    """The most memory that this process has held; getrusage would count that of the process that started it too."""
    status = Path("/proc/self/status")  # Linux alone
    return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) / 2**20 if status.exists() else float("nan")


def main(method: str, cells: str, labels: str, n_clusters: str, seed: str) -> None:
    np.random.seed(int(seed))  # noqa: NPY002, for the methods that draw from it
    adata = ad.read_h5ad(cells)
    found = METHODS[method](adata.copy(), int(n_clusters), int(seed))
    table = pd.DataFrame({name: np.asarray(own) for name, own in found.items()}, index=adata.obs_names).astype(str)
    table.to_csv(labels)
    cost = {"seconds": round(time.process_time(), 1), "gib": round(peak_gib(), 2)}
    Path(labels).with_name("cost.json").write_text(json.dumps(cost))


if __name__ == "__main__":
    main(*sys.argv[1:])
