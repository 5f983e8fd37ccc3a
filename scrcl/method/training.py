"""Train the network on all cells at once; nothing is clustered or scored here."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from scrcl.disk import interrupts
from scrcl.disk.checkpoints import Checkpoints
from scrcl.messages import UserError, log, progress
from scrcl.method.inputs import GraphInputs
from scrcl.method.losses import Losses, Objective
from scrcl.method.network import PER_CELL, Architecture, ScRCL
from scrcl.method.reuse import kept_memory
from scrcl.method.shares import Share
from scrcl.method.updates import Updates
from scrcl.runtime import keep_freed_memory

PLATEAU_EPOCHS = 10  # epochs over which the fall of the loss is measured


class Fitted(NamedTuple):
    """A trained network.

    Attributes
    ----------
    model
        The network after the last epoch, on its device.
    history
        The losses of each epoch.
    """

    model: ScRCL
    history: list[dict[str, float]]


class Schedule(NamedTuple):
    """How long and how fast to train.

    Attributes
    ----------
    epochs
        Full-batch epochs at most.
    lr, weight_decay
        Adam's learning rate and L2 weight decay.
    plateau
        Training ends when the loss falls by less than this share of its first value in 10 epochs; 0 for never.
    """

    epochs: int
    lr: float
    weight_decay: float
    plateau: float = 0.0


def fit(
    inputs: GraphInputs,
    architecture: Architecture,
    objective: Objective,
    schedule: Schedule,
    *,
    seed: int,
    on_epoch: Callable[[dict[str, float]], None] = lambda record: None,
    checkpoints: Checkpoints | None = None,
) -> Fitted:
    """Train a new model with Adam.

    Within `interrupts.handled()`, as in the scripts, Ctrl-C and SIGTERM take effect at the end of the epoch, after the
    state has been saved. The caller's torch random state stays as it was.

    Parameters
    ----------
    inputs, architecture, objective, schedule
        What to train on, which network, what to minimise, and for how long.
    seed
        Sets the initial parameters and dropout.
    on_epoch
        Receives {seed, epoch, the losses, total} after each epoch, also for epochs from the checkpoint.
    checkpoints
        Where the state of training is saved, and where training continues from.

    Raises
    ------
    UserError
        When a loss is not finite.
    """
    keep_freed_memory()
    device, share, checkpoints = inputs.view1.device, inputs.share, checkpoints or Checkpoints()
    devices = [device] if device.type == "cuda" else []
    with (
        torch.random.fork_rng(devices=devices),
        interrupts.deferred() as asked_to_end,
        kept_memory(inputs.view1.shape[0] * architecture.hidden, device),
    ):
        model, optimizer, history = _begin(inputs, architecture, schedule, seed, checkpoints)
        for record in history:
            on_epoch(record)
        bar = progress(desc=f"seed {seed}", unit="epoch", total=schedule.epochs, initial=len(history))
        ends, update = False, Updates(model, inputs, optimizer, objective)
        while len(history) < schedule.epochs and not _has_flattened(history, schedule.plateau) and not ends:
            terms = dict(zip([*Losses._fields, "total"], update().tolist()))  # the only transfer from the device
            # All processes have to go on, save and end together, so they hold the same losses to the last bit.
            *told, is_due = share.same([*terms.values(), checkpoints.is_due(len(history) + 1)])
            terms, ends = dict(zip(terms, told)), share.any(asked_to_end())
            history.append({"seed": seed, "epoch": len(history) + 1, **terms})
            on_epoch(history[-1])
            if not math.isfinite(terms["total"]):
                raise _diverged(f"The loss is no longer a finite number in epoch {len(history)} of seed {seed}")
            bar.set_postfix({name: f"{value:.3g}" for name, value in terms.items()}, refresh=False)
            bar.update()
            if is_due or ends:
                checkpoints.keep_training(_state(seed, model, optimizer, history, share))
        bar.total = len(history)  # the bar ends full, also on a plateau
        bar.close()
        optimizer.zero_grad(set_to_none=True)  # the gradients' memory is wanted for the embeddings
        if ends and not asked_to_end():  # another process was
            raise interrupts.Terminated
    return Fitted(model, history)


def _begin(
    inputs: GraphInputs, architecture: Architecture, schedule: Schedule, seed: int, checkpoints: Checkpoints
) -> tuple[ScRCL, torch.optim.Adam, list[dict[str, float]]]:
    """Return a new model, its optimizer and no losses, or those of the checkpoint; torch's random state fits them."""
    torch.manual_seed(seed)
    model, share = new_model(inputs, architecture), inputs.share
    optimizer = adam(model, schedule)
    history = _go_on(_own_part(checkpoints.training(seed), model, share), model, optimizer)
    if inputs.view1.device.type == "cuda" and share.rank:
        # So that no two processes drop the same units, nor one of them the same after it was resumed.
        torch.cuda.manual_seed((seed * 10_000 + len(history)) * 10_000 + share.rank)
    return model, optimizer, history


def new_model(inputs: GraphInputs, architecture: Architecture) -> ScRCL:
    """Return a new model for these inputs, on their device, with parameters drawn from torch's random state."""
    here, n_genes = inputs.view1.shape
    model = ScRCL(inputs.share.n_cells(here), n_genes, architecture)
    per_cell = model.gene_encoder.lin  # drawn for all cells, so that each has the weights that one process would draw
    per_cell.weight = torch.nn.Parameter(inputs.share.cut(per_cell.weight.data))
    return model.to(inputs.view1.device, inputs.view1.dtype)


