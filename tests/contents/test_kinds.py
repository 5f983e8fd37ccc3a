"""Telling counts, amounts and logarithms of any base, by the values alone."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import simulate
from scipy import sparse

from scrcl.contents.kinds import Evidence, value_kind

COUNTS = simulate(20, 12).X.toarray()


def lognorm(counts: np.ndarray) -> np.ndarray:
    return np.log1p(counts / counts.sum(1, keepdims=True) * 1e4)


def of(values: np.ndarray) -> Evidence:
    matrix = sparse.csr_matrix(values, dtype=np.float32)
    evidence = Evidence(matrix.shape[0])
    evidence.add(matrix)
    return evidence


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (COUNTS, "counts"),
        (COUNTS * 1.7 + 30, "fractional amounts"),
        (lognorm(COUNTS), "log-normalised"),
        (np.log1p(COUNTS), "log1p of counts"),
        (COUNTS - COUNTS.mean(0), "scaled"),
        (COUNTS / COUNTS.sum(1, keepdims=True), "fractional amounts"),
        (np.full((3, 4), np.nan), "not finite"),
        (np.zeros((3, 4)), "empty"),
    ],
)
def test_value_kind(values, kind):
    assert value_kind(sparse.csr_matrix(values, dtype=np.float32)) == kind


def test_large_fractions_are_not_taken_for_logarithms_of_counts():
    values = np.random.default_rng(0).uniform(11, 24, (50, 20))
    assert of(values).kind().name != "log1p of counts"
    mixed = np.vstack([np.log1p(COUNTS), lognorm(COUNTS)])
    assert of(mixed).kind().name == "log-normalised"


def test_no_whole_number_is_the_logarithm_of_a_count():
    for whole in range(1, 26):
        assert of(np.array([[whole, np.log(2)]])).kind().name not in ("counts", "log1p of counts")


def droplets(depth: float, seed: int = 0) -> np.ndarray:
    """Counts of 300 cells of 5 types and 400 genes, with depths that differ as real ones do."""
    rng = np.random.default_rng(seed)
    profile = rng.gamma(0.4, 1, (5, 400)) + 0.01
    mean = profile[rng.integers(0, 5, 300)]
    mean = mean / mean.sum(1, keepdims=True) * depth * rng.lognormal(0, 0.5, (300, 1))
    return rng.poisson(mean).astype(float)


def without_ambient(counts: np.ndarray) -> np.ndarray:
    """Counts less what SoupX would take away: 15 % of a cell's total in the proportions of all cells."""
    ambient = counts.sum(0) / counts.sum()
    return np.where(counts > 0, np.maximum(counts - 0.15 * counts.sum(1, keepdims=True) * ambient, 0), 0)


def decontaminated(counts: np.ndarray) -> np.ndarray:
    """Counts less a share that differs by cell and gene, as decontX leaves them."""
    rng = np.random.default_rng(1)
    return counts * (1 - rng.beta(2, 12, (len(counts), 1)) * rng.uniform(0.2, 1, counts.shape[1]))


@pytest.mark.parametrize("depth", [100, 300, 3000])
@pytest.mark.parametrize("correct", [without_ambient, decontaminated])
def test_corrected_counts_are_amounts_however_few(depth, correct):
    assert of(correct(droplets(depth))).kind().name == "fractional amounts"


@pytest.mark.parametrize("base", [np.e, 2, 10])
@pytest.mark.parametrize("genes", [slice(None), slice(0, 400, 3)])
@pytest.mark.parametrize("depth", [100, 3000])
def test_the_base_of_logarithms_of_normalised_counts(base, genes, depth):
    counts = droplets(depth)
    counts = counts[counts.sum(1) > 0]
    values = (lognorm(counts) / np.log(base))[:, genes]
    assert of(values[values.sum(1) > 0]).kind() == ("log-normalised", pytest.approx(base))


def test_a_selection_of_logarithms_that_are_not_of_counts():
    """As of TPM: neither equal sums nor multiples, but less of each gene where there are more genes."""
    rng = np.random.default_rng(0)
    tpm = droplets(3000) * rng.uniform(0.2, 3, 400)
    values = np.log1p(tpm / tpm.sum(1, keepdims=True) * 1e4)[:, ::2]
    assert of(values).kind() == ("log-normalised", None)
