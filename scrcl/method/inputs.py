"""Hold what stays constant during training: both views of the cells, and the cell and gene graphs, on one device."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from scrcl.method import sparse_products
from scrcl.method.kernels import Graph, symmetric_product
from scrcl.method.shares import ALL, Share, graphs_of_share
from scrcl.method.sparse_products import Stored
from scrcl.prepare import graphs
from scrcl.prepare.features import SPARSE_UP_TO, Features
from scrcl.runtime import sparse_tensors_expected


@dataclass(frozen=True)
class GraphInputs:
    """What stays constant during training, with every tensor on one device.

    Attributes
    ----------
    view1
        [N, G], the input of the expression encoder, A_hat^m1 X; dense, or a view of sparse values.
    propagated_view2
        [N, G], A_hat times the input of the graph encoder, A_hat^m2 X; in the same form.
    normalised
        [N, N] sparse, A_hat = D^-1/2 (A + I) D^-1/2.
    neighbourhood
        [N, N] sparse 0/1, A + I.
    gene_graph
        [G, G] sparse, normalised; row g holds what gene g receives.
    gene_graph_transposed
        Its transpose.
    block
        Cells at a time where a step can process rows one by one, which bounds its memory; 0 for all.
    share
        The cells that this process holds; where there are several, N counts those.
    """

    view1: Tensor | SparseView
    propagated_view2: Tensor | SparseView
    normalised: Graph
    neighbourhood: Graph
    gene_graph: Tensor
    gene_graph_transposed: Tensor
    block: int = 0
    share: Share = ALL


@dataclass(frozen=True)
class HostInputs:
    """What `GraphInputs` is made of, in main memory; of all cells, or of those of one process.

    Attributes
    ----------
    view1
        [n, G], A_hat^m1 X where it is dense; X itself where that is sparse.
    propagated_view2
        [n, G], A_hat^(m2 + 1) X; None where X is sparse.
    normalised, neighbourhood
        [n, N], the rows of A_hat and of A + I.
    gene_graph
        [G, G].
    hops
        m1 and m2.
    block
        As in `GraphInputs`.
    """

    view1: np.ndarray | Features
    propagated_view2: np.ndarray | None
    normalised: sparse.csr_matrix
    neighbourhood: sparse.csr_matrix
    gene_graph: sparse.csr_matrix
    hops: Sequence[int]
    block: int

    def of(self, cells: slice) -> HostInputs:
        """Return what belongs to some of the cells."""
        return replace(
            self,
            view1=self.view1[cells],
            propagated_view2=None if self.propagated_view2 is None else self.propagated_view2[cells],
            normalised=self.normalised[cells],
            neighbourhood=self.neighbourhood[cells],
        )


def host_inputs(
    values: np.ndarray | Features,
    cells: sparse.spmatrix,
    genes: sparse.spmatrix,
    hops: Sequence[int],
    block: int = 0,
) -> HostInputs:
    """Compute what stays constant during training.

    Parameters
    ----------
    values
        [N, G] as the encoders see them, dense or sparse.
    cells
        A, [N, N].
    genes
        B, [G, G].
    hops
        Smoothing hops of the two views, m1 and m2.
    block
        Cells at a time, as in `GraphInputs`; 0 for all.
    """
    neighbourhood, b_hat = graphs.with_self_loops(cells), graphs.normalised(genes)
    a_hat = graphs.normalised(neighbourhood)
    if isinstance(values, Features):
        return HostInputs(values, None, a_hat.astype(np.float32), neighbourhood, b_hat, hops, block)
    a_hat = a_hat.astype(values.dtype)
    view1 = graphs.smooth(values, a_hat, hops[0])
    # The extra hop is the first propagation of the graph encoder, which never changes either.
    propagated = graphs.smooth(values, a_hat, hops[1] + 1)
    return HostInputs(view1, propagated, a_hat, neighbourhood, b_hat, hops, block)


def on_device(
    host: HostInputs, device: torch.device, dtype: torch.dtype = torch.float32, share: Share = ALL
) -> GraphInputs:
    """Move what stays constant during training to the device.

    Parameters
    ----------
    host
        What it is, of the cells that this process holds.
    device, dtype
        Of every tensor.
    share
        The cells that this process holds.
    """

    def tensor(matrix: sparse.spmatrix) -> Tensor:
        return sparse_tensor(matrix, device, dtype)

    normalised, neighbourhood = graphs_of_share([host.normalised, host.neighbourhood], share, tensor)
    view1: Tensor | SparseView
    propagated: Tensor | SparseView
    if isinstance(host.view1, Features):
        view1 = SparseView(host.view1, normalised, host.hops[0], host.block or host.view1.shape[0])
        propagated = view1.after(host.hops[1] + 1)
    else:
        view1 = torch.as_tensor(host.view1, dtype=dtype, device=device)
        propagated = torch.as_tensor(host.propagated_view2, dtype=dtype, device=device)
    return GraphInputs(
        view1=view1,
        propagated_view2=propagated,
        normalised=normalised,
        neighbourhood=neighbourhood,
        gene_graph=tensor(host.gene_graph),
        gene_graph_transposed=tensor(host.gene_graph.T),
        block=host.block,
        share=share,
    )


def graph_inputs(
    values: np.ndarray | Features,
    cells: sparse.spmatrix,
    genes: sparse.spmatrix,
    hops: Sequence[int],
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    block: int = 0,
) -> GraphInputs:
    """Compute what stays constant during training, of all cells, and move it to the device.

    Parameters
    ----------
    values, cells, genes, hops, block
        As for `host_inputs`.
    device, dtype
        Of every tensor.
    """
    return on_device(host_inputs(values, cells, genes, hops, block), device, dtype)


def sparse_tensor(matrix: sparse.spmatrix, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Return a scipy matrix as a torch CSR tensor.

    Parameters
    ----------
    matrix
        Any sparse matrix.
    device, dtype
        Of the tensor.
    """
    matrix = matrix.tocsr()
    matrix.sort_indices()
    # 32-bit indices are half as large.
    index = torch.int32 if matrix.nnz < 2**31 else torch.int64
    with sparse_tensors_expected():
        return torch.sparse_csr_tensor(
            torch.as_tensor(matrix.indptr, dtype=index),
            torch.as_tensor(matrix.indices, dtype=index),
            torch.as_tensor(matrix.data, dtype=dtype),
            size=matrix.shape,
            device=device,
            check_invariants=True,
        )


