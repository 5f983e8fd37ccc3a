"""The table that ends a run."""

from __future__ import annotations

import numpy as np
import pandas as pd

from scrcl import result


def clusters(n: int, doubtful: tuple[int, ...]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "size": [100 - i for i in range(n)],
            "agreement": [0.987, *[np.nan] * (n - 1)],
            "nearest": ["", *["0"] * (n - 1)],
            "support": [np.nan, *[0.5] * (n - 1)],
            "verdict": ["doubtful: may be part of cluster 0" if i in doubtful else "clear" for i in range(n)],
        },
        index=[str(i) for i in range(n)],
    )


def test_a_line_per_cluster():
    assert result.cluster_lines(clusters(2, (1,)), "cells")[0].splitlines() == [
        "cluster  cells  agreement  support  verdict",
        "-------  -----  ---------  -------  ----------------------------------",
        "0          100       0.99        -  clear",
        "1           99          -     0.50  doubtful: may be part of cluster 0",
    ]


def test_a_line_per_cluster_with_its_name_and_genes():
    told = pd.DataFrame({"name": ["T cell", "B cell?"], "top genes": ["CD3D, IL7R", ""]}, index=["0", "1"])
    table = result.cluster_lines(clusters(2, ()), "cells", told)[0].splitlines()
    assert table[0].endswith("verdict  name     top genes") and table[2].endswith("clear    T cell   CD3D, IL7R")
    assert table[3].endswith("clear    B cell?")
    (alone,) = result.cluster_lines(clusters(2, ()), "cells", told[:1])  # a cluster of one cell has no genes
    assert alone.splitlines()[3].endswith("clear")


def test_of_many_clusters_only_the_doubtful_ones():
    assert len(result.cluster_lines(clusters(result.MOST_ROWS, ()), "cells")) == 1
    table, rest = result.cluster_lines(clusters(result.MOST_ROWS + 1, (7, 30)), "spots")
    assert [line.split()[0] for line in table.splitlines()[2:]] == ["7", "30"]
    assert rest == "The other 29 clusters, of 71 to 100 spots, are clear."
    named = pd.DataFrame({"name": ["T cell"] * 40}, index=[str(i) for i in range(40)])
    assert (
        len(result.cluster_lines(clusters(40, ()), "spots", named)[0].splitlines()) == 42
    )  # what was asked for is told
    assert result.cluster_lines(clusters(40, ()), "spots") == ["All 40 clusters, of 61 to 100 spots, are clear."]
