"""The network and its losses: golden numbers, hand-computed cases, dense against linear, extremes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from dense_reference import PublishedOrder, dense_losses
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from torch.nn.functional import normalize

import graphs
import model
from features import Features
from model import Embeddings, GraphInputs, ScRCL, losses
from train import adam, embed, graph_inputs, sparse_tensor, step, update
from views import SparseView

# Inputs, parameters, outputs, losses, gradients and an Adam trajectory of the published
# method on a simulated case (60 cells, 40 genes, H = 16, K' = 5), float64, dropout 0.
GOLDEN = np.load(Path(__file__).parent / "golden" / "scrcl_small_float64.npz")
TRAJECTORY = GOLDEN["trajectory/t=1.0,lr=5e-4,weight_decay=1e-3/total"]
LAMBDAS = float(GOLDEN["meta/lambda1"]), float(GOLDEN["meta/lambda2"])
PUBLISHED_NAMES = {
    "expression_encoder.weight": "mlp.weight",
    "expression_encoder.bias": "mlp.bias",
    "graph_encoder.gcn1.weight": "gcn1.weight",
    "graph_encoder.gcn1.bias": "gcn1.bias",
    "graph_encoder.gcn2.lin.weight": "gcn2.weight",
    "graph_encoder.gcn2.bias": "gcn2.bias",
    "graph_encoder.out.weight": "gcn_out.weight",
    "graph_encoder.out.bias": "gcn_out.bias",
    "gene_encoder.lin.weight": "gene_gcn.weight",
    "gene_encoder.bias": "gene_gcn.bias",
    "projector.weight": "projector.weight",
    "projector.bias": "projector.bias",
}
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
CPU = torch.device("cpu")


def golden_inputs(dtype: torch.dtype) -> GraphInputs:
    cells, genes = sparse.csr_matrix(GOLDEN["input/cell_adjacency"]), sparse.csr_matrix(GOLDEN["input/gene_adjacency"])
    inputs = graph_inputs(GOLDEN["input/counts"], cells, genes, tuple(GOLDEN["meta/hops"]), CPU, torch.float64)
    if dtype is torch.float64:
        return inputs
    tensors = {name: value.to(dtype) for name, value in vars(inputs).items() if isinstance(value, torch.Tensor)}
    return dataclasses.replace(inputs, **tensors)


def golden_model(dtype: torch.dtype) -> ScRCL:
    model = ScRCL(60, 40, 16, 5, dropout=0.0).to(dtype)
    model.load_state_dict(
        {ours: torch.as_tensor(GOLDEN[f"param/{theirs}"], dtype=dtype) for ours, theirs in PUBLISHED_NAMES.items()}
    )
    return model


def close(actual: torch.Tensor, expected: np.ndarray, dtype: torch.dtype) -> bool:
    scale = max(1.0, np.abs(expected).max())
    return bool(np.abs(actual.detach().numpy() - expected).max() <= TOLERANCE[dtype] * scale)


def test_golden_views():
    inputs = golden_inputs(torch.float64)
    assert close(inputs.view1, GOLDEN["input/view1"], torch.float64)
    assert close(inputs.propagated_view2, inputs.normalised.to_dense().numpy() @ GOLDEN["input/view2"], torch.float64)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_golden_step(dtype, temperature):
    inputs, model = golden_inputs(dtype), golden_model(dtype)
    embeddings = model(inputs)
    terms = losses(embeddings, inputs.neighbourhood, temperature)
    total = terms.total(*LAMBDAS)
    total.backward()
    for name, value in embeddings._asdict().items():
        assert close(value, GOLDEN[f"forward/{name}"], dtype), name
    for name, value in [*terms._asdict().items(), ("total", total)]:
        assert close(value, GOLDEN[f"t={temperature}/loss/{name}"], dtype), name
    for name, parameter in model.named_parameters():
        assert close(parameter.grad, GOLDEN[f"t={temperature}/grad/{PUBLISHED_NAMES[name]}"], dtype), name


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_golden_trajectory(dtype):
    inputs, model = golden_inputs(dtype), golden_model(dtype)
    optimizer = adam(model, lr=5e-4, weight_decay=1e-3)
    totals = [step(model, inputs, optimizer, 1.0, *LAMBDAS)["total"] for _ in range(20)]
    assert np.allclose(totals, TRAJECTORY, rtol=TOLERANCE[dtype], atol=0)
    for name, parameter in model.named_parameters():
        assert close(parameter, GOLDEN[f"param_after_20_steps/{PUBLISHED_NAMES[name]}"], dtype), name


def test_losses_by_hand():
    """Two cells that are each other's neighbours, H = 2, t = 1; computed with pencil and paper.

    Cell 0: p = (1/2, 1/2), q = softmax(log 3, 0) = (3/4, 1/4); cell 1: p = (1/2, 1/2), q = (1/2, 1/2).
    KL both ways between (1/2, 1/2) and (3/4, 1/4) is (3/4 - 1/2) log 3 = log(3) / 4.
    D = [[log(3)/4, 0], [log(3)/4, 0]]; so NDC = ((log(3)/8) / 0 ...), and cell 1's row gives (log(3)/8) / (log(3)/4) = 1/2.
    """
    e1 = torch.zeros(2, 2, dtype=torch.float64)
    e2 = torch.tensor([[np.log(3), 0], [0, 0]])
    z = torch.tensor([[1.0, 0], [0, 1]], dtype=torch.float64)
    both = sparse_tensor(sparse.csr_matrix(np.ones((2, 2))), CPU, torch.float64)
    terms = losses(Embeddings(e1, e2, z, z), both, 1.0)
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
    terms = losses(Embeddings(e1, e2, z, z), near, 1.0)
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
    linear = losses(embeddings, near, temperature)
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
    linear = losses(embeddings, both, 1.0, "scale-free").cvc
    assert torch.isclose(linear, dense, rtol=1e-9)
    for ours, theirs in zip(*(torch.autograd.grad(loss, (z1, z2)) for loss in (linear, dense))):
        assert torch.allclose(ours, theirs, rtol=1e-7, atol=1e-9)
    assert torch.isclose(losses(embeddings._replace(z1=3 * z1), both, 1.0, "scale-free").cvc, linear)


def test_scale_free_consistency_of_parallel_matrices_is_zero():
    """Two pairs of neighbours, each pair with one vector of its own: Z1 Z2^T is A + I."""
    z = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    pairs = sparse.csr_matrix(np.kron(np.eye(2), np.ones((2, 2)))).astype(np.float32)
    near = sparse_tensor(pairs, CPU, torch.float32)
    found = losses(Embeddings(z, z, z, z), near, 1.0, "scale-free").cvc
    assert torch.isclose(found, torch.zeros(()), atol=1e-6)


def test_float32_gradient_is_close_to_float64():
    """At t = 1 and a wide H, D is a small difference of large sums; the centred form keeps float32 good."""
    results = {}
    for dtype in (torch.float32, torch.float64):
        embeddings, adjacency = random_case(3, 200, 300, 5, dtype)
        near = sparse_tensor(graphs.with_self_loops(sparse.csr_matrix(adjacency)), CPU, dtype)
        results[dtype] = torch.autograd.grad(losses(embeddings, near, 1.0).ndc, embeddings[:2])
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
    model = ScRCL(20, 12, 8, 3, dropout=0.0).to(dtype)
    with torch.no_grad():
        model.expression_encoder.bias.fill_(-100.0)  # ReLU gives nothing but zeros: every row of E1 is zero
    total = losses(model(inputs), inputs.neighbourhood, temperature).total(100, 1)
    total.backward()
    assert torch.isfinite(total)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("temperature", [0.1, 1.0, 10.0])
def test_identical_cells_give_a_small_loss_not_a_ratio_of_rounding_errors(dtype, temperature):
    row = normalize(torch.as_tensor(np.random.default_rng(0).random((1, 256)), dtype=dtype))
    e = row.repeat(300, 1).requires_grad_()
    near = sparse_tensor(sparse.identity(300, format="csr"), CPU, dtype)
    terms = losses(Embeddings(e, e, e, e), near, temperature)
    terms.ndc.backward()
    assert 0 <= terms.ndc <= 1 and torch.isfinite(e.grad).all()


def test_same_network_as_the_published_order():
    """Small side first, first propagation ahead of time: the same embeddings as the plain order."""
    rng = np.random.default_rng(1)
    values = rng.poisson(1.0, (30, 20)).astype(np.float32)
    adjacency = graphs.cell_graph(values, 5, "euclidean", seed=0)
    genes = graphs.gene_graph(values, 5)
    torch.manual_seed(0)
    plain = PublishedOrder(30, 20, 8, 4, 0.0).double()
    ours = ScRCL(30, 20, 8, 4, 0.0).double()
    names = {
        "gcn1.lin.weight": "graph_encoder.gcn1.weight",
        "gcn1.bias": "graph_encoder.gcn1.bias",
        "gcn2.lin.weight": "graph_encoder.gcn2.lin.weight",
        "gcn2.bias": "graph_encoder.gcn2.bias",
        "out.weight": "graph_encoder.out.weight",
        "out.bias": "graph_encoder.out.bias",
    }
    ours.load_state_dict({names.get(name, name): value for name, value in plain.state_dict().items()})
    x = torch.as_tensor(values, dtype=torch.float64)
    edges, gene_edges = (torch.as_tensor(np.array(graph.nonzero())) for graph in (adjacency, genes))
    expected = plain(x, x, edges, gene_edges)
    actual = ours(graph_inputs(values.astype(np.float64), adjacency, genes, (0, 0), CPU, torch.float64))
    for a, b in zip(actual, expected):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-6)  # the normalised graphs are float32


def test_dropout_acts_in_training_only():
    inputs = golden_inputs(torch.float32)
    torch.manual_seed(0)
    model = ScRCL(60, 40, 16, 5, dropout=0.5)
    model.train()
    assert not torch.equal(model(inputs).e2, model(inputs).e2)
    first, second = embed(model, inputs), embed(model, inputs)
    assert np.array_equal(first[0], second[0]) and np.array_equal(first[1], second[1])


@pytest.mark.parametrize("block", [0, 7])
@pytest.mark.parametrize("consistency", model.CONSISTENCY)
def test_a_step_makes_no_tensor_elsewhere_and_waits_for_no_value(block, consistency):
    """On the meta device, which holds no values, both fail. Sparse products are not made for it: edge lists and a dense matrix stand in."""
    meta, n, g = torch.device("meta"), 30, 12
    features = Features(sparse.random(n, g, 0.3, "csr", np.float32), np.ones(g, dtype=np.float32))
    edges = torch.empty(2, 50, dtype=torch.int64, device=meta)
    dense = [torch.empty(n, g, device=meta) for _ in range(2)]
    views = [SparseView(features, torch.empty(n, n, device=meta), hops, block) for hops in (0, 1)]
    inputs = GraphInputs(*(views if block else dense), edges, torch.empty(n, n, device=meta), edges, block)
    network = ScRCL(n, g, 8, 3, 0.1).to(meta)
    terms = update(network, inputs, adam(network, 1e-3, 1e-3), 0.5, 100.0, 1.0, consistency)
    assert terms.shape == (5,) and terms.device == meta
    assert all(p.grad.device == meta for p in network.parameters())


def test_the_meta_device_tells_a_hard_wired_tensor():
    with pytest.raises((RuntimeError, NotImplementedError)):
        torch.empty(3, device="meta") + torch.ones(3)
    with pytest.raises((RuntimeError, NotImplementedError)):
        torch.empty(3, device="meta").tolist()
