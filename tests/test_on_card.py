"""What runs on a CUDA card gives what the CPU gives. Without a card these tests are skipped."""

from __future__ import annotations

import os
import socket

import numpy as np
import pytest
import torch
from conftest import simulate
from scipy import sparse
from sklearn.metrics import adjusted_rand_score
from test_processes import CPU, N_CELLS, problem

import scrcl
from scrcl.cluster import tied
from scrcl.disk.checkpoints import Checkpoints
from scrcl.method import kernels, training
from scrcl.method.inputs import on_device
from scrcl.method.losses import Objective
from scrcl.method.network import Architecture
from scrcl.method.shares import ALL, Part
from scrcl.method.training import Schedule
from scrcl.method.updates import WARM_UP, Updates, update
from scrcl.prepare import graphs
from scrcl.prepare.components import components
from scrcl.prepare.features import Features

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card")
CARD = torch.device("cuda")
OBJECTIVE = Objective(0.5, 10, 1, "scale-free")


def begun(inputs, dropout: float = 0.3):
    """A model, its inputs and its optimizer, always the same ones."""
    torch.manual_seed(3)
    model = training.new_model(inputs, Architecture(16, 8, dropout))
    return model, inputs, training.adam(model, Schedule(9, 1e-2, 1e-4)), OBJECTIVE


def same_parameters(one, other, **within) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return all(torch.allclose(ours[name].cpu(), theirs[name].cpu(), **within) for name in ours)


