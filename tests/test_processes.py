"""Several processes find what one does: losses, gradients, checkpoints, whole runs; and what is left if one dies."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.metrics import adjusted_rand_score

from scrcl import processes
from scrcl.commands import script
from scrcl.disk.checkpoints import Checkpoints
from scrcl.messages import UserError
from scrcl.method import training, worker
from scrcl.method.inputs import HostInputs, host_inputs, on_device
from scrcl.method.losses import Objective
from scrcl.method.network import Architecture
from scrcl.method.shares import ALL, Halo, Part, graphs_of_share
from scrcl.method.updates import update
from scrcl.prepare import graphs
from scrcl.prepare.features import Features

SMALL = ["--hidden", 16, "--n-top-genes", 60, "--n-pcs", 10, "--no-figures", "--plateau", 0, "--threads", 1]
CPU, N_CELLS, N_GENES = torch.device("cpu"), 230, 40
FORMS = [(form, block, cvc) for form, block in [("dense", 0), ("sparse", 0), ("sparse", 50)]
         for cvc in ("published", "scale-free")]  # fmt: skip


def as_rank(environment: dict, function, arguments: tuple, log: str) -> None:
    """Call a function as one process of a torchrun, its output in a file."""
    os.environ.update(environment)
    torch.set_num_threads(1)
    with open(log, "a", buffering=1) as file, redirect_stdout(file), redirect_stderr(file):
        code = function(*arguments)
    sys.exit(code)


def together(server, n: int, folder: Path, function, *arguments) -> list[multiprocessing.Process]:
    """Start n processes as torchrun does; each one's output is in folder/log.RANK."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(n)}
    started = []
    for rank in range(n):
        ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        work = (address | ranks, function, arguments, str(folder / f"log.{rank}"))
        started.append(server.Process(target=as_rank, args=work))
        started[-1].start()
    return started


def said(folder: Path, rank: int) -> str:
    return (folder / f"log.{rank}").read_text()


def joined(started: list, folder: Path) -> None:
    """Wait for processes that have to end well."""
    for rank, process in enumerate(started):
        process.join(120)
        assert process.exitcode == 0, said(folder, rank)[-3000:]


def problem(form: str, block: int, dtype: type = np.float64) -> HostInputs:
    """Random inputs, with a graph between cells near and far."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(N_CELLS, N_GENES)).astype(dtype)
    half = sparse.random(N_CELLS, N_CELLS, 0.03, random_state=1, format="csr")
    cells = ((half + half.T) > 0).astype(np.float32).tolil()
    cells.setdiag(0)
    cells = cells.tocsr()
    cells.eliminate_zeros()
    genes = graphs.gene_graph(values, 5)
    if form == "dense":
        return host_inputs(values, cells, genes, (2, 1))
    stored = sparse.csr_matrix(np.where(rng.random(values.shape) < 0.3, values, 0).astype(np.float32))
    offset = rng.normal(size=N_GENES).astype(np.float32)
    return host_inputs(Features(stored, offset), cells, genes, (2, 1), block or N_CELLS)


def part_of(host: HostInputs, dtype: torch.dtype):
    """The inputs of this process's cells; shares of very unequal size."""
    n, rank = processes.number(), processes.rank()
    starts = [0, *(20 * np.arange(1, n)).tolist(), N_CELLS]
    return on_device(host.of(slice(starts[rank], starts[rank + 1])), CPU, dtype, Part(rank, starts))


def trained(inputs, cvc: str) -> tuple[list, dict, tuple, int]:
    """Losses, parameters and embeddings of a few steps with dropout, and where the random numbers have come to."""
    torch.manual_seed(3)
    model = training.new_model(inputs, Architecture(16, 8, 0.3))
    optimizer = training.adam(model, training.Schedule(5, 1e-2, 1e-4))
    losses = [update(model, inputs, optimizer, Objective(0.5, 10, 1, cvc)).tolist() for _ in range(5)]
    state = int(torch.get_rng_state().to(torch.int64).sum())
    return losses, training.whole_parameters(model, inputs.share), training.embed(model, inputs), state


def check_training() -> int:
    """In several processes: every form of the inputs against one process of all cells."""
    with processes.joined() as rank:
        for precision, within in ((torch.float64, 1e-9), (torch.float32, 1e-5)):
            for form, block, cvc in FORMS if precision == torch.float64 else FORMS[-1:]:
                host = problem(form, block)
                found = trained(part_of(host, precision), cvc)
                if rank:
                    continue
                asked = trained(on_device(host, CPU, precision), cvc)
                np.testing.assert_allclose(found[0], asked[0], rtol=within, atol=within)
                for name, value in asked[1].items():
                    np.testing.assert_allclose(found[1][name], value, rtol=within, atol=100 * within, err_msg=name)
                for mine, other in zip(found[2], asked[2]):
                    np.testing.assert_allclose(mine, other, atol=1e-4)
                assert found[3] == asked[3]
    return 0


