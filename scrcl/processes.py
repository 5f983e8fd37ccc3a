"""Run as one of the processes that torchrun starts, and pass things between them.

torchrun tells each process its rank in the environment. The first process, of rank 0, reads, prepares, clusters and
writes. The others hold a share of the cells while a network is trained.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from scrcl.messages import UserError, log, one_line

TIMEOUT = timedelta(days=30)  # the others wait while the first process clusters
TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")

_joined = False
_handed_out = False  # whether the first process has given the others something to do


def number() -> int:
    """Return how many processes work together."""
    return int(os.environ["WORLD_SIZE"]) if _joined else 1


def require_one(what: str) -> None:
    """Raise UserError where torchrun has started several processes for what only one can do."""
    if all(name in os.environ for name in TORCHRUN) and os.environ["WORLD_SIZE"] != "1":
        raise UserError(f"{what} is the work of one process; start it without torchrun.")


def rank() -> int:
    """Return which of them this is, from 0."""
    return int(os.environ["RANK"]) if _joined else 0


@contextmanager
def joined(device: str = "auto") -> Iterator[int]:
    """Within the block, work together with the other processes of a torchrun; without one, alone.

    Parameters
    ----------
    device
        As in the settings. Each process on a machine takes a card of its own.

    Yields
    ------
    The rank of this process; 0 when it is alone.

    Raises
    ------
    UserError
        When the processes cannot meet, there are not enough cards, or another process is gone.
    """
    global _joined, _handed_out
    if not all(name in os.environ for name in TORCHRUN) or os.environ["WORLD_SIZE"] == "1":
        yield 0
        return
    from torch import distributed

    backend = _backend(device)
    try:
        distributed.init_process_group(backend, timeout=TIMEOUT)
    except RuntimeError as error:
        raise UserError(f"The processes of this run cannot meet: {one_line(error)}") from error
    _joined, _handed_out = True, False
    with _of_others():
        try:
            if rank():
                log.setLevel(logging.ERROR)  # the first process speaks for all
            yield rank()
        except UserError:
            if not rank() and not _handed_out:
                hand_out(lambda other: None)  # so that the others end as well
            raise
        finally:
            _joined = False
        distributed.destroy_process_group()


def _backend(device: str) -> str:
    """Choose the card of this process, if it takes one, and return what carries tensors between processes."""
    import torch

    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return "gloo"
    if device not in ("auto", "cuda"):
        raise UserError(f"Several processes cannot share --device {device}; use --device auto, cuda or cpu.")
    here = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"]))
    if here > torch.cuda.device_count():
        raise UserError(
            f"There are {here} processes on this machine and {torch.cuda.device_count()} cards; start one process per "
            "card, or use --device cpu."
        )
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    return "cpu:gloo,cuda:nccl"


@contextmanager
def _of_others() -> Iterator[None]:
    """Turn what torch says where another process is gone into one sentence."""
    try:
        yield
    except RuntimeError as error:
        from torch.distributed import DistError

        if isinstance(error, DistError) or any(word in str(error).lower() for word in ("gloo", "nccl", "connection")):
            raise UserError(
                "Another process of this run has ended, or cannot be reached, so this one ends too. Repeat the command "
                f"with --resume to continue from the last checkpoint. (torch says: {one_line(error)})"
            ) from error
        raise


def send(content: Any, to: int) -> None:
    """Send anything to another process of this run; as all of torch.distributed, for a trusted network."""
    import torch
    from torch import distributed

    distributed.send_object_list([content], to, device=torch.device("cpu"))


def receive(sender: int = 0) -> Any:
    """Return what another process of this run sends."""
    import torch
    from torch import distributed

    found: list[Any] = [None]
    distributed.recv_object_list(found, sender, device=torch.device("cpu"))
    return found[0]


def hand_out(make: Callable[[int], Any]) -> Any:
    """Send make(r) from the first process to each other one, of rank r, and return make(0)."""
    global _handed_out
    for other in range(1, number()):
        send(make(other), other)
        _handed_out = True
    return make(0)