class SparseView:
    """A_hat^hops X of sparse features X, which torch's linear layers accept in place of a tensor, as is or transposed.

    Both factors are linear, so A_hat^hops (X W) gives the same as (A_hat^hops X) W, and nothing of size [N, G] is
    formed. The gradient of W is X^T (A_hat^hops gradient). X is multiplied as it is stored where that is faster. Where
    it is not, a block of cells at a time is made dense.

    Parameters
    ----------
    features
        X, [N, G].
    a_hat
        [N, N] sparse.
    hops
        How often A_hat is applied.
    block
        Cells that are made dense at a time, at most.
    """

    def __init__(self, features: Features, a_hat: Graph, hops: int, block: int) -> None:
        place: dict[str, Any] = {"device": a_hat.device}
        self.shape = torch.Size(features.shape)
        self.device, self.dtype = a_hat.device, a_hat.dtype
        self.is_dense_faster = a_hat.device.type != "cpu" or features.density > SPARSE_UP_TO
        self.block = min(block, self.shape[0])
        self.starts = features.values.indptr.tolist()  # a list on the host, so that no block waits for the device
        self.stored = Stored(
            ends=torch.as_tensor(features.values.indptr, dtype=torch.int64, **place),
            columns=torch.as_tensor(features.values.indices, dtype=torch.int32, **place),
            values=torch.as_tensor(features.values.data, dtype=self.dtype, **place),
        )
        self.offset = torch.as_tensor(features.offset, dtype=self.dtype, **place)
        self.a_hat, self.hops = a_hat, hops
        self.transposed = False
        # One buffer for all blocks, since allocating memory takes as long as filling it.
        self._buffer = torch.empty(self.block if self.is_dense_faster else 0, self.shape[1], **place, dtype=self.dtype)
        self._held: list[slice] = []  # the block in it, if any; a list, so that all views of the memory know

    @property
    def T(self) -> SparseView:
        """The transpose, which shares its memory."""
        other = copy.copy(self)
        other.shape, other.transposed = self.shape[::-1], not self.transposed
        return other

    def after(self, hops: int) -> SparseView:
        """Return the same features after another number of hops, sharing their memory."""
        other = copy.copy(self)
        other.hops = hops
        return other

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Handle linear(view, weight, bias); this is torch's protocol for foreign types."""
        if function is not torch.nn.functional.linear:
            return NotImplemented
        return cls._linear(*args, **(kwargs or {}))

    def _linear(self, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return the view, or its transpose, times weight^T, plus bias."""
        # A_hat is symmetric, so for the transpose X^T A_hat^hops the smoothing comes first.
        if self.transposed:
            product = _Product.apply(self.transposed_times, self.times, self._smooth(weight.T))
        else:
            product = self._smooth(_Product.apply(self.times, self.transposed_times, weight.T))
        return product if bias is None else product.add_(bias)  # nothing else holds it

    def _smooth(self, x: Tensor) -> Tensor:
        """Return A_hat^hops x."""
        for _ in range(self.hops):
            x = symmetric_product(self.a_hat, x)
        return x

    def _blocks(self) -> Iterator[tuple[slice, slice]]:
        """Yield each block: its cells, and where their values are stored."""
        n_cells = len(self.starts) - 1
        for start in range(0, n_cells, self.block):
            rows = slice(start, min(start + self.block, n_cells))
            yield rows, slice(self.starts[rows.start], self.starts[rows.stop])

    def _dense(self, rows: slice, stored: slice) -> Tensor:
        """Return the values of these cells without the offset, [cells, G], valid until the next call."""
        dense = self._buffer[: rows.stop - rows.start]
        if self._held == [rows]:  # always, where a block holds all cells
            return dense
        # Position of each stored value in the flat buffer: the start of its row plus its gene.
        firsts = torch.arange(len(dense), device=self.device) * len(self.offset)
        in_rows = self.stored.ends[rows.start : rows.stop + 1].diff()
        where = torch.repeat_interleave(firsts, in_rows, output_size=stored.stop - stored.start)
        self._held.clear()  # while it is neither the one nor the other
        dense.zero_().view(-1).index_put_((where + self.stored.columns[stored],), self.stored.values[stored])
        self._held.append(rows)
        return dense

    def times(self, x: Tensor) -> Tensor:
        """Return X x, [N, d], for x [G, d]."""
        start = -(self.offset @ x)  # (values - offset) x, without forming the difference
        if not self.is_dense_faster:
            return sparse_products.times(self.stored, x, start)
        product = torch.empty(len(self.starts) - 1, x.shape[1], device=self.device, dtype=self.dtype)
        for rows, stored in self._blocks():
            torch.mm(self._dense(rows, stored), x, out=product[rows])
        return product.add_(start)

    def transposed_times(self, x: Tensor) -> Tensor:
        """Return X^T x, [G, d], for x [N, d]."""
        product = torch.outer(-self.offset, x.sum(0))
        if not self.is_dense_faster:
            return product.add_(sparse_products.transposed_times(self.stored, x, len(self.offset)))
        for rows, stored in self._blocks():
            product.addmm_(self._dense(rows, stored).T, x[rows])
        return product


class _Product(torch.autograd.Function):
    """Multiply by a constant matrix, and by its transpose for the gradient."""

    @staticmethod
    def forward(
        ctx: Any, product: Callable[[Tensor], Tensor], transposed: Callable[[Tensor], Tensor], x: Tensor
    ) -> Tensor:
        ctx.transposed = transposed
        return product(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, Tensor]:
        return None, None, ctx.transposed(grad)
