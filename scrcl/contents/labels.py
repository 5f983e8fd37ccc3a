"""Find the known labels in an AnnData.

Known labels score a finished result and may give its number of clusters. They are used for nothing else.
"""

from __future__ import annotations

import logging

import pandas as pd

from scrcl.keys import LABELS_OF_CELLS
from scrcl.messages import UserError, log

# Words for a label that is not known, or a cell that is none, in lower case and letters alone
NO_LABEL = (
    *("na", "nan", "none", "null", "nil", "missing", "unknown", "unk", "unkown", "unassigned", "notassigned"),
    *("unlabeled", "unlabelled", "unannotated", "notannotated", "unclassified", "undefined", "undetermined"),
    *("uncertain", "ambiguous", "unspecified", "notavailable", "notapplicable", "notdetermined", "nd", "filtered"),
    *("doublet", "doublets", "multiplet", "multiplets", "lowquality", "lowqualitycells", "debris", "emptydroplet"),
)


def find_labels(
    obs: pd.DataFrame, label_key: str = "auto", usual: tuple[str, ...] = LABELS_OF_CELLS, say: bool = True
) -> pd.Series | None:
    """Return the known labels of the cells as strings, or None where there are none.

    Words such as NA, unknown, unassigned and doublet are no labels. Labels of a single type are none either, since they
    tell nothing apart.

    Parameters
    ----------
    obs
        The table of the cells; one of its columns may hold known labels.
    label_key
        A column of obs, 'none', or 'auto' for the first of the usual columns that holds any label.
    usual
        The columns that 'auto' looks at, in this order; for cells cell_type1, celltype and cell_type.
    say
        Whether to log what is not taken for a label.

    Returns
    -------
    [N] strings, missing where a label is unknown. None where label_key is 'none' or no column holds labels.

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
    return next((labels for key in keys if (labels := _known(obs[key], say)) is not None), None)


def _known(column: pd.Series, say: bool) -> pd.Series | None:
    """Return the labels in a column, or None where they tell nothing apart."""
    level = logging.INFO if say else logging.DEBUG
    labels = as_text(column)
    words = labels.dropna().unique()
    unknown = [word for word in words if _plain(word) in NO_LABEL or not _plain(word) and not _has_digit(word)]
    if unknown:
        missing = labels.isin(unknown)
        said = ", ".join(map(repr, unknown[:5]))
        told = "obs[%r]: %d of %d labels say %s: taken as missing."
        log.log(level, told, column.name, missing.sum(), len(labels), said)
        labels = labels.where(~missing, None)
    n_types = labels.nunique()
    if n_types == 1:
        told = "obs[%r] has the single label %r, which tells no cells apart: not used."
        log.log(level, told, column.name, labels.dropna().iloc[0])
    return labels if n_types > 1 else None


def _plain(label: str) -> str:
    """Return a label in lower case and without anything but letters."""
    return "".join(letter for letter in label.lower() if letter.isalpha()) if not _has_digit(label) else label


def _has_digit(label: str) -> bool:
    """Return whether a label has a digit, as numbered clusters do."""
    return any(letter.isdigit() for letter in label)


def as_text(column: pd.Series) -> pd.Series:
    """Return any column as strings, whole numbers without a decimal point.

    A value is missing in the result where it is missing, empty or 'nan' in the column.
    """
    labels = column.astype(object)
    if pd.api.types.is_float_dtype(column.dtype) and (column.dropna() % 1 == 0).all():
        labels = column.astype("Int64").astype(object)  # pandas reads whole numbers with gaps as floats
    labels = labels.where(labels.notna(), None).map(str, na_action="ignore")
    return labels.where(~labels.isin(["", "nan", "NaN", "<NA>"]), None)
