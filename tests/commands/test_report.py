"""Tables of the report."""

from __future__ import annotations

import numpy as np
import pandas as pd

from scrcl.commands import report


def test_cells_of_a_table():
    frame = pd.DataFrame({"gene": ["<b>", None], "in cluster": [0.5, np.nan], "n": pd.array([3, None], dtype="Int64")})
    shown = report.table(frame)
    assert shown["columns"] == [("gene", False), ("in cluster", True), ("n", True)]
    assert [cell.text for row in shown["rows"] for cell in row] == ["<b>", "50.0%", "3", "", "", ""]
    assert [cell.value for cell in shown["rows"][0]] == ["<b>", "0.5", "3.0"]
