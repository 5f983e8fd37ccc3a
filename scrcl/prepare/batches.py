"""Take out what differs between batches of cells: donors, protocols, days, slides."""

from __future__ import annotations

import numpy as np
import pandas as pd
import scanpy as sc
import torch
from sklearn.cluster import KMeans

from scrcl.messages import UserError, did_you_mean, log
from scrcl.prepare.genes import MAX_SCALED
from scrcl.runtime import limited_threads

FEWEST = 10  # cells of a batch
CELLS_PER_GROUP, MOST_GROUPS = 30, 50  # groups of like cells, within which batches are compared


def batches_of(obs: pd.DataFrame, key: str) -> pd.Series | None:
    """Return the batch of every cell as strings; None where there is no key, or a single batch.

    Parameters
    ----------
    obs
        The table of the cells.
    key
        A column of it, or 'none'.

    Raises
    ------
    UserError
        When there is no such column, or it has missing values or a batch of very few cells.
    """
    if key == "none":
        return None
    if key not in obs:
        near = did_you_mean(key, map(str, obs))
        raise UserError(
            f"There is no obs column {key!r} for --batch-key{near}; the columns are {', '.join(map(str, obs))}."
        )
    if obs[key].isna().any():
        raise UserError(f"The batch of {obs[key].isna().sum()} cells is missing in obs[{key!r}]; fill it in.")
    batches = obs[key].astype(str)
    sizes = batches.value_counts()
    if len(sizes) == 1:
        log.warning("All cells are of one batch (%s), so --batch-key has no effect.", sizes.index[0])
        return None
    if sizes.iloc[-1] < FEWEST:
        raise UserError(
            f"The batch {sizes.index[-1]!r} of obs[{key!r}] has {sizes.iloc[-1]} cells; at least {FEWEST} are "
            "needed, so leave these cells out, or name another column."
        )
    return batches


def corrected_points(points: np.ndarray, batches: pd.Series) -> np.ndarray:
    """Return PCs without what differs between batches, by Harmony (Korsunsky et al. 2019, Nature Methods).

    Parameters
    ----------
    points
        [N, d], the PCs.
    batches
        [N].

    Returns
    -------
    [N, d] float32.

    Raises
    ------
    UserError
        When harmonypy is not installed.
    """
    try:
        from harmonypy import run_harmony
    except ImportError as error:
        raise UserError("--batch-key needs harmonypy; `pip install harmonypy`.") from error
    table = pd.DataFrame({"batch": batches.to_numpy()})
    found = run_harmony(points, table, ["batch"], verbose=False, random_state=0, ncores=torch.get_num_threads())
    return np.ascontiguousarray(found.Z_corr, dtype=np.float32)


def corrected_values(values: np.ndarray, points: np.ndarray, batches: pd.Series) -> np.ndarray:
    """Return standardised genes without what differs between batches among cells that are alike, standardised anew.

    Parameters
    ----------
    values, points, batches
        As for `without_effects`.

    Returns
    -------
    [N, G] float32.
    """
    left = without_effects(values, points, batches)
    return np.asarray(sc.pp.scale(left, zero_center=True, max_value=MAX_SCALED, copy=True), dtype=np.float32)


@limited_threads(1)  # so that the order of sums does not depend on the number of threads
def without_effects(values: np.ndarray, points: np.ndarray, batches: pd.Series) -> np.ndarray:
    """Return standardised genes without what differs between batches among cells that are alike.

    For each gene a model value = group + batch is fitted, with groups of cells near each other in `points`. The batch's
    part is taken out. So a batch that has more cells of a type keeps that, unlike with standardisation within batches.

    Parameters
    ----------
    values
        [N, G], genes of zero mean and unit variance.
    points
        [N, d], PCs that `corrected_points` returned.
    batches
        [N].

    Returns
    -------
    [N, G], no longer of unit variance.
    """
    n_groups = int(np.clip(len(points) // CELLS_PER_GROUP, 2, MOST_GROUPS))
    groups = KMeans(n_groups, n_init=3, random_state=0).fit_predict(points)
    codes, names = pd.factorize(batches, sort=True)
    design = np.hstack([np.eye(n_groups)[groups], np.eye(len(names))[codes]])
    # One of the columns follows from the others; the small ridge on the batches makes the solution unique.
    ridge = np.diag([1e-8] * n_groups + [1e-3] * len(names))
    effects = np.linalg.solve(design.T @ design + ridge, design.T @ values)[n_groups:]
    effects -= effects.mean(axis=0)
    return values - effects[codes].astype(values.dtype)
