"""The figure of trust: a bar per cluster, and what is doubtful is marked and named."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from scrcl import plot
from scrcl.plot import style


def annotated(n: int = 3, doubtful: tuple[int, ...] = (2,), agreement: float = 0.9) -> ad.AnnData:
    """An AnnData as a run annotates it, as far as the figure reads it."""
    names = [str(i) for i in range(n)]
    clusters = pd.DataFrame(
        {
            "size": [1] * n,
            "agreement": [agreement] * n,
            "nearest": ["", *["0"] * (n - 1)],
            "support": [np.nan, *[0.2 if i in doubtful else 0.8 for i in range(1, n)]],
            "verdict": ["doubtful: may be part of cluster 0" if i in doubtful else "clear" for i in range(n)],
        },
        index=names,
    )
    facts = {"label_key": "", "task": "SC", "clusters": clusters}
    obs = pd.DataFrame({"scrcl": pd.Categorical(names, names)}, index=[f"cell-{i}" for i in range(n)])
    return ad.AnnData(obs=obs, uns={"scrcl": facts})


def test_bars_marks_and_words():
    panels = plot.clusters(annotated()).axes
    lengths = [[bar.get_width() for bar in axes.containers[0]] for axes in panels]
    assert np.allclose(lengths, [[0.9] * 3, [0, 0.8, 0.2], [0.9, 0.72, 0.18]])
    assert [to_hex(bar.get_facecolor()).upper() for bar in panels[0].containers[0]] == list(style.PALETTE[:3])
    assert [text.get_text() for text in panels[1].texts] == ["–", "0.80", "0.20"]
    words = [text.get_text() for text in panels[2].texts][3:]
    assert words == ["clear", "clear", "doubtful: may be part of cluster 0"]
    assert [tick.get_text() for tick in panels[0].get_yticklabels()] == [f"{i}  (1 cells)" for i in range(3)]


@pytest.mark.parametrize("n", [1, 60])
def test_any_number_of_clusters_and_no_agreement(n, tmp_path):
    figure = plot.clusters(annotated(n, (), np.nan))
    assert len(figure.axes) == (1 if n == 1 else 2)  # what no cluster has is left out
    style.save(figure, tmp_path / "clusters.png")
    assert (tmp_path / "clusters.png").stat().st_size > 0


def test_an_earlier_version_has_no_table():
    cells = annotated()
    del cells.uns["scrcl"]["clusters"]
    assert plot.clusters(cells) is None


def tree_of(*steps: tuple[str, str, float]) -> ad.AnnData:
    adata = annotated(len(steps) + 1)
    adata.uns["scrcl"]["tree"] = pd.DataFrame(steps, columns=["one", "other", "support"])
    return adata


def test_a_tree_joins_where_the_clusters_are_told_apart():
    """A step that is told apart less than one before it is drawn where that one is."""
    (axes,) = plot.tree(tree_of(("1", "2", 0.4), ("0", "3", 0.7), ("0+3", "1+2", 0.6))).axes
    joins = sorted({round(x, 6) for lines in axes.collections[0].get_segments() for x, _ in lines})
    assert joins == [0, 0.4, 0.7]
    assert sorted(text.get_text() for text in axes.get_yticklabels()) == [f"{i}  (1 cells)" for i in range(4)]
    squares = axes.collections[-1]
    own = {text.get_text()[0]: to_hex(colour) for text, colour in zip(axes.get_yticklabels(), squares.get_facecolors())}
    assert [own[str(i)].upper() for i in range(4)] == list(style.PALETTE[:4])


def test_no_tree_of_two_clusters_or_of_an_earlier_version():
    assert plot.tree(tree_of(("0", "1", 0.4))) is None and plot.tree(annotated()) is None
