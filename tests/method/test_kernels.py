"""Kernels: hand-written gradients against automatic ones, dropout, and sums that threads do not change."""

from __future__ import annotations

import shutil

import pytest
import torch
from scipy import sparse
from torch.nn.functional import normalize

from scrcl.messages import UserError
from scrcl.method import kernels, shares
from scrcl.method.inputs import sparse_tensor


def graph(n: int, seed: int = 0) -> torch.Tensor:
    """Dense, symmetric, 0/1, with ones on the diagonal; the last cell has no other neighbour."""
    generator = torch.Generator().manual_seed(seed)
    half = torch.rand(n, n, generator=generator, dtype=torch.float64) < 0.3
    found = (half | half.T | torch.eye(n, dtype=torch.bool)).double()
    found[-1] = found[:, -1] = 0
    found[-1, -1] = 1
    return found


def csr(dense: torch.Tensor) -> torch.Tensor:
    return sparse_tensor(sparse.csr_matrix(dense.numpy()), dense.device, dense.dtype)


def plain_products(u: torch.Tensor, v: torch.Tensor, near: torch.Tensor) -> torch.Tensor:
    """RowProducts as its docstring says it, [9, N]."""
    p, q = (x.softmax(1) - 1 / x.shape[1] for x in (u, v))
    d = u - v
    pairs = [(p, u), (q, v), (p, d), (q, d)]
    own = [(a * b).sum(1) for a, b in pairs]
    cross = p @ v.T + u @ q.T  # of cells i and j
    return torch.stack([*own, (near * cross).sum(1), cross.sum(1), u.logsumexp(1), v.logsumexp(1), d.mean(1)])


@pytest.mark.parametrize("block", [0, 1, 3, 12, 50])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_products_of_rows_and_their_gradient_are_those_of_the_plain_form(block, scale):
    torch.manual_seed(1)
    u, v = (scale * torch.randn(12, 5, dtype=torch.float64) for _ in range(2))
    weights = torch.randn(9, 12, dtype=torch.float64)
    near = graph(12)
    found, expected = [], []
    for form, into in (
        (lambda u, v: torch.stack(kernels.row_products(u, v, csr(near), block)), found),
        (lambda u, v: plain_products(u, v, near), expected),
    ):
        leaves = [x.clone().requires_grad_() for x in (u, v)]
        values = form(*leaves)
        (weights * values).sum().backward()
        into += [values.detach(), *(x.grad for x in leaves)]
    for ours, plain in zip(found, expected):
        assert torch.allclose(ours, plain, rtol=1e-9, atol=1e-9 * scale)


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("block", [0, 50])
def test_compiled_functions_give_what_they_give_uncompiled(monkeypatch, block):
    torch.manual_seed(2)
    start, weights, near = torch.randn(2, 120, 24, dtype=torch.float64), torch.randn(9, 120).double(), csr(graph(120))

    def values_and_gradient() -> list[torch.Tensor]:
        leaf = start.clone().requires_grad_()
        u, v = (2 * kernels.unit_rows(x) for x in leaf)
        values = torch.stack(kernels.row_products(u, v, near, block))
        (weights * values).sum().backward()
        return [values.detach(), leaf.grad]

    plain = values_and_gradient()
    used = []
    original = kernels._compiled
    monkeypatch.setattr(kernels, "_compiled", lambda function: used.append(function.__name__) or original(function))
    monkeypatch.setattr(kernels, "_compiles", True)
    for found, asked in zip(values_and_gradient(), plain):
        assert torch.allclose(found, asked, rtol=1e-9, atol=1e-9)
    assert {"_products_of", "_gradient_of_u", "_gradient_of_v", "_of_unit_length"} < set(used)


def test_compiling_holds_while_it_is_asked_for_and_fails_in_one_sentence(monkeypatch):
    cpu, card = torch.device("cpu"), torch.device("cuda")
    with pytest.raises(UserError, match="--compile is for CUDA cards"), kernels.compiled(cpu, wanted=True):
        pass
    monkeypatch.setattr(kernels, "_try_to_compile", lambda device: None)
    with kernels.compiled(cpu, wanted=False):
        assert not kernels._compiles
        with kernels.compiled(card, wanted=True):
            assert kernels._compiles
        assert not kernels._compiles
    monkeypatch.undo()

    def no_compiler(function):
        raise RuntimeError("Failed to find C compiler.\nMore of it.")

    monkeypatch.setattr(kernels, "_compiled", no_compiler)
    with pytest.raises(UserError, match=r"fails here \(Failed to find C compiler\.\); install"):
        kernels._try_to_compile(cpu)


def test_unit_rows_are_those_of_torch_also_where_a_row_is_zero():
    x = torch.randn(7, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[2] = 0
    upstream = torch.randn(7, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ours, theirs = (x.clone().requires_grad_() for _ in range(2))
    assert torch.equal(kernels.unit_rows(ours), normalize(theirs))
    kernels.unit_rows(ours).backward(upstream)
    normalize(theirs).backward(upstream)
    assert torch.allclose(ours.grad, theirs.grad, rtol=1e-12)


@pytest.mark.parametrize("directed", [False, True])
def test_product_with_a_graph_and_its_gradient(directed):
    dense = graph(9)
    if directed:
        dense[2, 5:] = 0
    ours, theirs = (torch.arange(27, dtype=torch.float64).reshape(9, 3).requires_grad_() for _ in range(2))
    transposed = csr(dense.T.contiguous())
    found = (
        kernels.graph_product(csr(dense), transposed, ours) if directed else kernels.symmetric_product(csr(dense), ours)
    )
    expected = dense @ theirs
    assert torch.equal(found, expected)
    (found**2).sum().backward()
    (expected**2).sum().backward()
    assert torch.equal(ours.grad, theirs.grad)


def test_dropout_drops_its_share_and_scales_the_rest():
    x = torch.full((400, 500), 3.0, requires_grad=True)
    torch.manual_seed(0)
    found = kernels.dropout(x, 0.25, True)
    found.sum().backward()
    assert set(found.detach().unique().tolist()) == {0.0, 4.0}
    assert abs((found == 0).float().mean() - 0.25) < 0.005  # five standard errors
    assert torch.equal(x.grad, found.detach() / 3)
    assert kernels.dropout(x, 0.25, False) is x and kernels.dropout(x, 0.0, True) is x


@pytest.mark.parametrize("shape", [(1,), (3,), (5, 7), (2, 0)])
def test_dropout_of_any_size(shape):
    found = kernels.dropout(torch.ones(shape), 0.5, True)
    assert found.shape == shape and set(found.flatten().tolist()) <= {0.0, 2.0}


def test_the_least_dropout_is_one_in_65536():
    torch.manual_seed(0)
    found = kernels.dropout(torch.ones(1000, 1000), 1e-9, True)
    assert 1 <= (found == 0).sum() < 50  # 15.3 are expected
    assert found.max() == pytest.approx(65536 / 65535)


def test_the_most_dropout_keeps_one_in_65536():
    torch.manual_seed(0)
    found = kernels.dropout(torch.ones(1000, 1000), 0.999999, True)
    assert 1 <= (found > 0).sum() < 50 and found.max() == 65536


@pytest.mark.parametrize("shape", [(), (1,), (7,), (70_001,), (300, 301)])
def test_sums_do_not_depend_on_the_number_of_threads(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    found, before = [], torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(shares.fixed_sum(x))
    torch.set_num_threads(before)
    assert torch.equal(*found) and torch.allclose(found[0], x.sum())
    found[0].backward()
    assert torch.equal(x.grad, torch.ones_like(x))
