"""Full-batch training. No clustering and no scoring happens in here."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import sparse
from tqdm.auto import tqdm

import graphs
import interrupts
from checkpoints import Checkpoints
from features import Features
from model import GraphInputs, Losses, ScRCL, losses
from utils import UserError, keep_freed_memory, log
from views import SparseView

PER_CELL = "gene_encoder.lin.weight"  # [K', N]
PLATEAU_EPOCHS = 10  # over which a loss is seen to fall or not


class Fitted(NamedTuple):
    """model on its device, its last state; history: per epoch, the losses."""

    model: ScRCL
    history: list[dict[str, float]]


def graph_inputs(
    values: np.ndarray | Features,
    cells: sparse.spmatrix,
    genes: sparse.spmatrix,
    hops: Sequence[int],
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    block: int = 0,
) -> GraphInputs:
    """Everything that stays constant over training, computed once and moved to the device.

    values: [N, G] as the encoders see them, dense or sparse; cells: A, [N, N]; genes: B, [G, G];
    hops: smoothing hops of the two views; block: cells at a time, 0 for all, see GraphInputs.
    """
    neighbourhood = graphs.with_self_loops(cells)
    a_hat = graphs.normalised(neighbourhood).astype(np.float32 if isinstance(values, Features) else values.dtype)
    normalised = sparse_tensor(a_hat, device, dtype)
    view1: torch.Tensor | SparseView
    propagated: torch.Tensor | SparseView
    if isinstance(values, Features):
        view1 = SparseView(values, normalised, hops[0], block or len(a_hat.indptr))
        propagated = view1.after(hops[1] + 1)
    else:
        view1 = torch.as_tensor(graphs.smooth(values, a_hat, hops[0]), dtype=dtype, device=device)
        # One hop more than the view has: the first propagation of the graph encoder.
        propagated = torch.as_tensor(graphs.smooth(values, a_hat, hops[1] + 1), dtype=dtype, device=device)
    return GraphInputs(
        view1=view1,
        propagated_view2=propagated,
        normalised=normalised,
        neighbourhood=sparse_tensor(neighbourhood, device, dtype),
        gene_graph=sparse_tensor(graphs.normalised(genes), device, dtype),
        block=block,
    )


def sparse_tensor(matrix: sparse.spmatrix, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """A scipy matrix as a torch CSR tensor."""
    matrix = matrix.tocsr()
    matrix.sort_indices()
    # What MKL takes; it would make them of 64 bits at every product.
    index = torch.int32 if matrix.nnz < 2**31 else torch.int64
    with warnings.catch_warnings():  # torch announces at each first use that CSR is in beta
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
        return torch.sparse_csr_tensor(
            torch.as_tensor(matrix.indptr, dtype=index),
            torch.as_tensor(matrix.indices, dtype=index),
            torch.as_tensor(matrix.data, dtype=dtype),
            size=matrix.shape,
            device=device,
            check_invariants=True,
        )


def fit(
    inputs: GraphInputs,
    *,
    hidden: int,
    refined_width: int,
    dropout: float,
    epochs: int,
    lr: float,
    weight_decay: float,
    temperature: float,
    lambda1: float,
    lambda2: float,
    consistency: str = "published",
    plateau: float = 0.0,
    seed: int,
    on_epoch: Callable[[dict[str, float]], None] = lambda record: None,
    checkpoints: Checkpoints | None = None,
) -> Fitted:
    """Train a new model with Adam for that many epochs.

    plateau: end earlier, once the loss has fallen by less than this share of its first value over 10 epochs; 0 for never.
    on_epoch receives {seed, epoch, hea_global, hea_cell, ndc, cvc, total} after each epoch, also for epochs of the checkpoint.
    checkpoints: where the state of training is kept, and where it goes on from.
    Within interrupts.handled(), as in the scripts, Ctrl-C and SIGTERM wait for the end of the epoch, after which the state is kept.
    The caller's torch random state is left as it was.
    Raises UserError when a loss is not finite.
    """
    keep_freed_memory()
    device, checkpoints = inputs.view1.device, checkpoints or Checkpoints()
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), interrupts.deferred() as asked_to_end:
        torch.manual_seed(seed)
        model = new_model(inputs, hidden, refined_width, dropout)
        optimizer = adam(model, lr, weight_decay)
        history = _go_on(checkpoints.training(seed), model, optimizer)
        for record in history:
            on_epoch(record)
        # disable=None: no bar where stderr is a file
        progress = tqdm(desc=f"seed {seed}", unit="epoch", total=epochs, initial=len(history), disable=None)
        while len(history) < epochs and not _has_flattened(history, plateau) and not asked_to_end():
            terms = step(model, inputs, optimizer, temperature, lambda1, lambda2, consistency)
            history.append({"seed": seed, "epoch": len(history) + 1, **terms})
            on_epoch(history[-1])
            if not math.isfinite(terms["total"]):
                raise _diverged(f"The loss is no longer a finite number in epoch {len(history)} of seed {seed}")
            progress.set_postfix({name: f"{value:.3g}" for name, value in terms.items()}, refresh=False)
            progress.update()
            if checkpoints.is_due(len(history)) or asked_to_end():
                checkpoints.keep_training(_state(seed, model, optimizer, history))
        progress.total = len(history)  # the bar ends full, also on a plateau
        progress.close()
    return Fitted(model, history)


def new_model(inputs: GraphInputs, hidden: int, refined_width: int, dropout: float) -> ScRCL:
    """A model for these inputs, on their device, with parameters from torch's random state."""
    n_cells, n_genes = inputs.view1.shape
    model = ScRCL(n_cells, n_genes, hidden, refined_width, dropout)
    return model.to(inputs.view1.device, inputs.view1.dtype)


