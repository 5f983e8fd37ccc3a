"""Which known type a cluster shares most cells with."""

from __future__ import annotations

import pandas as pd
import pytest

from scrcl.cluster.scores import largest_overlaps


def test_largest_overlaps_by_hand():
    predicted = pd.Series(["0", "0", "0", "1", "1", "2", "2"])
    known = pd.Series(["A", "A", "B", "B", None, None, None])
    table = largest_overlaps(predicted, known)
    assert list(table.index) == ["0", "1"] and list(table["known_type"]) == ["A", "B"]
    assert list(table["n_cells"]) == [3, 1] and list(table["n_overlap"]) == [2, 1]
    assert list(table["jaccard"]) == pytest.approx([2 / 3, 1 / 2])
    assert list(table["share_of_cluster"]) == pytest.approx([2 / 3, 1])
    assert list(table["share_of_type"]) == pytest.approx([1, 1 / 2])