def restored_model(
    parameters: dict[str, torch.Tensor] | None, inputs: GraphInputs, architecture: Architecture
) -> ScRCL:
    """Return a model with the parameters of an earlier one.

    The caller's torch random state stays as it was.

    Parameters
    ----------
    parameters
        The state dict of the earlier model, of all cells; only the first of several processes needs it.
    inputs, architecture
        What it was trained on, and its sizes.
    """
    with torch.random.fork_rng(devices=[]):
        model = new_model(inputs, architecture)
    state = _own_part(None if parameters is None else {"model": parameters}, model, inputs.share)
    assert state is not None
    model.load_state_dict(state["model"])
    return model


def whole_parameters(model: ScRCL, share: Share) -> dict[str, torch.Tensor]:
    """Return the parameters in CPU memory, of all cells in the first of several processes."""
    parameters = {name: value.cpu() for name, value in model.state_dict().items()}
    return parameters | {PER_CELL: share.join(parameters[PER_CELL])}


def in_order_of_cells(parameters: dict[str, torch.Tensor], order: np.ndarray | None) -> dict[str, torch.Tensor]:
    """Return parameters that fit the cells in their own order, for a model trained on them in another order.

    Only the gene encoder's weights depend on the order of the cells.

    Parameters
    ----------
    parameters
        The state dict of the model.
    order
        [N], the order in training; None for the cells' own.
    """
    if order is None:
        return parameters
    weight = torch.empty_like(parameters[PER_CELL])
    weight[:, order] = parameters[PER_CELL]
    return parameters | {PER_CELL: weight}


def _state(
    seed: int, model: ScRCL, optimizer: torch.optim.Adam, history: list[dict[str, float]], share: Share
) -> dict[str, Any]:
    """Return everything that the next epochs depend on, of all cells in the first of several processes."""
    on_cuda = next(model.parameters()).is_cuda
    state = {
        "seed": seed,
        "epoch": len(history),
        "history": history,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": torch.get_rng_state(),
        "random_cuda": torch.cuda.get_rng_state(next(model.parameters()).device) if on_cuda else None,
    }
    return _per_cell_changed(state, model, share.join)


def _own_part(state: dict[str, Any] | None, model: ScRCL, share: Share) -> dict[str, Any] | None:
    """Return the part of a state that belongs to the cells of this process, from the state in the first process."""
    return share.handed_out(lambda other: state and _per_cell_changed(state, model, other.cut))


def _per_cell_changed(
    state: dict[str, Any], model: ScRCL, change: Callable[[torch.Tensor], torch.Tensor]
) -> dict[str, Any]:
    """Return a state with what has one column per cell changed: the gene encoder's weights, and Adam's moments."""
    changed = state | {"model": state["model"] | {PER_CELL: change(state["model"][PER_CELL])}}
    if "optimizer" in state:
        adam = state["optimizer"]["state"]
        number = [name for name, _ in model.named_parameters()].index(PER_CELL)
        moments = {name: change(value) if value.ndim else value for name, value in adam[number].items()}
        changed["optimizer"] = state["optimizer"] | {"state": adam | {number: moments}}
    return changed


def _go_on(state: dict[str, Any] | None, model: ScRCL, optimizer: torch.optim.Adam) -> list[dict[str, float]]:
    """Restore a state, with torch's random state, and return the losses up to it; without a state, return none."""
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
    """Return whether the total loss fell by less than `plateau` times its first value over the last PLATEAU_EPOCHS.

    With a plateau of 0 it never does.
    """
    if plateau == 0 or len(history) <= PLATEAU_EPOCHS:
        return False
    fallen = history[-1 - PLATEAU_EPOCHS]["total"] - history[-1]["total"]
    return fallen < plateau * abs(history[0]["total"])


def adam(model: ScRCL, schedule: Schedule) -> torch.optim.Adam:
    """Return Adam with L2 weight decay, as published, in one fused kernel where the device has one."""
    device = next(model.parameters()).device.type
    return torch.optim.Adam(
        model.parameters(),
        lr=schedule.lr,
        weight_decay=schedule.weight_decay,
        fused=device in ("cpu", "cuda"),
        capturable=device == "cuda",  # so that `Updates` can record it
    )


def _diverged(what: str) -> UserError:
    """Return the error for a training that has diverged."""
    return UserError(f"{what}; lower --lr or raise --temperature.")


class Embedded(NamedTuple):
    """The embeddings of all cells, float32.

    Attributes
    ----------
    encoder
        [N, 2H], [E1 | E2].
    refined
        [N, 2K'], [Z1 | Z2].
    lengths
        [N, 2], the lengths of the rows of H1 and H2, before they were scaled to 1.
    """

    encoder: np.ndarray
    refined: np.ndarray
    lengths: np.ndarray


@torch.no_grad()
def embed(model: ScRCL, inputs: GraphInputs) -> Embedded:
    """Embed all cells, without dropout; of several processes, the first returns all.

    Parameters
    ----------
    model
        A trained network.
    inputs
        What it was trained on.

    Raises
    ------
    UserError
        When an embedding is not finite.
    """
    model.eval()
    hidden = model.encode(inputs)
    lengths = torch.stack([h.norm(dim=1) for h in hidden], dim=1)
    e1, e2, z1, z2 = model.contrasted(*hidden, model.encode_genes(inputs), inputs.block, inputs.share)
    views = torch.cat([e1, e2], dim=1), torch.cat([z1, z2], dim=1), lengths
    found = Embedded(*(inputs.share.join(points.float(), dim=0).cpu().numpy() for points in views))
    if not all(np.isfinite(points).all() for points in found):
        raise _diverged("The embedding is not finite after the last epoch")
    return found
