"""Full-batch training. No clustering and no scoring happens in here."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse
from tqdm.auto import tqdm

import graphs
from model import GraphInputs, Losses, ScRCL, losses
from utils import UserError

PLATEAU_EPOCHS = 10  # over which a loss is seen to fall or not


class Fitted(NamedTuple):
    """encoder: [N, 2H] float32, [E1 | E2]; refined: [N, 2K'], [Z1 | Z2]; model on its device; history: per epoch, the losses."""

    encoder: np.ndarray
    refined: np.ndarray
    model: ScRCL
    history: list[dict[str, float]]


def graph_inputs(
    values: np.ndarray,
    cells: sparse.spmatrix,
    genes: sparse.spmatrix,
    hops: tuple[int, int],
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> GraphInputs:
    """Everything that stays constant over training, computed once and moved to the device.

    values: [N, G] as the encoders see them; cells: A, [N, N]; genes: B, [G, G];
    hops: smoothing hops of the two views.
    """
    neighbourhood = graphs.with_self_loops(cells)
    a_hat = graphs.normalised(neighbourhood).astype(values.dtype)
    view1 = graphs.smooth(values, a_hat, hops[0])
    # One hop more than the view has: the first propagation of the graph encoder.
    propagated_view2 = graphs.smooth(values, a_hat, hops[1] + 1)
    return GraphInputs(
        view1=torch.as_tensor(view1, dtype=dtype, device=device),
        propagated_view2=torch.as_tensor(propagated_view2, dtype=dtype, device=device),
        normalised=sparse_tensor(a_hat, device, dtype),
        neighbourhood=sparse_tensor(neighbourhood, device, dtype),
        gene_graph=sparse_tensor(graphs.normalised(genes), device, dtype),
    )


def sparse_tensor(matrix: sparse.spmatrix, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """A scipy matrix as a torch CSR tensor."""
    matrix = matrix.tocsr()
    matrix.sort_indices()
    with warnings.catch_warnings():  # torch announces at each first use that CSR is in beta
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
        return torch.sparse_csr_tensor(
            torch.as_tensor(matrix.indptr, dtype=torch.int64),
            torch.as_tensor(matrix.indices, dtype=torch.int64),
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
) -> Fitted:
    """Train a new model with Adam for that many epochs and embed all cells without dropout.

    plateau: end earlier, once the loss has fallen by less than this share of its first value over 10 epochs; 0 for never.
    on_epoch receives {seed, epoch, hea_global, hea_cell, ndc, cvc, total} after each epoch.
    The caller's torch random state is left as it was.
    Raises UserError when a loss is not finite.
    """
    device = inputs.view1.device
    history: list[dict[str, float]] = []
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        model = ScRCL(*inputs.view1.shape, hidden, refined_width, dropout).to(device, inputs.view1.dtype)
        optimizer = adam(model, lr, weight_decay)
        # disable=None: no bar where stderr is a file
        progress = tqdm(range(1, epochs + 1), desc=f"seed {seed}", unit="epoch", disable=None)
        for epoch in progress:
            terms = step(model, inputs, optimizer, temperature, lambda1, lambda2, consistency)
            record = {"seed": seed, "epoch": epoch, **terms}
            on_epoch(record)
            if not math.isfinite(record["total"]):
                raise _diverged(f"The loss is no longer a finite number in epoch {epoch} of seed {seed}")
            history.append(record)
            progress.set_postfix({name: f"{value:.3g}" for name, value in terms.items()}, refresh=False)
            if _has_flattened(history, plateau):
                progress.total = epoch  # the bar ends full
                break
        progress.close()
    encoder, refined = embed(model, inputs)
    if not (np.isfinite(encoder).all() and np.isfinite(refined).all()):
        raise _diverged(f"The embedding is not finite after the last epoch of seed {seed}")
    return Fitted(encoder, refined, model, history)


def _has_flattened(history: list[dict[str, float]], plateau: float) -> bool:
    """Whether the total loss has fallen by less than plateau times its first value over the last PLATEAU_EPOCHS."""
    if len(history) <= PLATEAU_EPOCHS:
        return False
    fallen = history[-1 - PLATEAU_EPOCHS]["total"] - history[-1]["total"]
    return fallen < plateau * abs(history[0]["total"])


def adam(model: ScRCL, lr: float, weight_decay: float) -> torch.optim.Adam:
    """Adam with L2 weight decay, as published, in one kernel where the device has one."""
    fused = next(model.parameters()).device.type in ("cpu", "cuda")
    return torch.optim.Adam(model.parameters(), lr=lr, weight_decay=weight_decay, fused=fused)


def _diverged(what: str) -> UserError:
    return UserError(f"{what}; lower --lr or raise --temperature.")


def step(
    model: ScRCL,
    inputs: GraphInputs,
    optimizer: torch.optim.Optimizer,
    temperature: float,
    lambda1: float,
    lambda2: float,
    consistency: str = "published",
) -> dict[str, float]:
    """One full-batch step; the losses before it, with their weighted total."""
    model.train()
    optimizer.zero_grad(set_to_none=True)
    terms: Losses = losses(model(inputs), inputs.neighbourhood, temperature, consistency)
    total = terms.total(lambda1, lambda2)
    total.backward()
    optimizer.step()
    values = torch.stack([*terms, total]).tolist()  # one transfer from the device
    return dict(zip([*Losses._fields, "total"], values))


@torch.no_grad()
def embed(model: ScRCL, inputs: GraphInputs) -> tuple[np.ndarray, np.ndarray]:
    """[E1 | E2] and [Z1 | Z2] of all cells, float32, dropout off."""
    model.eval()
    e1, e2, z1, z2 = model(inputs)
    return torch.cat([e1, e2], dim=1).float().cpu().numpy(), torch.cat([z1, z2], dim=1).float().cpu().numpy()
