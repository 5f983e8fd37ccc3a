"""Scores are those worked out by hand, and change nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.metrics import adjusted_rand_score

from scrcl.cluster.scores import matched_types, score


def series(text: str) -> pd.Series:
    return pd.Series([None if letter == "." else letter for letter in text], index=[f"c{i}" for i in range(len(text))])


def test_score_by_hand():
    """Clusters 0 (4 cells: AAAB), 1 (2: BB), 2 (1: A). Matched: 0 = A, 1 = B, 2 without partner.

    Right: 3 + 2 = 5 of 7. Recall A 3/4, B 2/3. Precision A 3/4, B 2/2: F1 A 3/4, B 4/5.
    """
    found = score(series("0000112"), series("AAABBBA"))
    assert np.isclose(found["ACC"], 5 / 7)
    assert found["recall"] == {"A": 3 / 4, "B": 2 / 3}
    assert np.isclose(found["F1"], (3 / 4 + 4 / 5) / 2)
    assert np.isclose(found["ARI"], adjusted_rand_score(list("AAABBBA"), list("0000112")))
    assert found["n_scored"] == 7


def test_more_types_than_clusters():
    found = score(series("000"), series("AAB"))
    assert np.isclose(found["ACC"], 2 / 3) and found["recall"] == {"A": 1, "B": 0} and found["ARI"] == 0


def test_missing_labels_on_either_side_are_left_out():
    found = score(series("00.11"), series("AAAB."))
    assert found["n_scored"] == 3 and found["ACC"] == 1


def test_scoring_changes_nothing():
    predicted, known = series("0011"), series("ABBB")
    before = predicted.copy(), known.copy()
    score(predicted, known)
    pd.testing.assert_series_equal(predicted, before[0])
    pd.testing.assert_series_equal(known, before[1])


def test_matching_is_one_to_one():
    assert matched_types(series("001122"), series("AAAAAB")) in ({"0": "A", "2": "B"}, {"1": "A", "2": "B"})
