"""Read the table of a SpatialData store: the zarr folder in which scverse's spatialdata keeps a tissue."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from scrcl.keys import LIBRARY, SPATIAL
from scrcl.messages import UserError, log, one_line

TABLES = ("tables", "table")  # the second up to spatialdata 0.0.15
MARKS = ("zarr.json", ".zgroup")  # of zarr 3 and 2
PLACES = ("shapes", "labels", "points")  # kinds of elements that a table can annotate
USUAL = "table"


def locate(path: Path) -> Path | None:
    """Return the folder itself when it is a zarr group with tables, else None."""
    is_group = any((path / mark).is_file() for mark in MARKS)
    return path if is_group and any((path / name).is_dir() for name in TABLES) else None


def files(path: Path) -> list[Path]:
    """Return the files of the tables."""
    return sorted(file for name in TABLES for file in (path / name).rglob("*") if file.is_file())


def read(path: Path, name: str = "", max_memory: float | None = None) -> ad.AnnData:
    """Read a table, and the positions of its cells.

    Of several tables it is the one called 'table', or the first by name. The positions are its obsm['spatial'], or else
    the centres of the shapes, labels or points that it annotates.

    Parameters
    ----------
    path
        The store.
    name, max_memory
        Not used: no image is read, and the table fits in memory.

    Returns
    -------
    Cells x features, X as in the table but CSR and float32. Where the table annotates several regions,
    obs['library_id'] tells them apart.

    Raises
    ------
    UserError
        When spatialdata is not installed, or the store is damaged.
    """
    try:
        import spatialdata
    except ImportError as error:
        raise UserError(
            f'{path} is a SpatialData store, which spatialdata reads: `pip install "scrcl[spatial]"` (or '
            "`pip install spatialdata`) and run again."
        ) from error
    tables = _elements(spatialdata, path, "tables").tables
    if not tables:
        raise UserError(f"The SpatialData store {path} has no table, so there are no counts.")
    chosen = USUAL if USUAL in tables else sorted(tables)[0]
    if len(tables) > 1:
        log.info("%s has the tables %s: %s is read.", path.name, ", ".join(sorted(tables)), chosen)
    adata = tables[chosen]
    marks = adata.uns.get("spatialdata_attrs", {})
    if SPATIAL not in adata.obsm and marks:
        try:
            _place(adata, spatialdata, path, marks)
        except (KeyError, ValueError, TypeError, AttributeError) as error:  # the elements are not as the table says
            raise UserError(
                f"The positions of the cells in {path} cannot be told ({one_line(error)}); write them to "
                f"obsm['spatial'] of its table {chosen}."
            ) from error
    region_key = marks.get("region_key")
    if region_key in adata.obs and adata.obs[region_key].nunique() > 1 and LIBRARY not in adata.obs:
        adata.obs[LIBRARY] = pd.Categorical(adata.obs[region_key].astype(str))
    if adata.X is not None:
        adata.X = sparse.csr_matrix(adata.X, dtype=np.float32)
    return adata


def _elements(spatialdata: Any, path: Path, *kinds: str) -> Any:
    """Read the elements of some kinds only; images and transcripts are large."""
    try:
        with warnings.catch_warnings():  # of elements that were not asked for, and of earlier versions of the format
            warnings.filterwarnings("ignore", module=r"(spatialdata|ome_zarr|zarr|anndata)")
            return spatialdata.read_zarr(path, selection=kinds)
    except Exception as error:  # zarr, anndata and geopandas raise many types for damaged stores
        raise UserError(
            f"{path} cannot be read as a SpatialData store ({one_line(error)}); download or copy it again."
        ) from error


def _place(adata: ad.AnnData, spatialdata: Any, path: Path, marks: dict[str, Any]) -> None:
    """Write the centres of the elements that a table annotates to obsm['spatial'], NaN where there is none."""
    regions = adata.obs[marks["region_key"]].astype(str)
    instances = adata.obs[marks["instance_key"]]
    points = np.full((adata.n_obs, 2), np.nan)
    for region in regions.unique():
        kind = next((kind for kind in PLACES if (path / kind / region).is_dir()), None)
        if kind is None:
            log.warning("%s has no element %s, so the cells that belong to it have no position.", path.name, region)
            continue
        element = _elements(spatialdata, path, kind)[region]
        systems = spatialdata.transformations.get_transformation(element, get_all=True)
        centres = spatialdata.get_centroids(element, "global" if "global" in systems else next(iter(systems)))
        own = (regions == region).to_numpy()
        points[own] = centres.compute()[["x", "y"]].reindex(instances[own]).to_numpy()
    adata.obsm[SPATIAL] = points
