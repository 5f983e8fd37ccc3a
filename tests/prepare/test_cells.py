"""Preparing cells: long rows of few cells are shortened."""

from __future__ import annotations

import numpy as np
from conftest import simulate

from scrcl.prepare import cells
from scrcl.recipes import CellSettings
from scrcl.runtime import Stopwatch


def test_long_rows_by_hand():
    """Lengths 1, 2 and 8, of which 2 is the median: divided by sqrt(1 + 16), sqrt(4 + 16), sqrt(64 + 16)."""
    points = np.array([[0.6, 0.8], [2.0, 0.0], [0.0, -8.0]])
    assert np.allclose(cells.long_rows_shortened(points), points / np.sqrt([[17.0], [20.0], [80.0]]))
    assert not cells.long_rows_shortened(np.zeros((3, 2))).any()


def test_few_cells_are_clustered_without_long_rows(fast, monkeypatch):
    settings = CellSettings(**fast)
    few = cells.prepare(simulate(60), settings, Stopwatch())
    assert np.allclose(few.pcs, cells.long_rows_shortened(few.cells.obsm["X_pca"]))
    monkeypatch.setattr(cells, "FEW_CELLS", 60)
    enough = cells.prepare(simulate(60), settings, Stopwatch())
    assert enough.pcs is enough.cells.obsm["X_pca"]
