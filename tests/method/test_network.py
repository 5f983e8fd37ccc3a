"""The network: golden numbers, the published order of computation, and nothing made on a device of its own."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from dense_reference import PublishedOrder
from scipy import sparse

from scrcl.method.inputs import GraphInputs, SparseView, graph_inputs
from scrcl.method.losses import CONSISTENCY, Objective, losses
from scrcl.method.network import Architecture, ScRCL
from scrcl.method.training import Schedule, adam, embed
from scrcl.method.updates import Updates, update
from scrcl.prepare import graphs
from scrcl.prepare.features import Features

# Inputs, parameters, outputs, losses, gradients and an Adam trajectory of the published
# method on a simulated case (60 cells, 40 genes, H = 16, K' = 5), float64, dropout 0.
GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "scrcl_small_float64.npz")
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
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def golden_inputs(dtype: torch.dtype, device: str = "cpu") -> GraphInputs:
    cells, genes = sparse.csr_matrix(GOLDEN["input/cell_adjacency"]), sparse.csr_matrix(GOLDEN["input/gene_adjacency"])
    inputs = graph_inputs(GOLDEN["input/counts"], cells, genes, tuple(GOLDEN["meta/hops"]), CPU, torch.float64)
    tensors = {name: value.to(device, dtype) for name, value in vars(inputs).items() if isinstance(value, torch.Tensor)}
    return dataclasses.replace(inputs, **tensors)


def golden_model(dtype: torch.dtype, device: str = "cpu") -> ScRCL:
    model = ScRCL(60, 40, Architecture(16, 5, dropout=0.0)).to(device, dtype)
    model.load_state_dict(
        {ours: torch.as_tensor(GOLDEN[f"param/{theirs}"], dtype=dtype) for ours, theirs in PUBLISHED_NAMES.items()}
    )
    return model


def close(actual: torch.Tensor, expected: np.ndarray, dtype: torch.dtype) -> bool:
    scale = max(1.0, np.abs(expected).max())
    return bool(np.abs(actual.detach().cpu().numpy() - expected).max() <= TOLERANCE[dtype] * scale)


def test_golden_views():
    inputs = golden_inputs(torch.float64)
    assert close(inputs.view1, GOLDEN["input/view1"], torch.float64)
    assert close(inputs.propagated_view2, inputs.normalised.to_dense().numpy() @ GOLDEN["input/view2"], torch.float64)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_golden_step(dtype, temperature, device):
    inputs, model = golden_inputs(dtype, device), golden_model(dtype, device)
    embeddings = model(inputs)
    objective = Objective(temperature, *LAMBDAS)
    terms = losses(embeddings, inputs.neighbourhood, objective)
    total = objective.total(terms)
    total.backward()
    for name, value in embeddings._asdict().items():
        assert close(value, GOLDEN[f"forward/{name}"], dtype), name
    for name, value in [*terms._asdict().items(), ("total", total)]:
        assert close(value, GOLDEN[f"t={temperature}/loss/{name}"], dtype), name
    for name, parameter in model.named_parameters():
        assert close(parameter.grad, GOLDEN[f"t={temperature}/grad/{PUBLISHED_NAMES[name]}"], dtype), name


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_golden_trajectory(dtype, device):
    inputs, model = golden_inputs(dtype, device), golden_model(dtype, device)
    updates = Updates(model, inputs, adam(model, Schedule(20, 5e-4, 1e-3)), Objective(1.0, *LAMBDAS))
    totals = [float(updates()[-1]) for _ in range(20)]
    assert np.allclose(totals, TRAJECTORY, rtol=TOLERANCE[dtype], atol=0)
    for name, parameter in model.named_parameters():
        assert close(parameter, GOLDEN[f"param_after_20_steps/{PUBLISHED_NAMES[name]}"], dtype), name


def test_same_network_as_the_published_order():
    """Small side first, first propagation ahead of time: the same embeddings as the plain order."""
    rng = np.random.default_rng(1)
    values = rng.poisson(1.0, (30, 20)).astype(np.float32)
    adjacency = graphs.cell_graph(values, 5, "euclidean", seed=0)
    genes = graphs.gene_graph(values, 5)
    torch.manual_seed(0)
    plain = PublishedOrder(30, 20, 8, 4, 0.0).double()
    ours = ScRCL(30, 20, Architecture(8, 4, 0.0)).double()
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
    model = ScRCL(60, 40, Architecture(16, 5, dropout=0.5))
    model.train()
    assert not torch.equal(model(inputs).e2, model(inputs).e2)
    first, second = embed(model, inputs), embed(model, inputs)
    assert np.array_equal(first[0], second[0]) and np.array_equal(first[1], second[1])


@pytest.mark.parametrize("block", [0, 7])
@pytest.mark.parametrize("consistency", CONSISTENCY)
def test_a_step_makes_no_tensor_elsewhere_and_waits_for_no_value(block, consistency):
    """On the meta device, which holds no values, both fail.

    Sparse products are not made for it: dense matrices stand in.
    """
    meta, n, g = torch.device("meta"), 30, 12
    features = Features(sparse.random(n, g, 0.3, "csr", np.float32), np.ones(g, dtype=np.float32))
    cells, genes = torch.empty(n, n, device=meta), torch.empty(g, g, device=meta)
    dense = [torch.empty(n, g, device=meta) for _ in range(2)]
    views = [SparseView(features, cells, hops, block) for hops in (0, 1)]
    inputs = GraphInputs(*(views if block else dense), cells, cells, genes, genes, block)
    network = ScRCL(n, g, Architecture(8, 3, 0.1)).to(meta)
    optimizer = adam(network, Schedule(epochs=1, lr=1e-3, weight_decay=1e-3))
    terms = update(network, inputs, optimizer, Objective(0.5, 100.0, 1.0, consistency))
    assert terms.shape == (5,) and terms.device == meta
    assert all(p.grad.device == meta for p in network.parameters())


def test_the_meta_device_tells_a_hard_wired_tensor():
    with pytest.raises((RuntimeError, NotImplementedError)):
        torch.empty(3, device="meta") + torch.ones(3)
    with pytest.raises((RuntimeError, NotImplementedError)):
        torch.empty(3, device="meta").tolist()
