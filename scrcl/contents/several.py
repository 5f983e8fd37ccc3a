"""Find out whether spots belong to several sections, and which column of obs tells these apart."""

from __future__ import annotations

import re
from collections.abc import Mapping

import anndata as ad
import numpy as np
import pandas as pd
from scipy.spatial import KDTree

from scrcl.keys import LIBRARY, SECTION_COLUMNS, SPATIAL, SPOT_GRID
from scrcl.messages import UserError, log

MANY = 0.1  # share of spots at the same place as another, or nearest to one of another section, that is no accident
FEWEST_SPOTS = 3  # of a section


def section_key(adata: ad.AnnData, asked: str) -> str:
    """Return the obs column that tells the sections apart, or 'none' where all spots are in one section.

    With 'auto', library_id is taken where it has several values. Any other column of a usual name is taken where there
    is a reason: many spots lie at the same place and the column tells them apart, the spots of its values lie among
    each other, or uns['spatial'] holds an image for each of its values.

    Parameters
    ----------
    adata
        Spots x genes, with obsm['spatial'] and perhaps images in uns['spatial'].
    asked
        A column of obs, 'none' or 'auto'.

    Raises
    ------
    UserError
        When the spots belong to several sections, which no usual column tells apart; also when the column asked for is
        not in obs or has missing values.
    """
    obs = adata.obs
    if asked not in ("auto", "none") and asked not in obs:
        raise UserError(
            f"There is no obs column {asked!r} to tell sections apart; the columns are {', '.join(map(str, obs))}."
        )
    if asked == "auto" and LIBRARY in obs and obs[LIBRARY].nunique() > 1:
        asked = LIBRARY
    if asked not in ("auto", "none") and obs[asked].isna().any():
        raise UserError(f"The section of {obs[asked].isna().sum()} spots is missing in obs[{asked!r}]; fill it in.")
    if asked != "auto":
        return asked
    images = adata.uns.get(SPATIAL)
    names = list(map(str, images)) if isinstance(images, Mapping) else []
    found = _found(adata, names)
    if found is None:
        _refuse_several(adata, names)
        return "none"
    key, reason = found
    log.info(
        "obs[%r] tells %d sections apart (%s); --section-key names another column, or none.",
        key,
        obs[key].nunique(),
        reason,
    )
    return key


def _found(adata: ad.AnnData, images: list[str]) -> tuple[str, str] | None:
    """Return the column of a usual name that tells sections apart, and the reason to take it."""
    usual = _usual_columns(adata.obs)
    crowded = _share_at_same_place(adata) > MANY
    for key in sorted(usual, key=lambda key: not set(images) <= set(adata.obs[key].astype(str))):
        groups = adata.obs[key].astype(str)
        if crowded and _share_at_same_place(adata, groups) <= MANY:
            return key, "spots of different sections lie at the same place"
        if len(images) > 1 and groups.nunique() == len(images):
            return key, f"as many as uns['spatial'] has images: {', '.join(images)}"
        if not crowded and _share_among_others(adata.obsm[SPATIAL], groups) > MANY:
            return key, "their spots lie among each other"
    return None


def _refuse_several(adata: ad.AnnData, images: list[str]) -> None:
    """Raise UserError when there is more than one section for all that can be seen."""
    share = _share_at_same_place(adata)
    if share <= MANY and len(images) < 2:
        return
    useful = [key for key in adata.obs if _could_tell(adata, key)] if share > MANY else _columns_of_groups(adata.obs)
    advice = f"name the obs column that does by --section-key ({', '.join(useful[:5])})" if useful else (
        "add a column to obs that does, and name it by --section-key"
    )  # fmt: skip
    seen = f"{share:.0%} of the spots lie where another one lies" if share > MANY else (
        f"uns['spatial'] holds the images of {len(images)} sections ({', '.join(images[:5])})"
    )  # fmt: skip
    raise UserError(
        f"{seen}, so there are several sections, and nothing tells which spot is in which; {advice}. "
        "--section-key none takes all for one section."
    )


def _usual_columns(obs: pd.DataFrame) -> list[str]:
    """Return the columns that tell sections apart by their name, in the order of `keys.SECTION_COLUMNS`."""
    by_plain_name = {re.sub(r"[^a-z]", "", str(key).lower()): key for key in _columns_of_groups(obs)}
    return [by_plain_name[name] for name in SECTION_COLUMNS if name in by_plain_name]


def _columns_of_groups(obs: pd.DataFrame) -> list[str]:
    """Return the columns that divide all spots into groups of some size."""
    return [key for key in obs if obs[key].notna().all() and 2 <= obs[key].nunique() <= len(obs) / FEWEST_SPOTS]


def _could_tell(adata: ad.AnnData, key: str) -> bool:
    """Return whether a column divides the spots so that no two of a group lie at the same place."""
    return key in _columns_of_groups(adata.obs[[key]]) and _share_at_same_place(adata, adata.obs[key].astype(str)) == 0


def _share_at_same_place(adata: ad.AnnData, groups: pd.Series | None = None) -> float:
    """Return the share of the spots that have the place of another spot of the same group.

    Places are the positions or, where more coincide, rows and columns of the grid.
    """
    own = {} if groups is None else {"group": groups.to_numpy()}
    positions = pd.DataFrame(np.asarray(adata.obsm[SPATIAL])).assign(**own)
    grid = [key for key in SPOT_GRID if key in adata.obs and key != "in_tissue"]
    tables = [positions] + [adata.obs[grid].assign(**own)] * (len(grid) == 2)
    return max(float(table.duplicated(keep=False).mean()) for table in tables)


def _share_among_others(places: np.ndarray, groups: pd.Series) -> float:
    """Return the share of the spots whose nearest spot is of another group."""
    _, nearest = KDTree(places).query(places, k=2)
    other = np.where(nearest[:, 0] == np.arange(len(places)), nearest[:, 1], nearest[:, 0])
    names = groups.to_numpy()
    return float((names != names[other]).mean())
