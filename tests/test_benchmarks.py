"""The benchmarks still run against the code: every form of a step, the dense step of a scale run, and its exponents."""

from __future__ import annotations

import sys
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
from conftest import simulate

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import accuracy  # noqa: E402
import accuracy_tables  # noqa: E402
import scale  # noqa: E402
import step  # noqa: E402


def test_every_form_of_a_step():
    seconds = step.seconds_in_turn(list(step.FORMS), 60, 40, 8)
    assert set(seconds) == set(step.FORMS) and all(min(found) > 0 for found in seconds.values())


def test_the_dense_step_of_a_scale_run(monkeypatch):
    monkeypatch.setattr(scale, "GENES", 40)
    assert scale.RUNS["dense"](Path("not read"), 60, 1).keys() == {"step", "gib"}


def test_exponents():
    cells = pd.Series([1e3, 1e4, 1e5, 1e6])
    # Fitted from 10,000 cells up: the first value counts for nothing.
    assert scale.exponent(cells, pd.Series([7.0, 2.0, 20.0, 200.0])) == pytest.approx(1)
    assert scale.exponent(cells, pd.Series([1.0, 1.0, 1e2, 1e4])) == pytest.approx(2)


def test_parts_of_a_data_set():
    adata = simulate(200)
    rng = np.random.default_rng(0)
    assert accuracy.INPUTS["hundred-cells"](adata.copy(), rng).n_obs == 100
    found = [accuracy.INPUTS[f"mixed-{draw}"](adata.copy(), rng) for draw in (1, 2)]
    assert all(part.obs["cell_type1"].value_counts().min() >= 6 and part.n_obs < 200 for part in found)
    assert set(found[0].obs_names) != set(found[1].obs_names)


def test_a_part_of_the_recipe_is_off_and_on_again(monkeypatch):
    ready = accuracy.pipeline.prepare_cells(simulate(80), accuracy.SCConfig(n_clusters=3), accuracy.Stopwatch())
    shortened = Mock(wraps=accuracy.pipeline.shortened_rows)
    monkeypatch.setattr(accuracy.pipeline, "shortened_rows", shortened)
    quick = {"epochs": 2, "hidden": 8}
    accuracy.recipe("SC", ready, quick | {"shortened": False}, [5])
    assert not shortened.called and accuracy.pipeline.shortened_rows is shortened
    accuracy.recipe("SC", ready, quick, [5])
    assert shortened.called


def test_table_of_the_parts_by_hand():
    """Two sets and two seeds; the variant has one pair on each set: gains of .2 and -.1, so .05 ± .15."""
    runs = [("as it is", "a", 5, 0.5), ("as it is", "a", 15, 0.7), ("as it is", "b", 5, 0.6), ("less", "a", 5, 0.7), ("less", "b", 5, 0.5)]  # fmt: skip
    rows = pd.DataFrame(runs, columns=["method", "dataset", "seed", "ARI"]).assign(NMI=0.1, F1=0.2)
    *_, recipe, less = accuracy_tables.ablation(rows).split("\n")
    assert recipe == "| as it is | 0.600 | 0.600 | 0.600 | 0.100 | 0.200 | +0.000 |"
    assert less == "| less | 0.700 | 0.500 | 0.600 | 0.100 | 0.200 | +0.050 ± 0.150 |"