@pytest.mark.parametrize(("form", "block"), [("dense", 0), ("sparse", 0), ("sparse", 50)])
def test_training_is_that_of_the_cpu(form, block):
    host = problem(form, block)
    card, cpu = (begun(on_device(host, device, torch.float64), dropout=0) for device in (CARD, CPU))
    on_card, on_cpu = Updates(*card), Updates(*cpu)
    found = [(on_card().tolist(), on_cpu().tolist()) for _ in range(3 * WARM_UP)]
    assert np.allclose(*zip(*found), rtol=1e-9)
    assert same_parameters(card[0], cpu[0], atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_recorded_updates_are_those_that_were_not_recorded_dropout_included(dtype):
    host = problem("sparse", 0)
    recorded = begun(on_device(host, CARD, dtype))
    updates = Updates(*recorded)
    found = [updates().tolist() for _ in range(3 * WARM_UP)]
    state = torch.cuda.get_rng_state()
    plain = begun(on_device(host, CARD, dtype))
    asked = [update(*plain).tolist() for _ in range(3 * WARM_UP)]
    within = 1e-9 if dtype is torch.float64 else 1e-5
    assert updates._recorded is not None and np.allclose(found, asked, rtol=within)
    assert same_parameters(recorded[0], plain[0], atol=1e4 * within)
    assert torch.equal(state, torch.cuda.get_rng_state())  # so that a resumed training draws what comes next


def test_compiled_updates_are_those_that_were_not_compiled():
    host = problem("sparse", 0)
    plain = begun(on_device(host, CARD))
    asked = [update(*plain).tolist() for _ in range(3 * WARM_UP)]
    with kernels.compiled(CARD, wanted=True):
        fast = begun(on_device(host, CARD))
        updates = Updates(*fast)
        found = [updates().tolist() for _ in range(3 * WARM_UP)]
    assert updates._recorded is not None and np.allclose(found, asked, rtol=1e-5)
    assert same_parameters(fast[0], plain[0], atol=0.1)


@pytest.mark.parametrize("block", [0, 50])
def test_no_update_waits_for_the_card(block):
    updates = Updates(*begun(on_device(problem("sparse", block), CARD)))
    updates()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(2 * WARM_UP):
            if updates._made != WARM_UP:  # making the recording waits, once
                updates()
            else:
                torch.cuda.set_sync_debug_mode("default")
                updates()
                torch.cuda.set_sync_debug_mode("error")
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_resumed_training_goes_on_as_if_it_had_not_ended(tmp_path):
    inputs = on_device(problem("sparse", 0), CARD, torch.float64)
    how = Architecture(16, 8, 0.3), OBJECTIVE
    whole = training.fit(inputs, *how, Schedule(12, 1e-2, 1e-4), seed=5)
    for epochs, resume in ((7, False), (12, True)):
        kept = Checkpoints(tmp_path / "kept", 1, resume)
        kept.open({"data": "the same"})
        parts = training.fit(inputs, *how, Schedule(epochs, 1e-2, 1e-4), seed=5, checkpoints=kept)
    assert [r["epoch"] for r in parts.history] == list(range(1, 13))
    assert np.allclose([r["total"] for r in parts.history], [r["total"] for r in whole.history], rtol=1e-9)
    assert same_parameters(parts.model, whole.model, atol=1e-9)


def test_one_process_through_the_path_of_several(monkeypatch):
    """NCCL takes one process per card, so with one card this is as far as it can be tried."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free.getsockname()[1])}
    for name, value in (address | {"RANK": "0", "WORLD_SIZE": "1"}).items():
        monkeypatch.setitem(os.environ, name, value)
    torch.distributed.init_process_group("cpu:gloo,cuda:nccl")
    try:
        for form in ("dense", "sparse"):
            host = problem(form, 0)
            shared, alone = (
                begun(on_device(host, CARD, torch.float64, share), dropout=0) for share in (Part(0, [0, N_CELLS]), ALL)
            )
            found = [(update(*shared).tolist(), update(*alone).tolist()) for _ in range(5)]
            assert np.allclose(*zip(*found), rtol=1e-9)
            embedded = [training.embed(model, inputs) for model, inputs, *_ in (shared, alone)]
            assert all(np.allclose(mine, other, atol=1e-5) for mine, other in zip(*embedded))
    finally:
        torch.distributed.destroy_process_group()


def test_sums_over_cells_and_components_are_those_of_the_cpu():
    stored = sparse.random(9000, 60, 0.2, random_state=0, format="csr", dtype=np.float32)
    offset = np.random.default_rng(0).normal(size=60).astype(np.float32)
    cpu, card = Features(stored, offset), Features(stored, offset, device="cuda")
    assert np.allclose(cpu.gram, card.gram, rtol=1e-5, atol=1e-3)
    weights = np.random.default_rng(1).normal(size=(60, 5))
    assert np.allclose(cpu.times(weights), card.times(weights), atol=1e-4)
    points = np.random.default_rng(2).normal(size=(5000, 30)) * np.arange(1, 31)
    assert np.allclose(components(points, 7, "cuda"), components(points, 7, "cpu"), atol=1e-9)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_neighbours_are_those_of_scikit_learn(metric):
    points = np.random.default_rng(0).normal(size=(3000, 20)).astype(np.float32)
    asked = graphs.nearest_neighbors(points, 14, metric, 0)
    found = graphs.nearest_neighbors(points, 14, metric, 0, "cuda")
    assert (found != asked).nnz == 0


def test_mixtures_are_those_of_the_cpu():
    rng = np.random.default_rng(0)
    points = torch.as_tensor(rng.normal(size=(4, 8))[rng.integers(4, size=2000)] * 3 + rng.normal(size=(2000, 8)))
    start = torch.as_tensor(rng.integers(4, size=(3, 2000)))
    cpu, card = tied.fit(points, start), tied.fit(points.to(CARD), start.to(CARD))
    assert torch.equal(cpu.predict(points), card.predict(points.to(CARD)).cpu())
    assert torch.allclose(cpu.log_likelihood, card.log_likelihood.cpu(), rtol=0, atol=1e-9)


def test_a_whole_run_finds_what_it_finds_on_the_cpu():
    found = {}
    for device in ("cpu", "cuda"):
        adata = simulate(600, 200, 4)
        scrcl.find_cell_types(adata, 4, n_seeds=2, umap=False, device=device, hidden=32)
        found[device] = adata.obs["scrcl"]
    assert adjusted_rand_score(found["cpu"], found["cuda"]) > 0.98
