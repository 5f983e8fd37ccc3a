"""Row-wise operations on cells that use bounded memory and give the same bits for any number of threads."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from textwrap import shorten
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from scrcl.messages import UserError, one_line
from scrcl.method import sparse_products
from scrcl.method.shares import ALL, PartOfGraph, Share

Graph = Tensor | PartOfGraph  # sparse, and of the cells of this process

CACHED = 2**19  # numbers per block, so that an array stays in a core's cache while it is in use
ON_CARD = 2**24  # numbers per block on a card: no slower than all at once, and a third less memory at a million cells

_compiles = False  # no context variable, since gradients are computed in threads of torch's own


def rowwise(function: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a function of rows as one that `compiled` has torch.compile turn into a single pass over memory."""

    @functools.wraps(function)
    def either(*tensors: Tensor) -> Any:
        return (_compiled(function) if _compiles else function)(*tensors)

    return either


@functools.cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function as torch.compile makes it, with no choice left to what is faster at the moment."""
    return torch.compile(function, options={"deterministic": True})


@contextmanager
def compiled(device: torch.device, wanted: bool) -> Iterator[None]:
    """Compile the functions that are marked `rowwise` within the block, if wanted.

    Raises
    ------
    UserError
        Where it is wanted on a device other than a CUDA card, or where nothing can be compiled.
    """
    global _compiles
    if wanted and device.type != "cuda":
        raise UserError(f"--compile is for CUDA cards, and this run is on {device}; leave it out.")
    if wanted:
        _try_to_compile(device)
    before, _compiles = _compiles, wanted
    try:
        yield
    finally:
        _compiles = before


def _try_to_compile(device: torch.device) -> None:
    """Raise UserError where torch.compile does not work."""
    try:
        _compiled(torch.neg)(torch.ones(1, device=device))
    except Exception as error:  # torch names many kinds, and Triton others
        raise UserError(
            "--compile needs a C compiler and Triton, and torch.compile fails here "
            f"({shorten(one_line(error), 200)}); install them, or leave it out."
        ) from error


def by_rows(
    function: Callable[..., tuple[Tensor, ...]], block: int, rows: tuple[Tensor, ...], shared: tuple[Tensor, ...] = ()
) -> tuple[Tensor, ...]:
    """Return function(*rows, *shared), computed one block of rows at a time to bound memory.

    Row i of each result must depend on row i of its arguments alone. Only the results of a block are kept; the backward
    pass computes everything else again.

    Parameters
    ----------
    function
        Takes tensors with the same rows, and the shared ones. Returns a tuple of tensors with these rows.
    block
        Rows at a time; 0 for all at once, where everything is kept for the backward pass.
    rows
        Tensors with one row per cell.
    shared
        Tensors that all rows need and that have a gradient.

    Returns
    -------
    What `function` returns for all rows.
    """
    if not block or block >= len(rows[0]):
        return function(*rows, *shared)
    return _ByRows.apply(function, block, len(rows), *rows, *shared)


class _ByRows(torch.autograd.Function):
    """`by_rows`, with results and gradients written in place, so that neither is ever held twice."""

    @staticmethod
    def forward(ctx: Any, function: Callable[..., Any], block: int, n: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.function, ctx.block, ctx.n = function, block, n
        ctx.save_for_backward(*tensors)
        ctx.random = _random_state(tensors[0].device)
        rows, shared = tensors[:n], tensors[n:]
        results: list[Tensor] = []
        for part in _parts(len(rows[0]), block):
            found = function(*(x[part] for x in rows), *shared)
            results = results or [x.new_empty((len(rows[0]), *x.shape[1:])) for x in found]
            for result, x in zip(results, found):
                result[part] = x
        return tuple(results)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        rows = ctx.saved_tensors[: ctx.n]
        # Detached leaves collect the gradient of every block, without reaching into the graph of the caller.
        shared = [x.detach().requires_grad_() for x in ctx.saved_tensors[ctx.n :]]
        results = [torch.empty_like(x) for x in rows]
        device = rows[0].device
        with torch.enable_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
            _set_random_state(ctx.random, device)  # so that dropout falls on the same places
            for part in _parts(len(rows[0]), ctx.block):
                own = [x[part].detach().requires_grad_() for x in rows]
                torch.autograd.backward(ctx.function(*own, *shared), [grad[part] for grad in grads])
                for result, x in zip(results, own):
                    result[part] = x.grad
        return None, None, None, *results, *(x.grad for x in shared)  # none for function, block and n


def _parts(n: int, block: int) -> list[slice]:
    """Return n rows as consecutive slices of at most `block` rows."""
    return [slice(start, min(start + block, n)) for start in range(0, n, block)]


def _random_state(device: torch.device) -> Tensor:
    """Return torch's random state on a device."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_random_state(state: Tensor, device: torch.device) -> None:
    """Set torch's random state on a device."""
    torch.cuda.set_rng_state(state, device) if device.type == "cuda" else torch.set_rng_state(state)