def restored_model(parameters: dict[str, torch.Tensor], inputs: GraphInputs, **settings: Any) -> ScRCL:
    """new_model with parameters of an earlier one of the same settings; the caller's torch random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        model = new_model(inputs, **settings)
    model.load_state_dict(parameters)
    return model


def in_order_of_cells(parameters: dict[str, torch.Tensor], order: np.ndarray | None) -> dict[str, torch.Tensor]:
    """Parameters of a model that has seen the cells in that order, for cells as they stand; the gene encoder's hang on it."""
    if order is None:
        return parameters
    weight = torch.empty_like(parameters[PER_CELL])
    weight[:, order] = parameters[PER_CELL]
    return parameters | {PER_CELL: weight}


def _state(seed: int, model: ScRCL, optimizer: torch.optim.Adam, history: list[dict[str, float]]) -> dict[str, Any]:
    """All that the next epochs depend on."""
    on_cuda = next(model.parameters()).is_cuda
    return {
        "seed": seed,
        "epoch": len(history),
        "history": history,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": torch.get_rng_state(),
        "random_cuda": torch.cuda.get_rng_state(next(model.parameters()).device) if on_cuda else None,
    }


def _go_on(state: dict[str, Any] | None, model: ScRCL, optimizer: torch.optim.Adam) -> list[dict[str, float]]:
    """Bring a state back, torch's random one included; the losses of the epochs before it, none without a state."""
    if state is None:
        return []
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["random"])
    if state["random_cuda"] is not None:
        torch.cuda.set_rng_state(state["random_cuda"], next(model.parameters()).device)
    log.info("Going on from epoch %d of seed %d.", state["epoch"], state["seed"])
    return state["history"]


def _has_flattened(history: list[dict[str, float]], plateau: float) -> bool:
    """Whether the total loss has fallen by less than plateau times its first value over the last PLATEAU_EPOCHS; never for a plateau of 0."""
    if plateau == 0 or len(history) <= PLATEAU_EPOCHS:
        return False
    fallen = history[-1 - PLATEAU_EPOCHS]["total"] - history[-1]["total"]
    return fallen < plateau * abs(history[0]["total"])


def adam(model: ScRCL, lr: float, weight_decay: float) -> torch.optim.Adam:
    """Adam with L2 weight decay, as published, in one kernel where the device has one."""
    fused = next(model.parameters()).device.type in ("cpu", "cuda")
    return torch.optim.Adam(model.parameters(), lr=lr, weight_decay=weight_decay, fused=fused)


def _diverged(what: str) -> UserError:
    return UserError(f"{what}; lower --lr or raise --temperature.")


def step(*arguments: Any, **settings: Any) -> dict[str, float]:
    """An update, and its losses by name: the one transfer from the device."""
    return dict(zip([*Losses._fields, "total"], update(*arguments, **settings).tolist()))


def update(
    model: ScRCL,
    inputs: GraphInputs,
    optimizer: torch.optim.Optimizer,
    temperature: float,
    lambda1: float,
    lambda2: float,
    consistency: str = "published",
) -> torch.Tensor:
    """One full-batch step without waiting for the device; the losses before it and their weighted total, [5], on the device."""
    model.train()
    optimizer.zero_grad(set_to_none=True)
    terms: Losses = losses(model(inputs), inputs.neighbourhood, temperature, consistency, inputs.block)
    total = terms.total(lambda1, lambda2)
    total.backward()
    _update(optimizer)
    return torch.stack([*terms, total]).detach()


class Embedded(NamedTuple):
    """encoder: [N, 2H] float32, [E1 | E2]; refined: [N, 2K'], [Z1 | Z2]; lengths: [N, 2], those that the rows of E1 and E2 had."""

    encoder: np.ndarray
    refined: np.ndarray
    lengths: np.ndarray


def _update(optimizer: torch.optim.Optimizer) -> None:
    """One step of the optimizer in one thread: where a tensor is split between threads, its kernel rounds differently."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        optimizer.step()
    finally:  # Ctrl-C in a notebook
        torch.set_num_threads(threads)


@torch.no_grad()
def embed(model: ScRCL, inputs: GraphInputs) -> Embedded:
    """Embed all cells, dropout off. Raises UserError where that is not finite."""
    model.eval()
    hidden = model.encode(inputs)
    lengths = torch.stack([h.norm(dim=1) for h in hidden], dim=1)
    e1, e2, z1, z2 = model.contrasted(*hidden, inputs)
    views = torch.cat([e1, e2], dim=1), torch.cat([z1, z2], dim=1), lengths
    found = Embedded(*(points.float().cpu().numpy() for points in views))
    if not all(np.isfinite(points).all() for points in found):
        raise _diverged("The embedding is not finite after the last epoch")
    return found