@pytest.mark.parametrize("n", [2, 3, 4])
def test_several_processes_train_as_one(server, tmp_path, n):
    joined(together(server, n, tmp_path, check_training), tmp_path)


def check_halo() -> int:
    """In several processes: what is fetched are the rows that were asked for, also none."""
    with processes.joined() as rank:
        share = Part(rank, [0, 4, 4, 10])  # the second process has no cells
        rows = torch.arange(20, dtype=torch.float64).view(10, 2)
        wanted = [np.array([5, 9]), np.array([], dtype=int), np.array([0])][rank]
        halo = Halo(share, wanted)
        assert torch.equal(halo.fetch(rows[share.rows].clone()), rows[wanted])
        ring = sparse.csr_matrix(np.roll(np.eye(10), 1, axis=1) + np.roll(np.eye(10), -1, axis=1))
        share = Part(rank, [0, 4, 7, 10])
        (graph,) = graphs_of_share([ring[share.rows]], share, lambda m: torch.tensor(m.toarray()).to_sparse_csr())
        assert graph.halo.taken[rank] == 0 and sum(graph.halo.taken) == 2  # one cell at either end
        assert torch.equal(
            graph.times(rows[share.rows].clone()), torch.tensor(ring.toarray() @ rows.numpy())[share.rows]
        )
    return 0


def test_a_halo_fetches_what_is_elsewhere(server, tmp_path):
    joined(together(server, 3, tmp_path, check_halo), tmp_path)


def check_checkpoints(folder: str, epochs: int, resume: bool) -> int:
    """In any number of processes: train with checkpoints; the first leaves what it has trained in a file."""
    with processes.joined() as rank:
        host = problem("sparse", 50)
        inputs = part_of(host, torch.float64) if processes.number() > 1 else on_device(host, CPU, torch.float64)
        kept = Checkpoints(None if rank else Path(folder) / "kept", 3, resume)
        if not rank:
            kept.open({"run": 1})
        how = Architecture(16, 8, 0.3), Objective(0.5, 10, 1), training.Schedule(epochs, 1e-2, 1e-4)
        fitted = training.fit(inputs, *how, seed=1, checkpoints=kept)
        parameters = training.whole_parameters(fitted.model, inputs.share)
        again = training.restored_model(None if rank else parameters, inputs, how[0])
        assert all(torch.equal(a, b) for a, b in zip(again.parameters(), fitted.model.parameters()))
        if not rank:
            assert kept.resumed_from == ("epoch 6 of seed 1" if resume else "")
            losses = [record["total"] for record in fitted.history]
            torch.save({"losses": torch.tensor(losses), **parameters}, Path(folder) / f"{epochs}.pt")
    return 0


@pytest.mark.parametrize(("before", "after"), [(3, 2), (1, 3), (2, 1)])
def test_training_goes_on_in_another_number_of_processes(server, tmp_path, before, after):
    joined(together(server, before, tmp_path, check_checkpoints, str(tmp_path), 6, False), tmp_path)
    joined(together(server, after, tmp_path, check_checkpoints, str(tmp_path), 12, True), tmp_path)
    found = torch.load(tmp_path / "12.pt", weights_only=True)
    (tmp_path / "whole").mkdir()
    joined(together(server, 1, tmp_path, check_checkpoints, str(tmp_path / "whole"), 12, False), tmp_path)
    asked = torch.load(tmp_path / "whole" / "12.pt", weights_only=True)
    assert len(found["losses"]) == 12
    for name, value in asked.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-9, msg=name)


def agreement(*folders: Path) -> float:
    """The adjusted Rand index of the final labels of two runs."""
    return adjusted_rand_score(*(pd.read_csv(folder / "labels.csv")["scrcl"] for folder in folders))


def cells(argv: list) -> int:
    return script.run("cells", [str(word) for word in argv], "scrcl cells")


def test_a_whole_run_in_two_processes(server, tmp_path, counts):
    """The same labels; the first process alone writes and speaks."""
    counts.write_h5ad(tmp_path / "in.h5ad")
    argv = ["--dataset", tmp_path / "in.h5ad", *SMALL, "--seeds", 1, 2, "--epochs", 8, "--output"]
    assert cells([*argv, tmp_path / "alone"]) == 0
    joined(together(server, 2, tmp_path, cells, [*argv, tmp_path / "two"]), tmp_path)
    assert agreement(tmp_path / "alone", tmp_path / "two") == 1
    assert "Training in 2 processes." in said(tmp_path, 0) and "consensus" in said(tmp_path, 0)
    assert said(tmp_path, 1) == ""
    models = [torch.load(tmp_path / name / "model.pt", weights_only=True) for name in ("alone", "two")]
    for name, value in models[0].items():
        torch.testing.assert_close(models[1][name], value, rtol=1e-4, atol=1e-4, msg=name)
    points = [ad.read_h5ad(tmp_path / name / "result.h5ad").obsm["X_scrcl"] for name in ("alone", "two")]
    np.testing.assert_allclose(*points, atol=1e-3)


