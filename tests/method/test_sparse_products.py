"""Products of sparse matrices with dense ones are those of numpy, for any number of threads."""

from __future__ import annotations

import os
import signal

import numba
import numpy as np
import pytest
import torch
from scipy import sparse

from scrcl.method import sparse_products
from scrcl.method.sparse_products import Stored, of_graph, times, transposed_times
from scrcl.runtime import compiled_by_numba, limited_threads, sparse_tensors_expected

N, M, D = 2300, 37, 19  # more rows than are taken at a time, and no multiple of anything


def matrix(seed: int = 0, shape: tuple[int, int] = (N, M)) -> sparse.csr_matrix:
    """Random values; the first rows and the first column hold none."""
    found = sparse.random(*shape, density=0.2, format="lil", random_state=seed)
    found[:3] = 0
    found[:, 0] = 0
    return found.tocsr()


def as_stored(values: sparse.csr_matrix, dtype: torch.dtype = torch.float64, index: str = "int32") -> Stored:
    ends, columns = (torch.as_tensor(x.astype(index)) for x in (values.indptr, values.indices))
    return Stored(ends, columns, torch.as_tensor(values.data, dtype=dtype))


def as_graph(values: sparse.csr_matrix) -> torch.Tensor:
    with sparse_tensors_expected():
        return torch.sparse_csr_tensor(*as_stored(values), size=values.shape)


def dense(rows: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(rows, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("index", ["int32", "int64"])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_products_are_those_of_dense_matrices(dtype, tolerance, index):
    own = as_stored(matrix(), dtype, index)
    x, y, asked = dense(M, dtype=dtype), dense(N, dtype=dtype), torch.as_tensor(matrix().toarray(), dtype=dtype)
    assert torch.allclose(times(own, x), asked @ x, atol=tolerance)
    assert torch.allclose(transposed_times(own, y, M), asked.T @ y, atol=20 * tolerance)


def test_a_product_by_hand():
    # [[0, 2], [0, 0], [3, 4]] times [[1, 10], [2, 20]], and its transpose times [[1], [5], [2]].
    own = Stored(torch.tensor([0, 1, 1, 3]), torch.tensor([1, 0, 1]), torch.tensor([2.0, 3.0, 4.0]))
    x = torch.tensor([[1.0, 10.0], [2.0, 20.0]])
    assert times(own, x).tolist() == [[4, 40], [0, 0], [11, 110]]
    assert times(own, x, start=torch.tensor([1.0, -1.0])).tolist() == [[5, 39], [1, -1], [12, 109]]
    assert transposed_times(own, torch.tensor([[1.0], [5.0], [2.0]]), 2).tolist() == [[6], [10]]


def test_a_product_is_added_to_what_is_there_in_place():
    own, x, there = matrix(), dense(M), dense(N, 2)
    asked = there + torch.as_tensor(matrix().toarray()) @ x
    assert times(as_stored(own), x, onto=there) is there
    assert torch.allclose(there, asked)
    column_by_column = dense(N, 2).T.contiguous().T
    times(as_stored(own), x, onto=column_by_column)
    assert torch.allclose(column_by_column, asked)


def test_matrices_need_not_be_stored_row_by_row_to_be_multiplied():
    x, y = dense(M).T.contiguous().T, dense(N).T.contiguous().T
    assert not x.is_contiguous()
    own = as_stored(matrix())
    assert torch.equal(times(own, x), times(own, x.contiguous()))
    assert torch.equal(transposed_times(own, y, M), transposed_times(own, y.contiguous(), M))


def test_any_number_of_threads_gives_the_same_bits():
    own, x, y = as_stored(matrix(), torch.float32), dense(M, dtype=torch.float32), dense(N, dtype=torch.float32)
    found = []
    for threads in (1, 2, 3):
        with limited_threads(threads):
            found.append((times(own, x), transposed_times(own, y, M)))
    for product, transposed in found[1:]:
        assert torch.equal(product, found[0][0])
        assert torch.equal(transposed, found[0][1])


def test_transposed_products_where_each_sum_is_over_several_blocks_of_rows():
    n = 2 * sparse_products.ROWS * sparse_products.MOST_SUMS
    values = sparse.random(n, 3, density=0.4, format="csr", random_state=3)
    y = torch.ones(n, 1, dtype=torch.float64)
    assert np.allclose(transposed_times(as_stored(values), y, 3)[:, 0], values.sum(axis=0))


def test_graphs_are_multiplied_as_they_are():
    own, x = matrix(shape=(M, M)), dense(M)
    asked = torch.as_tensor(own.toarray()) @ x
    assert torch.allclose(of_graph(as_graph(own), x), asked)
    assert torch.allclose(of_graph(as_graph(own), x, onto=x.clone()), x + asked)


def test_what_numba_compiles_is_what_python_runs(monkeypatch):
    own, x, y = as_stored(matrix()), dense(M), dense(N)
    compiled = times(own, x), transposed_times(own, y, M)
    for name in ("_add_weighted", "_add_rows", "_add_transposed"):
        monkeypatch.setattr(sparse_products, name, getattr(sparse_products, name).py_func)
    assert torch.allclose(times(own, x), compiled[0])
    assert torch.allclose(transposed_times(own, y, M), compiled[1])


def test_an_error_in_a_thread_is_raised():
    def fails(number: int) -> None:
        raise ValueError(number)

    with limited_threads(2), pytest.raises(ValueError, match="1"):
        sparse_products._in_threads(fails, [(1,), (1,)])


def test_functions_are_compiled_where_nothing_can_be_kept_on_disk(monkeypatch):
    plain = numba.njit

    def nowhere_to_write(**options):
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return plain(**options)

    monkeypatch.setattr(numba, "njit", nowhere_to_write)
    assert compiled_by_numba(lambda x: x + 1)(2) == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked on this system")
def test_products_work_in_a_forked_process():
    own, x = as_stored(matrix()), dense(M)
    with limited_threads(2):
        asked = times(own, x)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            signal.alarm(60)  # a product that waits for threads that are not there would do so for ever
            is_equal = np.array_equal(times(own, x).numpy(), asked.numpy())  # torch's own threads are not there either
            os.write(writing, b"equal" if is_equal else b"other")
            os._exit(0)
        os.waitpid(child, 0)
        os.close(writing)
        assert os.read(reading, 5) == b"equal"
