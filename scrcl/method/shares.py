"""Divide the cells among processes: what each holds, sums over all cells, and graphs whose ends are elsewhere.

Every process has a share of the cells, and everything that has one row or column per cell is cut that way. Everything
else, parameters and losses, is the same in all of them. A sum over cells is added up over the processes. So is its
gradient: each process differentiates the loss as if it were divided by their number, and the parts add up to one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor
from torch import distributed as dist

from scrcl import processes
from scrcl.method.sparse_products import of_graph

WORDS_AT_A_TIME = 2**22  # random numbers that are drawn for others, and thrown away


class Share:
    """The cells that this process holds: all of them."""

    n_processes = 1
    rank = 0

    def n_cells(self, here: int) -> int:
        """Return the number of all cells, of which so many are here."""
        return here

    def total(self, part: Tensor) -> Tensor:
        """Return the sum of `part` over all processes, with its gradient."""
        return part

    def add_up(self, part: Tensor) -> Tensor:
        """Return the sum of `part` over all processes, in its memory and without a gradient."""
        return part

    def mean(self, x: Tensor) -> Tensor:
        """Return the mean of one value per cell, [n]."""
        return self.total(fixed_sum(x)) / self.n_cells(len(x))

    def softmax(self, x: Tensor) -> Tensor:
        """Return the softmax over all cells of one value per cell, [n]."""
        return x.softmax(0)

    @contextmanager
    def turn(self, width: int) -> Iterator[None]:
        """Within the block, draw the random numbers of these cells' rows, as one process of all cells would.

        Parameters
        ----------
        width
            How many numbers of 16 bits a row takes, see `kernels.random_numbers`. They are those of one process where
            this is a multiple of 4.
        """
        yield

    def cut(self, whole: Tensor) -> Tensor:
        """Return the columns of these cells."""
        return whole

    def join(self, part: Tensor, dim: int = -1) -> Tensor:
        """Return what all cells have in the first of several processes, in CPU memory; elsewhere what it was given.

        Parameters
        ----------
        part
            What the cells of this process have.
        dim
            Which of its dimensions is that of the cells.
        """
        return part

    def same(self, values: Sequence[float]) -> list[float]:
        """Return the values of the first process."""
        return list(values)

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set in any process."""
        return flag

    def handed_out(self, make: Callable[[Share], Any]) -> Any:
        """Return what the first process makes for the share of this one."""
        return make(self)


ALL = Share()