def test_bad_input_ends_all_processes(server, tmp_path, counts):
    counts[:2].write_h5ad(tmp_path / "in.h5ad")
    started = together(server, 2, tmp_path, cells, ["--dataset", tmp_path / "in.h5ad", *SMALL])
    for process in started:
        process.join(60)
    assert [process.exitcode for process in started] == [2, 0]
    assert said(tmp_path, 0).count("Error: ") == 1 and said(tmp_path, 1) == ""


@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_dies_ends_the_run(server, tmp_path, counts, victim):
    """In one sentence, with the checkpoint whole: a single process goes on to what an undisturbed run finds."""
    counts.write_h5ad(tmp_path / "in.h5ad")
    argv = ["--dataset", tmp_path / "in.h5ad", *SMALL, "--seed", 1, "--checkpoint-every", 5, "--output"]
    started = together(server, 2, tmp_path, cells, [*argv, tmp_path / "out", "--epochs", 400])
    while not (tmp_path / "out" / "checkpoint" / "training.pt").exists():
        assert all(process.exitcode is None for process in started), said(tmp_path, 0)
        time.sleep(0.001)
    started[victim].kill()
    for process in started:
        process.join(60)
    assert started[victim].exitcode == -signal.SIGKILL and started[1 - victim].exitcode == 2
    errors = [line for line in said(tmp_path, 1 - victim).splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1 and "--resume" in errors[0]
    assert "Traceback" not in said(tmp_path, 1 - victim)
    assert cells([*argv, tmp_path / "out", "--epochs", 400, "--resume", "--threads", 2]) == 0
    assert cells([*argv, tmp_path / "undisturbed", "--epochs", 400]) == 0
    assert agreement(tmp_path / "out", tmp_path / "undisturbed") == 1


@pytest.mark.parametrize("asked", [0, 1])
def test_a_process_that_is_asked_to_end_ends_all(server, tmp_path, counts, asked):
    """At the end of the epoch, whichever process the signal goes to, and with what was trained so far."""
    counts.write_h5ad(tmp_path / "in.h5ad")
    argv = ["--dataset", tmp_path / "in.h5ad", *SMALL, "--seed", 1, "--checkpoint-every", 300, "--epochs", 5000]
    started = together(server, 2, tmp_path, cells, [*argv, "--output", tmp_path / "out"])
    while not (tmp_path / "out" / "log.unfinished.jsonl").exists():
        assert all(process.exitcode is None for process in started), said(tmp_path, 0)
        time.sleep(0.001)
    os.kill(started[asked].pid, signal.SIGTERM)
    for process in started:
        process.join(60)
    assert [process.exitcode for process in started] == [143, 143], said(tmp_path, 0)
    assert "saved in" in said(tmp_path, 0) and "Terminated" in said(tmp_path, 0)
    state = torch.load(tmp_path / "out" / "checkpoint" / "training.pt", weights_only=True)
    assert 0 < state["epoch"] < 5000 and len(state["model"]["gene_encoder.lin.weight"].T) == counts.n_obs
    assert not (tmp_path / "out" / "checkpoint" / "seed_1.pt").exists()


def test_more_processes_than_cells_are_refused(monkeypatch):
    monkeypatch.setattr(processes, "number", lambda: N_CELLS + 1)
    how = Architecture(16, 8, 0.3), Objective(0.5, 10, 1), training.Schedule(5, 1e-2, 1e-4)
    with pytest.raises(UserError, match="231 processes cannot share 230 cells"):
        worker.shared_inputs(problem("dense", 0), CPU, *how, [1])


def test_each_process_needs_a_card_of_its_own(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "1")
    taken = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    assert processes._backend("cpu") == "gloo" and taken == []
    with pytest.raises(UserError, match="4 processes on this machine and 2 cards"):
        processes._backend("auto")
    with pytest.raises(UserError, match="cannot share --device cuda:0"):
        processes._backend("cuda:0")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")  # of two machines
    assert processes._backend("cuda") == "cpu:gloo,cuda:nccl" and taken == [1]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert processes._backend("auto") == "gloo"


def test_a_share_of_all_cells_changes_nothing():
    x = torch.rand(7, dtype=torch.float64, requires_grad=True)
    assert ALL.total(x) is x and ALL.cut(x) is x and ALL.n_cells(7) == 7
    assert ALL.same([1, 2]) == [1, 2] and ALL.any(True) and not ALL.any(False)
    torch.testing.assert_close(ALL.softmax(x), x.softmax(0))
    torch.testing.assert_close(ALL.mean(x), x.mean())
