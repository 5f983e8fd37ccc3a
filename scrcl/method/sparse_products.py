"""Products of a sparse matrix with a dense one on a CPU, compiled by numba.

The rows are shared out among threads, and each number is a sum in the same order for any number of them. MKL, which
torch would use, takes two to five times as long for cells x genes.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from scrcl.runtime import compiled_by_numba

ROWS_OF_A_CALL = 2048  # in a thread at a time; fewer take less time than to wake another thread
ROWS = 512  # rows that are transposed at a time: what they are multiplied with stays in a core's cache
MOST_SUMS = 16  # parts of the rows whose transposed products are summed apart


class Stored(NamedTuple):
    """A sparse matrix S, [n, m], by rows.

    Attributes
    ----------
    ends
        [n + 1] integers: row i is stored from ends[i] to ends[i + 1].
    columns
        The column of each stored value, integers.
    values
        The stored values.
    """

    ends: Tensor
    columns: Tensor
    values: Tensor


def times(matrix: Stored, x: Tensor, start: Tensor | None = None, onto: Tensor | None = None) -> Tensor:
    """Return S x, [n, d].

    Parameters
    ----------
    matrix
        S.
    x
        [m, d].
    start
        [d], added to every row.
    onto
        [n, d], to which S x is added in place.
    """
    n = len(matrix.ends) - 1
    begun = x.new_zeros(x.shape[1]) if start is None else start
    out = x.new_empty(n, x.shape[1]) if onto is None else onto
    arrays = [tensor.contiguous().numpy() for tensor in (*matrix, x, begun)]
    # What is added to is never copied, so that it may lie in memory in any way.
    _in_threads(_add_rows, [(*arrays, out.numpy(), onto is None, *rows) for rows in _parts(n, ROWS_OF_A_CALL)])
    return out


def of_graph(graph: Tensor, x: Tensor, onto: Tensor | None = None) -> Tensor:
    """Return S x as `times` does, for a CSR tensor S on any device."""
    if graph.is_cpu:
        return times(Stored(graph.crow_indices(), graph.col_indices(), graph.values()), x, onto=onto)
    if onto is not None:
        return onto.addmm_(graph, x)
    # With beta=0 the summand is ignored, so it may be uninitialised memory; @ would write zeros and copy them.
    return torch.addmm(result := torch.empty_like(x), graph, x, beta=0, out=result)


def transposed_times(matrix: Stored, x: Tensor, n_columns: int) -> Tensor:
    """Return S^T x, [m, d].

    Parameters
    ----------
    matrix
        S.
    x
        [n, d].
    n_columns
        m.
    """
    arrays = [tensor.contiguous().numpy() for tensor in (*matrix, x)]
    # How many sums there are depends on the number of rows alone, so that results do not depend on that of threads.
    parts = _parts(len(x), max(ROWS, -(-len(x) // MOST_SUMS)))
    sums = x.new_zeros(len(parts), n_columns, x.shape[1])
    _in_threads(_add_transposed, [(*arrays, own, *rows) for own, rows in zip(sums.numpy(), parts)])
    return sums.sum(0)


def _parts(n: int, size: int) -> list[tuple[int, int]]:
    """Return n rows as consecutive ranges of at most `size`."""
    return [(first, min(first + size, n)) for first in range(0, n, size)]


def _in_threads(kernel: Callable[..., None], calls: list[tuple[Any, ...]]) -> None:
    """Make all calls, in as many threads as torch uses."""
    threads = torch.get_num_threads()
    if min(threads, len(calls)) < 2:
        for call in calls:
            kernel(*call)
        return
    list(_threads(threads).map(lambda call: kernel(*call), calls))  # a list, so that errors are raised


@functools.cache
def _threads(number: int) -> ThreadPoolExecutor:
    """Return that many threads; starting them takes longer than a product with a graph of a thousand cells."""
    return ThreadPoolExecutor(number, thread_name_prefix="products")


if hasattr(os, "register_at_fork"):  # a forked process has no threads
    os.register_at_fork(after_in_child=_threads.cache_clear)


@compiled_by_numba
def _add_weighted(total, first, last, rows, weights, x):  # type: ignore[no-untyped-def]
    """Add rows of x, weighted, to total; four at a time, since total is then read and written once for all."""
    k = first
    while k + 4 <= last:
        a, b, c, d = weights[k], weights[k + 1], weights[k + 2], weights[k + 3]
        x_a, x_b, x_c, x_d = x[rows[k]], x[rows[k + 1]], x[rows[k + 2]], x[rows[k + 3]]
        for j in range(len(total)):
            total[j] = total[j] + a * x_a[j] + b * x_b[j] + c * x_c[j] + d * x_d[j]
        k += 4
    while k < last:
        weight, one = weights[k], x[rows[k]]
        for j in range(len(total)):
            total[j] += weight * one[j]
        k += 1


@compiled_by_numba
def _add_rows(ends, columns, values, x, start, out, fresh, first, last):  # type: ignore[no-untyped-def]
    """Add rows of S x to those of out, which begin with `start` where they are fresh."""
    for i in range(first, last):
        if fresh:
            out[i] = start
        _add_weighted(out[i], ends[i], ends[i + 1], columns, values, x)


@compiled_by_numba
def _add_transposed(ends, columns, values, x, out, first, last):  # type: ignore[no-untyped-def]
    """Add S^T x of some rows to out; the stored values of every few rows are first put in the order of the columns."""
    for begin in range(first, last, ROWS):
        end = min(begin + ROWS, last)
        rows, weights = np.empty(ends[end] - ends[begin], np.int32), np.empty(ends[end] - ends[begin], values.dtype)
        at = np.zeros(len(out) + 1, np.int64)  # where the next value of each column goes
        for k in range(ends[begin], ends[end]):
            at[columns[k] + 1] += 1
        at = np.cumsum(at)
        for i in range(begin, end):
            for k in range(ends[i], ends[i + 1]):
                place = at[columns[k]]
                rows[place], weights[place] = i, values[k]
                at[columns[k]] += 1
        done = 0
        for column in range(len(out)):
            _add_weighted(out[column], done, at[column], rows, weights, x)
            done = at[column]