def dropout(x: Tensor, probability: float, training: bool) -> Tensor:
    """Apply dropout; on a CPU, with masks that take an eighth of the time of torch's Bernoulli numbers.

    The mask uses 16 random bits per value, so the probability is rounded to a multiple of 2^-16.

    Parameters
    ----------
    x
        Any shape.
    probability
        Probability that a value is dropped, in [0, 1).
    training
        Whether to drop at all.

    Returns
    -------
    `x` with dropped values at 0 and the others scaled up, so that means stay as they are.
    """
    if not training or not probability:
        return x
    if not x.is_cpu:
        return functional.dropout(x, probability, training)
    dropped = min(max(1, round(probability * 2**16)), 2**16 - 1)  # how many of the 2^16 values of 16 bits mean drop
    # One call for 64 bits gives four numbers of 16 bits, in [-2^15, 2^15).
    words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    kept = words.view(torch.int16)[: x.numel()].view(x.shape) >= dropped - 2**15
    return x * kept.to(x.dtype).mul_(2**16 / (2**16 - dropped))


def random_numbers(x: Tensor, probability: float, training: bool) -> int:
    """Return how many numbers of 16 bits `dropout` draws for a row of x from the generator of the CPU."""
    return x.shape[1] if x.is_cpu and training and probability else 0


class _GraphProduct(torch.autograd.Function):
    """S @ x for a sparse S that never changes and its transpose, which torch would make anew for every gradient."""

    @staticmethod
    def forward(ctx: Any, graph: Graph, transposed: Graph, x: Tensor) -> Tensor:
        ctx.transposed = transposed
        return _product(graph, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, Tensor]:
        return None, None, _product(ctx.transposed, grad)


def _product(graph: Graph, x: Tensor, onto: Tensor | None = None) -> Tensor:
    """Return graph @ x, or add it to a tensor in place."""
    return graph.times(x, onto) if isinstance(graph, PartOfGraph) else sparse_products.of_graph(graph, x, onto)


graph_product = _GraphProduct.apply


def symmetric_product(symmetric: Graph, x: Tensor) -> Tensor:
    """Return S @ x for a sparse S that is its own transpose."""
    return graph_product(symmetric, symmetric, x)


class _UnitRows(torch.autograd.Function):
    """Scale rows to unit length like torch's normalize, in half the passes over the data.

    With e = h / |h|, the gradient is d h = (d e - e (e . d e)) / |h|.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        unit, length = _of_unit_length(x)
        ctx.save_for_backward(unit, length)
        return unit

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _gradient_of_unit_length(grad, *ctx.saved_tensors)


@rowwise
def _of_unit_length(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows scaled to unit length, and the length they had, [N, 1]."""
    length = torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp_min(1e-12)  # torch's normalize has this floor
    return x / length, length


@rowwise
def _gradient_of_unit_length(grad: Tensor, unit: Tensor, length: Tensor) -> Tensor:
    """Return the gradient of rows that were scaled to unit length."""
    return torch.addcmul(grad, unit, row_dot(unit, grad)[:, None], value=-1).div_(length)


