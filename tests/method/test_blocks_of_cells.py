"""Training in blocks of cells on sparse values: the same numbers as all at once on dense ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import simulate
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from scrcl.analysis import analyse
from scrcl.method import reuse, training
from scrcl.method.inputs import graph_inputs
from scrcl.method.losses import Objective, losses
from scrcl.method.network import Architecture
from scrcl.prepare import graphs, halving, plan
from scrcl.prepare.features import Features
from scrcl.recipes import CellSettings
from scrcl.runtime import limited_threads

CPU = torch.device("cpu")
SMALL = Architecture(hidden=8, refined_width=4, dropout=0.0)


def random_features(seed: int, n_cells: int, n_genes: int, density: float) -> Features:
    values = sparse.random(n_cells, n_genes, density, "csr", np.float32, random_state=seed)
    return Features(values, np.random.default_rng(seed).normal(size=n_genes).astype(np.float32))


def dense(features: Features) -> np.ndarray:
    return features.values.toarray() - features.offset


def both(features: Features, hops: tuple[int, int], block: int, dtype: torch.dtype = torch.float64):
    """Inputs of the plain form and of the form in blocks, of the same values and graphs."""
    values = dense(features).astype(np.float64 if dtype == torch.float64 else np.float32)
    cells = graphs.cell_graph(values, 5, "euclidean", seed=0)
    genes = graphs.gene_graph(values, 4)
    plain = graph_inputs(values, cells, genes, hops, CPU, dtype)
    return plain, graph_inputs(features, cells, genes, hops, CPU, dtype, block)


def gradients(inputs, temperature: float, consistency: str = "published") -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model = training.new_model(inputs, SMALL)
    objective = Objective(temperature, 100, 1, consistency)
    terms = losses(model(inputs), inputs.neighbourhood, objective, inputs.block)
    objective.total(terms).backward()
    found = {name: p.grad for name, p in model.named_parameters()}
    return found | dict(terms._asdict())


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.integers(0, 10**6),
    st.integers(10, 40),
    st.integers(4, 12),
    st.sampled_from([0.02, 0.1, 0.5]),
    st.tuples(st.integers(0, 2), st.integers(0, 2)),
    st.integers(1, 45),
    st.sampled_from([0.1, 1.0]),
    st.sampled_from(["published", "scale-free"]),
)
def test_losses_and_gradients_in_blocks_are_those_of_all_at_once(
    seed, n_cells, n_genes, density, hops, block, temperature, consistency
):
    plain, in_blocks = both(random_features(seed, n_cells, n_genes, density), hops, block)
    expected, found = (gradients(inputs, temperature, consistency) for inputs in (plain, in_blocks))
    for name, value in expected.items():
        scale = max(1.0, value.abs().max().item())
        assert torch.allclose(found[name], value, rtol=1e-4, atol=1e-5 * scale), name  # the graphs are float32


def test_float32_in_blocks_agrees_to_1e_4():
    plain, in_blocks = both(random_features(1, 300, 50, 0.1), (0, 0), 64, torch.float32)
    expected, found = (gradients(inputs, 1.0) for inputs in (plain, in_blocks))
    for name, value in expected.items():
        assert (found[name] - value).norm() <= 1e-4 * value.norm() + 1e-7, name


@pytest.mark.parametrize("density", [0.05, 0.5])  # multiplied as stored, and made dense
def test_products_of_a_view_and_of_its_transpose(density):
    features = random_features(2, 70, 9, density)
    view = both(features, (2, 0), 16)[1].view1
    a_hat = view.a_hat.to_dense()
    x = a_hat @ a_hat @ torch.as_tensor(dense(features), dtype=torch.float64)
    weight, bias = torch.randn(5, 9, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    assert torch.allclose(torch.nn.functional.linear(view, weight, bias), x @ weight.T + bias, atol=1e-6)
    weight = torch.randn(5, 70, dtype=torch.float64)
    assert torch.allclose(torch.nn.functional.linear(view.T, weight), x.T @ weight.T, atol=1e-6)
    with pytest.raises(TypeError):
        torch.relu(view)


def test_dropout_of_a_block_is_the_same_when_it_is_made_again():
    """Else the gradient would be that of another function: along it the loss must fall by what it promises."""
    inputs = both(random_features(3, 60, 10, 0.2), (0, 0), 7)[1]
    objective = Objective(1.0, 1.0, 1.0)
    torch.manual_seed(0)
    model = training.new_model(inputs, SMALL._replace(dropout=0.5))

    def total() -> torch.Tensor:
        torch.manual_seed(1)
        return objective.total(losses(model(inputs), inputs.neighbourhood, objective, inputs.block))

    weight = model.graph_encoder.out.weight
    (slope,) = torch.autograd.grad(total(), weight)
    with torch.no_grad():
        weight += 1e-6 * slope
        up = total()
        weight -= 2e-6 * slope
        down = total()
    assert torch.isclose((up - down) / 2e-6, (slope**2).sum(), rtol=1e-4)


@pytest.mark.parametrize("block", [64, 300])  # the second as on a card, where one block may hold all cells
def test_a_run_in_blocks_finds_what_a_run_at_once_does(monkeypatch, block):
    adata = simulate(300, 80, 3)
    recipe = CellSettings(epochs=10, seeds=[5], hidden=16, n_top_genes=60, n_pcs=10, dropout=0.0)
    at_once = analyse(adata, recipe)
    monkeypatch.setattr(plan, "BLOCKS", (block,))
    monkeypatch.setattr(plan, "ALL_AT_ONCE_UP_TO", 0)
    in_blocks = analyse(adata, recipe)
    assert at_once.prepared.block == 0 and in_blocks.prepared.block == block
    assert isinstance(in_blocks.prepared.inputs, Features)
    assert not np.array_equal(in_blocks.prepared.order, np.arange(300))
    found, expected = (run.cells.obsm["X_scrcl"] for run in (in_blocks, at_once))
    assert found.shape == expected.shape
    assert found[:, -10:] == pytest.approx(
        expected[:, -10:], abs=1e-3
    )  # the PCs; training starts from a random weight per cell
    assert in_blocks.scores["scrcl"]["ARI"] == at_once.scores["scrcl"]["ARI"] == 1
    first = [run.history[0] for run in (at_once, in_blocks)]
    for name in ("hea_global", "hea_cell", "ndc"):  # in these the random start of each cell's weight has no part
        assert first[0][name] == pytest.approx(first[1][name], rel=1e-3), name


def test_the_order_of_training_changes_nothing_but_where_things_stand():
    """The parameters kept are for cells as they stand: with them, inputs in that order give the same embedding."""
    features = random_features(6, 80, 10, 0.3)
    values = dense(features)
    cells, genes = graphs.cell_graph(values, 5, "euclidean", seed=0), graphs.gene_graph(values, 4)
    order = np.concatenate(halving.parts(values, 10))
    apart = [np.abs(np.subtract(*graph.nonzero())).mean() for graph in (cells, cells[order][:, order])]
    assert sorted(order) == list(range(80)) and apart[1] < apart[0]
    shuffled = graph_inputs(features[order], cells[order][:, order], genes, (1, 0), CPU, block=16)
    model = training.new_model(shuffled, SMALL)
    found = training.embed(model, shuffled)
    plain = graph_inputs(values, cells, genes, (1, 0), CPU)
    kept = training.in_order_of_cells(model.state_dict(), order)
    expected = training.embed(training.restored_model(kept, plain, SMALL), plain)
    for ours, theirs in zip(found, expected):
        assert np.allclose(ours, theirs[order], atol=1e-5)


def test_products_with_stored_values_do_not_depend_on_the_number_of_threads():
    view = both(random_features(4, 9000, 300, 0.05), (0, 0), 9000, torch.float32)[1].view1
    weights, gradient = torch.randn(300, 64), torch.randn(9000, 64)
    found = []
    for threads in (1, 2, 3):
        with limited_threads(threads):
            found.append((view.times(weights), view.transposed_times(gradient)))
    assert not view.is_dense_faster
    for others in found[1:]:
        assert all(torch.equal(x, y) for x, y in zip(found[0], others))


def test_training_with_kept_memory_gives_the_same_bits(monkeypatch):
    in_blocks = both(random_features(5, 300, 50, 0.1), (0, 0), 64, torch.float32)[1]
    how = SMALL._replace(dropout=0.2), Objective(1.0, 100, 1, "scale-free"), training.Schedule(4, 1e-2, 1e-4)
    asked = training.fit(in_blocks, *how, seed=1)
    used: list[torch.Size] = []
    monkeypatch.setattr(reuse, "LARGE", 4 * 300 * SMALL.hidden)
    original = reuse.KeptMemory._memory
    monkeypatch.setattr(reuse.KeptMemory, "_memory", lambda kept, shape: used.append(shape) or original(kept, shape))
    found = training.fit(in_blocks, *how, seed=1)
    assert used
    assert found.history == asked.history
    for name, value in asked.model.state_dict().items():
        assert torch.equal(found.model.state_dict()[name], value), name
