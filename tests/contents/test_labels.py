"""Known labels in obs: of every type, in whichever column."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scrcl.contents.labels import find_labels
from scrcl.keys import LABELS_OF_SPOTS
from scrcl.messages import UserError


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (["B", "T", None], ["B", "T", None]),
        (["B", "", "T"], ["B", None, "T"]),
        (["B", "nan", "T"], ["B", None, "T"]),
        ([1, 2, 10], ["1", "2", "10"]),
        ([1.0, np.nan, 2.0], ["1", None, "2"]),
        ([0.5, np.nan, 2.0], ["0.5", None, "2.0"]),
        (pd.Categorical(["B", None, "T"], categories=["T", "B", "unused"]), ["B", None, "T"]),
        ([True, False, True], ["True", "False", "True"]),
    ],
)
def test_labels_of_every_type(column, expected):
    labels = find_labels(pd.DataFrame({"celltype": column}, index=list("abc")))
    assert [None if pd.isna(x) else x for x in labels] == expected


def test_label_columns():
    obs = pd.DataFrame({"mine": ["a", "b"], "cell_type": ["x", "y"]})
    assert find_labels(obs).name == "cell_type"
    assert find_labels(obs, "mine").name == "mine"
    assert find_labels(obs, "none") is None
    assert find_labels(obs[["mine"]]) is None
    assert find_labels(pd.DataFrame({"celltype": [None, None]})) is None
    assert find_labels(pd.DataFrame({"cell_type1": [None, None], "celltype": ["a", "b"]})).name == "celltype"
    with pytest.raises(UserError, match="'typo'.*mine, cell_type"):
        find_labels(obs, "typo")


def test_usual_names_of_domains():
    obs = pd.DataFrame({"cell_type": ["a", "b"], "annotation": ["x", "y"], "layer_guess": ["L1", "L2"]})
    assert find_labels(obs, usual=LABELS_OF_SPOTS).name == "layer_guess"
    assert find_labels(obs[["cell_type"]], usual=LABELS_OF_SPOTS) is None


@pytest.mark.parametrize(
    "word",
    [
        "NA",
        "n/a",
        "None",
        "NULL",
        "unknown",
        "Unknown",
        "Unassigned",
        "not assigned",
        "Doublet",
        "low quality",
        "?",
        "-",
    ],
)
def test_words_that_are_no_label(word, caplog):
    caplog.set_level("INFO")
    obs = pd.DataFrame({"cell_type": pd.Categorical(["B", word, "T", word, "T"])})
    labels = find_labels(obs)
    assert list(labels.dropna()) == ["B", "T", "T"] and labels.isna().sum() == 2
    assert f"obs['cell_type']: 2 of 5 labels say {word!r}: taken as missing." in caplog.text


@pytest.mark.parametrize("word", ["Other", "NK", "D1", "0", "unknown 2", "Doublecortin+"])
def test_words_that_are_a_label(word):
    assert find_labels(pd.DataFrame({"cell_type": ["B", word]})).nunique() == 2


@pytest.mark.parametrize("column", [["T cell"] * 4, ["T cell", "unknown", None, "T cell"]])
def test_a_single_type_tells_nothing_apart(column, caplog):
    caplog.set_level("INFO")
    obs = pd.DataFrame({"cell_type1": column, "cell_type": list("abcd")})
    assert find_labels(obs, "cell_type1") is None
    assert "obs['cell_type1'] has the single label 'T cell', which tells no cells apart: not used." in caplog.text
    assert find_labels(obs).name == "cell_type"