unit_rows = _UnitRows.apply


class RowProducts(NamedTuple):
    """Dot products per cell, each [N], from which the losses are computed.

    u and v are the logits of both views. p and q are their row softmax minus 1/H, and d = u - v.

    Attributes
    ----------
    pu, qv, pd, qd
        p . u, q . v, p . d and q . d.
    with_near
        p . (sum of v over neighbours) + u . (sum of q over neighbours).
    with_all
        The same with sums over all cells.
    size_u, size_v
        Log-normalisers: log softmax u = u - size_u.
    drift
        The mean of d, by which p . d and q . d are too small because 1/H was subtracted from p and q.
    """

    pu: Tensor
    qv: Tensor
    pd: Tensor
    qd: Tensor
    with_near: Tensor
    with_all: Tensor
    size_u: Tensor
    size_v: Tensor
    drift: Tensor


def row_products(u: Tensor, v: Tensor, neighbourhood: Graph, block: int = 0, share: Share = ALL) -> RowProducts:
    """Return the dot products of both views that the losses need.

    Parameters
    ----------
    u, v
        [N, H], the logits of both views.
    neighbourhood
        [N, N], symmetric and sparse.
    block
        Rows at a time; 0 for as many as suit the device.
    share
        The cells that this process holds.
    """
    # Compiled functions keep nothing between their operations, so all rows at once take little more memory.
    suits = len(u) if _compiles else max(1, (CACHED if u.is_cpu else ON_CARD) // u.shape[1])
    if not block or (block > suits and not u.is_cpu):  # a card is given all cells where they fit
        block = suits
    return RowProducts(*_RowProducts.apply(u, v, neighbourhood, block, share).unbind(0))


class _RowProducts(torch.autograd.Function):
    """`row_products` as one tensor [9, N], with its gradient written out.

    Rows are processed while the cache holds them, and p and q are computed again rather than kept.
    """

    @staticmethod
    def forward(ctx: Any, u: Tensor, v: Tensor, neighbourhood: Graph, block: int, share: Share) -> Tensor:
        parts = _parts(len(u), block)
        # q is needed for all cells at once, since neighbours are anywhere; p only row by row.
        q = torch.empty_like(v)
        for part in parts:
            q[part] = _centred_softmax(v[part])
        v_near, q_near = _product(neighbourhood, v), _product(neighbourhood, q)
        v_all, q_all = share.add_up(v.sum(0)), share.add_up(q.sum(0))
        results = u.new_empty((len(RowProducts._fields), len(u)))
        for part in parts:
            own = u[part], v[part], q[part], v_near[part], q_near[part]
            results[:, part] = _products_of(*own, v_all, q_all)
        ctx.save_for_backward(u, v, v_all, q_all)
        ctx.near = v_near, q_near  # whose memory the backward pass takes
        ctx.neighbourhood, ctx.parts, ctx.share = neighbourhood, parts, share
        return results

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        u, v, v_all, q_all = ctx.saved_tensors
        (v_near, q_near), ctx.near = ctx.near, None
        # q and v also get gradient through the products of other cells, near ones and all: dq and dv. The neighbourhood
        # is symmetric, so the same product carries gradients back.
        du, passed_on = q_near, v_near
        dq_all, dv_all = torch.zeros_like(q_all), torch.zeros_like(v_all)
        for part in ctx.parts:
            du[part], through_u, through_p = _gradient_of_u(
                u[part], v[part], v_near[part], q_near[part], v_all, q_all, grad[:, part]
            )
            dq_all += through_u
            dv_all += through_p
            passed_on[part] = RowProducts(*grad[:, part, None]).with_near * u[part]
        dq_all, dv_all = ctx.share.add_up(dq_all), ctx.share.add_up(dv_all)
        dv = _product(ctx.neighbourhood, passed_on)  # so far of q
        for part in ctx.parts:
            dv[part], passed_on[part] = _gradient_of_v(u[part], v[part], dv[part], dq_all, dv_all, grad[:, part])
        return du, _product(ctx.neighbourhood, passed_on, onto=dv), None, None, None


def _softmax(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the row softmax, and the row softmax minus 1/H."""
    shares = torch.softmax(x, dim=1)
    return shares, shares - 1 / x.shape[1]


@rowwise
def _centred_softmax(x: Tensor) -> Tensor:
    """Return the row softmax minus 1/H."""
    return _softmax(x)[1]


@rowwise
def _products_of(
    u: Tensor, v: Tensor, q: Tensor, v_near: Tensor, q_near: Tensor, v_all: Tensor, q_all: Tensor
) -> Tensor:
    """Return the products of a block of cells, [9, block], from their rows and sums over neighbours and all cells."""
    shares, p = _softmax(u)
    d = u - v
    products = RowProducts(
        pu=row_dot(p, u),
        qv=row_dot(q, v),
        pd=row_dot(p, d),
        qd=row_dot(q, d),
        with_near=row_dot(p, v_near) + row_dot(u, q_near),
        with_all=row_dot(p, v_all) + row_dot(u, q_all),
        # log softmax = x - size in every column; in the largest one, the share cannot underflow.
        size_u=u.amax(1) - shares.amax(1).log(),
        size_v=v.amax(1) - (q.amax(1) + 1 / v.shape[1]).log(),
        drift=d.mean(1),
    )
    return torch.stack(products)


@rowwise
def _gradient_of_u(
    u: Tensor, v: Tensor, v_near: Tensor, q_near: Tensor, v_all: Tensor, q_all: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradient of u for a block of cells, and what these pass on to q and to v of all cells, [H] each.

    Parameters
    ----------
    u, v, v_near, q_near, v_all, q_all
        As in `_products_of`.
    grad
        The gradients of the products, [9, block].
    """
    (shares, p), q, d = _softmax(u), _softmax(v)[1], u - v
    g = RowProducts(*grad[:, :, None])
    # Product rule: first the gradient of p as if it were free.
    dp = add_products(g.pu * u, (g.pd, d), (g.with_near, v_near), (g.with_all, v_all))
    # s * (dp - s . dp) is the gradient through a softmax s, and s itself the gradient of its log-normaliser.
    du = dp.sub_(row_dot(shares, dp)[:, None] - g.size_u).mul_(shares)
    # Then the gradient of u where it is a factor itself, also in d = u - v.
    add_products(du, (g.pu + g.pd, p), (g.qd, q), (g.with_near, q_near), (g.with_all, q_all))
    return du.add_(g.drift / u.shape[1]), (g.with_all * u).sum(0), (g.with_all * p).sum(0)


@rowwise
def _gradient_of_v(
    u: Tensor, v: Tensor, dq: Tensor, dq_all: Tensor, dv_all: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the gradient of v for a block of cells but for what reaches v from near cells, and what u passes on there.

    Parameters
    ----------
    u, v, grad
        As in `_gradient_of_u`.
    dq
        What reaches q from near cells, [block, H].
    dq_all, dv_all
        What reaches q and v from all cells, [H] each.
    """
    p, (shares, q), d = _softmax(u)[1], _softmax(v), u - v
    g = RowProducts(*grad[:, :, None])
    dq = add_products(dq + dq_all, (g.qv, v), (g.qd, d))
    dv = dq.sub_(row_dot(shares, dq)[:, None] - g.size_v).mul_(shares).add_(dv_all)
    add_products(dv, (g.qv - g.qd, q), (-g.pd, p))
    return dv.sub_(g.drift / v.shape[1]), g.with_near * p


def add_products(total: Tensor, *pairs: tuple[Tensor, Tensor]) -> Tensor:
    """Add the products of pairs to a tensor, in place, each in one pass over memory."""
    for a, b in pairs:
        total.addcmul_(a, b)
    return total


def row_dot(a: Tensor, b: Tensor) -> Tensor:
    """Return a . b row by row, [N], in an order that does not depend on the number of threads."""
    return torch.linalg.vecdot(a, b)
