"""Find the known labels in an AnnData.

Known labels score a finished result and may give its number of clusters. They are used for nothing else.
"""

from __future__ import annotations

import pandas as pd

from scrcl.keys import LABELS_OF_CELLS
from scrcl.messages import UserError


def find_labels(
    obs: pd.DataFrame, label_key: str = "auto", usual: tuple[str, ...] = LABELS_OF_CELLS
) -> pd.Series | None:
    """Return the known labels of the cells as strings, or None where there are none.

    Parameters
    ----------
    obs
        The table of the cells; one of its columns may hold known labels.
    label_key
        A column of obs, 'none', or 'auto' for the first of the usual columns that holds any label.
    usual
        The columns that 'auto' looks at, in this order; for cells cell_type1, celltype and cell_type.

    Returns
    -------
    [N] strings, missing where a label is unknown. None where label_key is 'none' or no column holds a label.

    Raises
    ------
    UserError
        When label_key names a column that is not in obs.
    """
    if label_key == "none":
        return None
    if label_key != "auto" and label_key not in obs:
        raise UserError(
            f"There is no obs column {label_key!r} to take labels from; "
            f"the columns are {', '.join(map(str, obs.columns)) or 'none'}."
        )
    keys = [label_key] if label_key != "auto" else [name for name in usual if name in obs]
    return next((labels for labels in (as_text(obs[key]) for key in keys) if labels.notna().any()), None)


def as_text(column: pd.Series) -> pd.Series:
    """Return any column as strings, whole numbers without a decimal point.

    A value is missing in the result where it is missing, empty or 'nan' in the column.
    """
    labels = column.astype(object)
    if pd.api.types.is_float_dtype(column.dtype) and (column.dropna() % 1 == 0).all():
        labels = column.astype("Int64").astype(object)  # pandas reads whole numbers with gaps as floats
    labels = labels.where(labels.notna(), None).map(str, na_action="ignore")
    return labels.where(~labels.isin(["", "nan", "NaN", "<NA>"]), None)
