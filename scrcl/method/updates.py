"""Update the network once per epoch; on a card, an update is recorded once and then replayed."""

from __future__ import annotations

import torch
from torch import Tensor

from scrcl.method.inputs import GraphInputs
from scrcl.method.losses import Objective, losses
from scrcl.method.network import PER_CELL, ScRCL
from scrcl.method.shares import ALL, Share

WARM_UP = 3  # updates before the recording, in which libraries allocate what they may not while recording


def update(model: ScRCL, inputs: GraphInputs, optimizer: torch.optim.Optimizer, objective: Objective) -> Tensor:
    """Make one full-batch update, without waiting for the device.

    Parameters
    ----------
    model, inputs, optimizer, objective
        The network, what it is trained on, Adam, and what is minimised.

    Returns
    -------
    The losses before the update and their weighted total, on the device.
    """
    model.train()
    optimizer.zero_grad(set_to_none=True)
    terms = losses(model(inputs), inputs.neighbourhood, objective, inputs.block, inputs.share)
    total = objective.total(terms)
    (total / inputs.share.n_processes).backward()
    _add_up_gradients(model, inputs.share)
    _step_in_one_thread(optimizer)
    return torch.stack([*terms, total]).detach()


def _add_up_gradients(model: ScRCL, share: Share) -> None:
    """Add up the gradients of what all processes have in common."""
    for name, parameter in model.named_parameters():
        if name != PER_CELL and parameter.grad is not None:
            share.add_up(parameter.grad)


def _step_in_one_thread(optimizer: torch.optim.Optimizer) -> None:
    """Run one step of the optimizer in one thread, since its kernel rounds differently where threads split a tensor."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        optimizer.step()
    finally:  # also after Ctrl-C in a notebook
        torch.set_num_threads(threads)


class Updates:
    """The updates of one training, each by a call that returns what `update` returns.

    Launching the kernels of a small step one by one takes longer than a card takes to run them. So there they are
    recorded as a CUDA graph, which is launched at once. It makes the same updates, random numbers included.

    Parameters
    ----------
    model, inputs, optimizer, objective
        As for `update`; they stay the same objects.
    """

    def __init__(
        self, model: ScRCL, inputs: GraphInputs, optimizer: torch.optim.Optimizer, objective: Objective
    ) -> None:
        self._of = model, inputs, optimizer, objective
        self._made = 0
        self._recorded: torch.cuda.CUDAGraph | None = None
        self._losses = torch.empty(0)  # where a replay writes them
        self._stream = torch.cuda.Stream(inputs.view1.device) if _can_be_recorded(inputs) else None

    def __call__(self) -> Tensor:
        if self._stream is None:
            return update(*self._of)
        with torch.cuda.device(self._stream.device):  # there may be several cards
            return self._on_card(self._stream)

    def _on_card(self, stream: torch.cuda.Stream) -> Tensor:
        """Make an update as it is, or from the recording, which is made once."""
        self._made += 1
        if self._made <= WARM_UP:
            return self._warm_up(stream)
        if self._recorded is None:
            self._recorded = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._recorded, stream=stream):
                self._losses = update(*self._of)
        self._recorded.replay()
        return self._losses

    def _warm_up(self, stream: torch.cuda.Stream) -> Tensor:
        """Make an update where the recording will be, so that nothing is allocated for the first time then."""
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            found = update(*self._of)
        torch.cuda.current_stream().wait_stream(stream)
        return found


def _can_be_recorded(inputs: GraphInputs) -> bool:
    """Return whether updates run on a CUDA card, without blocks or other processes.

    Blocks set the random state, and other processes are waited for.
    """
    view = inputs.view1
    at_once = inputs.block == 0 or inputs.block >= view.shape[0]
    return view.device.type == "cuda" and at_once and inputs.share is ALL
