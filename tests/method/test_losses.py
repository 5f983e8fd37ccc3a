"""The three losses: hand-computed cases, dense against linear, extremes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from dense_reference import dense_losses
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from torch.nn.functional import normalize

from scrcl.method.inputs import graph_inputs, sparse_tensor
from scrcl.method.losses import Losses, Objective, losses
from scrcl.method.network import Architecture, Embeddings, ScRCL
from scrcl.prepare import graphs

CPU = torch.device("cpu")


def objective(temperature: float, consistency: str = "published") -> Objective:
    """With the weights of both recipes."""
    return Objective(temperature, 100.0, 1.0, consistency)


def test_losses_by_hand():
    """Two cells that are each other's neighbours, H = 2, t = 1; computed with pencil and paper.

    Cell 0: p = (1/2, 1/2), q = softmax(log 3, 0) = (3/4, 1/4); cell 1: p = (1/2, 1/2), q = (1/2, 1/2).
    KL both ways between (1/2, 1/2) and (3/4, 1/4) is (3/4 - 1/2) log 3 = log(3) / 4.
    D = [[log(3)/4, 0], [log(3)/4, 0]]; so NDC = ((log(3)/8) / 0 ...), and cell 1's row gives
    (log(3)/8) / (log(3)/4) = 1/2.
    """
    e1 = torch.zeros(2, 2, dtype=torch.float64)
    e2 = torch.tensor([[np.log(3), 0], [0, 0]])
    z = torch.tensor([[1.0, 0], [0, 1]], dtype=torch.float64)
    both = sparse_tensor(sparse.csr_matrix(np.ones((2, 2))), CPU, torch.float64)
    terms = losses(Embeddings(e1, e2, z, z), both, objective(1.0))
    assert np.isclose(terms.hea_cell, np.log(3) / 16 * 1)  # mean of (log(3)/4, 0), halved
    # Over all four entries: p = 1/4 each, q = (3, 1, 1, 1) / 6: (3/6 - 1/4) log 3 and the rest is symmetric.
    assert np.isclose(terms.hea_global, (3 / 6 - 1 / 4) * np.log(3))
    assert terms.cvc == 0.5  # identity against all ones: two of four entries differ by 1


def test_ndc_by_hand():
    """Three cells, cells 0 and 1 neighbours, cell 2 isolated; all q_j equal, all p_i = (1/2, 1/2).

    Then all D_ij are equal, every ratio of means is 1, and so is their mean.
    """
    e1, e2 = torch.zeros(3, 2, dtype=torch.float64), torch.tensor([[1.0, 0]] * 3, dtype=torch.float64)
    near = sparse_tensor(sparse.csr_matrix([[1.0, 1, 0], [1, 1, 0], [0, 0, 1]]), CPU, torch.float64)
    z = torch.ones(3, 1, dtype=torch.float64)
    terms = losses(Embeddings(e1, e2, z, z), near, objective(1.0))
    assert np.isclose(terms.ndc, 1)
    assert np.isclose(terms.cvc, 4 / 9)  # four of nine pairs are no neighbours, each off by 1


def random_case(seed: int, n: int, hidden: int, width: int, dtype=torch.float64) -> tuple[Embeddings, np.ndarray]:
    rng = np.random.default_rng(seed)
    adjacency = np.triu(rng.random((n, n)) < rng.uniform(0, 0.5), 1).astype(float)
    e1, e2 = (normalize(torch.as_tensor(rng.normal(1, 1, size=(n, hidden)), dtype=dtype)) for _ in range(2))
    z1, z2 = (normalize(torch.as_tensor(rng.normal(size=(n, width)), dtype=dtype)) for _ in range(2))
    return Embeddings(*(x.requires_grad_() for x in (e1, e2, z1, z2))), adjacency + adjacency.T


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.integers(0, 10**6),
    st.integers(2, 30),
    st.integers(3, 12),
    st.integers(1, 6),
    st.sampled_from([0.05, 0.1, 0.5, 1.0, 10.0]),
)
def test_linear_forms_equal_dense_forms(seed, n, hidden, width, temperature):
    embeddings, adjacency = random_case(seed, n, hidden, width)
    near = sparse_tensor(graphs.with_self_loops(sparse.csr_matrix(adjacency)), CPU, torch.float64)
    linear = losses(embeddings, near, objective(temperature))
    dense = dense_losses(*embeddings, torch.as_tensor(adjacency), temperature)
    for name, value in linear._asdict().items():
        assert torch.isclose(value, dense[name], rtol=1e-8, atol=1e-10), name
    for ours, theirs in zip(
        torch.autograd.grad(sum(linear), embeddings), torch.autograd.grad(sum(dense.values()), embeddings)
    ):
        assert torch.allclose(ours, theirs, rtol=1e-6, atol=1e-8)


def test_scale_free_consistency_is_the_angle_between_matrices():
    embeddings, adjacency = random_case(4, 30, 6, 5)
    z1, z2 = embeddings.z1, embeddings.z2
    near = torch.as_tensor(adjacency + np.eye(30))
    product = z1 @ z2.T
    dense = -torch.log((product * near).sum() ** 2 / ((product**2).sum() * (near**2).sum()))
    both = sparse_tensor(graphs.with_self_loops(sparse.csr_matrix(adjacency)), CPU, torch.float64)
    linear = losses(embeddings, both, objective(1.0, "scale-free")).cvc
    assert torch.isclose(linear, dense, rtol=1e-9)
    for ours, theirs in zip(*(torch.autograd.grad(loss, (z1, z2)) for loss in (linear, dense))):
        assert torch.allclose(ours, theirs, rtol=1e-7, atol=1e-9)
    assert torch.isclose(losses(embeddings._replace(z1=3 * z1), both, objective(1.0, "scale-free")).cvc, linear)


def test_scale_free_consistency_of_parallel_matrices_is_zero():
    """Two pairs of neighbours, each pair with one vector of its own: Z1 Z2^T is A + I."""
    z = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    pairs = sparse.csr_matrix(np.kron(np.eye(2), np.ones((2, 2)))).astype(np.float32)
    near = sparse_tensor(pairs, CPU, torch.float32)
    found = losses(Embeddings(z, z, z, z), near, objective(1.0, "scale-free")).cvc
    assert torch.isclose(found, torch.zeros(()), atol=1e-6)


def test_float32_gradient_is_close_to_float64():
    """At t = 1 and a wide H, D is a small difference of large sums; the centred form keeps float32 good."""
    results = {}
    for dtype in (torch.float32, torch.float64):
        embeddings, adjacency = random_case(3, 200, 300, 5, dtype)
        near = sparse_tensor(graphs.with_self_loops(sparse.csr_matrix(adjacency)), CPU, dtype)
        results[dtype] = torch.autograd.grad(losses(embeddings, near, objective(1.0)).ndc, embeddings[:2])
    for single, double in zip(results[torch.float32], results[torch.float64]):
        assert (single - double).norm() <= 1e-5 * double.norm()


@pytest.mark.parametrize("temperature", [1e-3, 1e-2, 1.0, 10.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_temperatures_zero_rows_and_isolated_cells_stay_finite(temperature, dtype):
    rng = np.random.default_rng(0)
    values = rng.poisson(1.0, (20, 12)).astype(np.float32)
    values[3] = 0  # a cell whose hidden row may be all zero
    adjacency = sparse.lil_matrix((20, 20))
    adjacency[0, 1] = adjacency[1, 0] = 1  # all other cells isolated
    inputs = graph_inputs(values, adjacency.tocsr(), graphs.gene_graph(values, 5), (1, 0), CPU, dtype)
    torch.manual_seed(0)
    model = ScRCL(20, 12, Architecture(8, 3, dropout=0.0)).to(dtype)
    with torch.no_grad():
        model.expression_encoder.bias.fill_(-100.0)  # ReLU gives nothing but zeros: every row of E1 is zero
    wanted = objective(temperature)
    total = wanted.total(losses(model(inputs), inputs.neighbourhood, wanted))
    total.backward()
    assert torch.isfinite(total)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("temperature", [0.1, 1.0, 10.0])
def test_identical_cells_give_a_small_loss_not_a_ratio_of_rounding_errors(dtype, temperature):
    row = normalize(torch.as_tensor(np.random.default_rng(0).random((1, 256)), dtype=dtype))
    e = row.repeat(300, 1).requires_grad_()
    near = sparse_tensor(sparse.identity(300, format="csr"), CPU, dtype)
    terms = losses(Embeddings(e, e, e, e), near, objective(temperature))
    terms.ndc.backward()
    assert 0 <= terms.ndc <= 1 and torch.isfinite(e.grad).all()


def test_the_total_is_weighted_as_the_objective_says():
    terms = Losses(*map(torch.tensor, (1.0, 2.0, 3.0, 4.0)))
    assert Objective(0.5, 10, 100).total(terms) == 1 + 2 + 30 + 400
    assert Objective(0.5, 0, 0).total(terms) == 3