class Part(Share):
    """The cells that one of several processes holds.

    Parameters
    ----------
    rank
        Which process, from 0.
    starts
        The first cell of each process, and the number of all cells.
    """

    def __init__(self, rank: int, starts: Sequence[int]) -> None:
        self.rank, self.starts, self.n_processes = rank, list(starts), len(starts) - 1
        self.rows = slice(self.starts[rank], self.starts[rank + 1])

    def n_cells(self, here: int) -> int:
        return self.starts[-1]

    def total(self, part: Tensor) -> Tensor:
        return _Total.apply(part)

    def add_up(self, part: Tensor) -> Tensor:
        dist.all_reduce(part)
        return part

    def softmax(self, x: Tensor) -> Tensor:
        highest = x.detach().max()
        dist.all_reduce(highest, dist.ReduceOp.MAX)
        raised = (x - highest).exp()
        return raised / self.total(fixed_sum(raised))

    @contextmanager
    def turn(self, width: int) -> Iterator[None]:
        _draw(self.rows.start * width // 4)  # four numbers in each of 64 bits
        yield
        _draw((self.starts[-1] - self.rows.stop) * width // 4)

    def cut(self, whole: Tensor) -> Tensor:
        return whole[..., self.rows].clone()

    def join(self, part: Tensor, dim: int = -1) -> Tensor:
        part = part.detach().cpu().contiguous()
        if self.rank:
            dist.send(part, 0)
            return part
        sizes = list(part.shape)
        sizes[dim] = self.starts[-1]
        whole = part.new_empty(sizes)
        whole.narrow(dim, 0, part.shape[dim]).copy_(part)
        for other, (start, stop) in enumerate(zip(self.starts[1:], self.starts[2:]), 1):
            place = whole.narrow(dim, start, stop - start)
            arrived = place.contiguous()  # itself, where the cells are rows
            dist.recv(arrived, other)
            place.copy_(arrived)
        return whole

    def any(self, flag: bool) -> bool:
        told = torch.tensor([int(flag)])
        dist.all_reduce(told, dist.ReduceOp.MAX)
        return bool(told)

    def handed_out(self, make: Callable[[Share], Any]) -> Any:
        if self.rank:
            return processes.receive()
        return processes.hand_out(lambda rank: make(Part(rank, self.starts)))

    def same(self, values: Sequence[float]) -> list[float]:
        told = torch.tensor(values, dtype=torch.float64)
        dist.broadcast(told, 0)
        return told.tolist()


def _draw(words: int) -> None:
    """Draw so many numbers of 64 bits from torch's generator of the CPU, for nothing."""
    while words > 0:
        torch.empty(min(words, WORDS_AT_A_TIME), dtype=torch.int64).random_(-(2**63), None)
        words -= WORDS_AT_A_TIME


class _Total(torch.autograd.Function):
    """The sum over all processes; every process gets what the others' results owe to its part."""

    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        total = part.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        grad = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad)
        return grad


def fixed_sum(x: Tensor) -> Tensor:
    """Return the sum of all values, in an order that does not depend on the number of threads.

    torch splits a sum of 32,768 or more values between threads.
    """
    side = math.isqrt(x.numel())  # one thread sums each row; the row sums and the rest are too few to be split
    flat = x.flatten()
    return flat[: side**2].view(side, side).sum(1).sum() + flat[side**2 :].sum()


class Halo:
    """The cells elsewhere that are neighbours of cells here, and the way to fetch what has one row per cell.

    Parameters
    ----------
    part
        The cells that this process holds.
    neighbours
        [m], the numbers of the cells elsewhere, in ascending order.
    """

    def __init__(self, part: Part, neighbours: np.ndarray) -> None:
        owner = np.searchsorted(part.starts[1:-1], neighbours, side="right")
        self.taken = np.bincount(owner, minlength=part.n_processes).tolist()
        given = torch.empty(part.n_processes, dtype=torch.int64)
        dist.all_to_all_single(given, torch.tensor(self.taken, dtype=torch.int64))
        self.given = given.tolist()
        asked = torch.empty(sum(self.given), dtype=torch.int64)
        dist.all_to_all_single(asked, torch.as_tensor(neighbours, dtype=torch.int64), self.given, self.taken)
        self.asked = asked - part.rows.start  # the cells here that are neighbours of cells elsewhere

    def fetch(self, x: Tensor) -> Tensor:
        """Return the rows of the cells elsewhere, [m, d], and give those that others want."""
        self.asked = self.asked.to(x.device)  # once
        rows = x.new_empty((sum(self.taken), x.shape[1]))
        dist.all_to_all_single(rows, x[self.asked], self.taken, self.given)
        return rows


class PartOfGraph:
    """The rows of a symmetric sparse graph that belong to the cells of this process.

    Attributes
    ----------
    inner
        [n, n], between cells that are here.
    outer
        [n, m], from cells here to their neighbours elsewhere; None where there are none.
    halo
        Fetches what is elsewhere.
    """

    def __init__(self, inner: Tensor, outer: Tensor | None, halo: Halo) -> None:
        self.inner, self.outer, self.halo = inner, outer, halo
        self.device, self.dtype = inner.device, inner.dtype

    def times(self, x: Tensor, onto: Tensor | None = None) -> Tensor:
        """Return these rows of S x, for the rows of x [n, d] that are here; or add them to `onto`, in place."""
        elsewhere = self.halo.fetch(x.contiguous())
        result = of_graph(self.inner, x, onto)
        return result if self.outer is None else of_graph(self.outer, elsewhere, result)


def graphs_of_share(
    rows: Sequence[sparse.csr_matrix], share: Share, tensor: Callable[[sparse.csr_matrix], Tensor]
) -> list[Tensor] | list[PartOfGraph]:
    """Return graphs that join the same cells, for the cells of this process.

    Parameters
    ----------
    rows
        [n, N] each, the rows of the cells here, with entries in the same places.
    share
        The cells that this process holds.
    tensor
        Makes a torch tensor of a sparse matrix.
    """
    if not isinstance(share, Part):
        return [tensor(own) for own in rows]
    here, ends = share.rows, np.unique(rows[0].indices)
    elsewhere = ends[(ends < here.start) | (ends >= here.stop)]
    halo = Halo(share, elsewhere)
    columns = [own.tocsc() for own in rows]
    return [
        PartOfGraph(tensor(own[:, here]), tensor(own[:, elsewhere]) if len(elsewhere) else None, halo)
        for own in columns
    ]
