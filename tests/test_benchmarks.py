"""The benchmarks still run against the code: every form of a step, the dense step of a scale run, and its exponents."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

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
