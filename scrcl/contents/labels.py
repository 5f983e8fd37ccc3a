"""Which known labels an AnnData holds. They score a finished result and may give its number of clusters, nothing else."""

from __future__ import annotations

import pandas as pd

from scrcl.keys import LABELS_OF_CELLS
from scrcl.messages import UserError


def find_labels(
    obs: pd.DataFrame, label_key: str = "auto", usual: tuple[str, ...] = LABELS_OF_CELLS
) -> pd.Series | None:
    """Known cell types as strings, missing where unknown; None where there are no labels.

    label_key: a column of obs, 'none', or 'auto' for the first of the usual names that
    holds any: of cell_type1, celltype and cell_type. Raises UserError for a column that is not there.
    """
    if label_key == "none":
        return None
    if label_key != "auto" and label_key not in obs:
        raise UserError(
            f"There is no obs column {label_key!r} to take labels from; the columns are {', '.join(map(str, obs.columns)) or 'none'}."
        )
    keys = [label_key] if label_key != "auto" else [name for name in usual if name in obs]
    return next((labels for labels in (as_text(obs[key]) for key in keys) if labels.notna().any()), None)


def as_text(column: pd.Series) -> pd.Series:
    """Any column as strings, whole numbers without a decimal point, missing where it is missing, empty or 'nan'."""
    labels = column.astype(object)
    if pd.api.types.is_float_dtype(column.dtype) and (column.dropna() % 1 == 0).all():
        labels = column.astype("Int64").astype(object)  # whole numbers with gaps are read as floats
    labels = labels.where(labels.notna(), None).map(str, na_action="ignore")
    return labels.where(~labels.isin(["", "nan", "NaN", "<NA>"]), None)
