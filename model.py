"""The scRCL network and its three losses, exact and without any N x N matrix.

Peng et al., Refinement Contrastive Learning of Cell-Gene Associations for
Unsupervised Cell Type Identification, AAAI 2026, arXiv 2512.10640.

Shapes: N cells (or spots), G genes, H hidden units, K refined dimensions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn.functional import dropout, leaky_relu, normalize
from torch_geometric.nn import GCNConv
from torch_geometric.nn.dense.linear import Linear as InitLinear


@dataclass(frozen=True)
class GraphInputs:
    """What stays constant over training; every tensor on one device.

    view1            [N, G] dense, the expression encoder's input A_hat^m1 X
    propagated_view2 [N, G] dense, A_hat times the graph encoder's input A_hat^m2 X
    normalised       [N, N] sparse, A_hat = D^-1/2 (A + I) D^-1/2
    neighbourhood    [N, N] sparse 0/1, A + I
    gene_graph       [G, G] sparse, normalised, row g holds what gene g receives
    """

    view1: Tensor
    propagated_view2: Tensor
    normalised: Tensor
    neighbourhood: Tensor
    gene_graph: Tensor


class Embeddings(NamedTuple):
    """e1, e2: [N, H] cell embeddings; z1, z2: [N, K] refined embeddings; unit rows."""

    e1: Tensor
    e2: Tensor
    z1: Tensor
    z2: Tensor


class Losses(NamedTuple):
    """Scalars, before the weights lambda1 (on ndc) and lambda2 (on cvc)."""

    hea_global: Tensor
    hea_cell: Tensor
    ndc: Tensor
    cvc: Tensor

    def total(self, lambda1: float, lambda2: float) -> Tensor:
        """L = HEA + lambda1 NDC + lambda2 CVC."""
        return self.hea_global + self.hea_cell + lambda1 * self.ndc + lambda2 * self.cvc


class _SymmetricProduct(torch.autograd.Function):
    """S @ x for a symmetric sparse S: the gradient is S @ g, no transpose needed."""

    @staticmethod
    def forward(ctx: FunctionCtx, symmetric: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(symmetric)
        return symmetric @ x

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[None, Tensor]:
        (symmetric,) = ctx.saved_tensors  # type: ignore[attr-defined]  # torch does not declare it
        return None, symmetric @ grad


symmetric_product = _SymmetricProduct.apply


class SymmetricGCNConv(GCNConv):
    """GCNConv over a symmetric, already normalised sparse adjacency: one sparse product each way."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, normalize=False)

    def message_and_aggregate(self, adj_t: Tensor, x: Tensor) -> Tensor:
        return symmetric_product(adj_t, x)


class GraphEncoder(nn.Module):
    """GCN -> LeakyReLU -> GCN -> LeakyReLU -> dropout -> Linear -> LeakyReLU, [N, G] to [N, H].

    The first GCN multiplies an input that never changes by a graph that never
    changes, so it receives the product and is left with its weights: (A_hat X) W + b.
    """

    def __init__(self, n_genes: int, hidden: int, dropout: float):
        super().__init__()
        # GCNConv's own initialisation, since this is its first half.
        self.gcn1 = InitLinear(n_genes, hidden, weight_initializer="glorot", bias_initializer="zeros")
        self.gcn2 = SymmetricGCNConv(hidden, hidden)
        self.out = nn.Linear(hidden, hidden)
        self.dropout = dropout

    def forward(self, propagated: Tensor, normalised: Tensor) -> Tensor:
        h = leaky_relu(self.gcn1(propagated))
        h = leaky_relu(self.gcn2(h, normalised))
        return leaky_relu(self.out(dropout(h, self.dropout, self.training)))


class ScRCL(nn.Module):
    """Two encoders of the same cells and the refinement by cell-gene associations.

    Parameters: N cells, G genes, H hidden units, K refined dimensions, dropout
    probability in [0, 1).
    """

    def __init__(self, n_cells: int, n_genes: int, hidden: int, refined_width: int, dropout: float):
        super().__init__()
        self.expression_encoder = nn.Linear(n_genes, hidden)
        self.graph_encoder = GraphEncoder(n_genes, hidden, dropout)
        self.projector = nn.Linear(hidden, n_genes)
        self.gene_encoder = GCNConv(n_cells, refined_width, normalize=False)
        self.dropout = dropout

    def forward(self, inputs: GraphInputs) -> Embeddings:
        h1 = self.expression_encoder(inputs.view1).relu()
        h2 = self.graph_encoder(inputs.propagated_view2, inputs.normalised)
        q = self.gene_encoder(inputs.view1.T, inputs.gene_graph).relu()
        z1, z2 = self.refine(q, h1, h2)
        return Embeddings(normalize(h1), normalize(h2), z1, z2)

    def refine(self, q: Tensor, *hidden: Tensor) -> list[Tensor]:
        """Z = rownorm(P(h) Q) for each h. q: [G, K], h: [N, H], results [N, K].

        P(h) Q = h (W^T Q) + b Q: multiplied small side first, so that the
        N x G intermediate P(h) never exists.
        """
        weight, bias = self.projector.weight.T @ q, self.projector.bias @ q
        return [normalize(dropout(h, self.dropout, self.training) @ weight + bias) for h in hidden]


def alignment_losses(
    e1: Tensor, e2: Tensor, neighbourhood: Tensor, degree: Tensor, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """HEA (global, cell) and NDC from D_ij = KL(p_i || q_j) + KL(q_j || p_i).

    e1, e2: [N, H]; neighbourhood: [N, N] sparse 0/1, A + I; degree: [N], its row sums.
    With logits u = e1 / t, v = e2 / t and p, q their row softmax,

        D_ij = (p_i - q_j) . (log p_i - log q_j) = (p_i - q_j) . (u_i - v_j),

    since the log-normalisers are constant along a row and p_i - q_j sums to 0. No
    logarithm is taken, so nothing overflows at small t. For the same reason 1/H may
    be taken off p and q; what remains is as small as D itself, which keeps float32
    from cancelling. The sums of D over all cells and over neighbours split into dot
    products: O(N H) and O(edges H).
    """
    n_cells, width = e1.shape
    u, v = e1 / temperature, e2 / temperature
    p = torch.softmax(u, dim=1) - 1 / width
    q = torch.softmax(v, dim=1) - 1 / width
    pu, pv, qu, qv = _row_dot(p, u), _row_dot(p, v), _row_dot(q, u), _row_dot(q, v)
    own = pu - pv - qu + qv  # D_ii
    hea_cell = _sum(own) / n_cells / 2

    # The softmax over all N*H entries is the row softmax weighted by the rows' share of the total.
    share_p, share_q = torch.logsumexp(u, 1).softmax(0), torch.logsumexp(v, 1).softmax(0)
    drift = (u - v).mean(1)  # restores the 1/H taken off p and q
    hea_global = _sum(share_p * (pu - pv + drift) - share_q * (qu - qv + drift))

    near = degree * pu + symmetric_product(neighbourhood, qv[:, None])[:, 0]
    near = near - _row_dot(p, symmetric_product(neighbourhood, v)) - _row_dot(u, symmetric_product(neighbourhood, q))
    far = (n_cells * pu + _sum(qv) - p @ v.sum(0) - u @ q.sum(0) - own) / max(n_cells - 1, 1)
    # Where all cells are alike both are rounding errors; without a floor their ratio could be anything.
    precision = torch.finfo(e1.dtype)
    floor = 10 * precision.eps * (pu.abs() + _sum(qv.abs()) / n_cells).detach() + precision.tiny**0.5
    ndc = _sum(near.clamp_min(0) / degree / torch.maximum(far, floor)) / n_cells
    return hea_global, hea_cell, ndc


def consistency_loss(z1: Tensor, z2: Tensor, neighbourhood: Tensor, degree: Tensor) -> Tensor:
    """CVC, the mean over all N^2 of (Z1 Z2^T - (A + I))^2, expanded so that no N x N is formed."""
    all_pairs = ((z1.T @ z1) * (z2.T @ z2)).sum()
    neighbours = _sum(z1 * symmetric_product(neighbourhood, z2))
    return (all_pairs - 2 * neighbours + _sum(degree)) / z1.shape[0] ** 2


def scale_free_consistency_loss(z1: Tensor, z2: Tensor, neighbourhood: Tensor, degree: Tensor) -> Tensor:
    """CVC after the best scaling of Z1 Z2^T: -log cos^2 of the angle between Z1 Z2^T and A + I, 0 where they are parallel.

    In the published CVC the sum over neighbours is divided by N^2, so what draws neighbours together fades
    as 1/N beside what drives all cells apart. min over c of |c Z1 Z2^T - (A + I)|^2 = |A + I|^2 (1 - cos^2)
    has no such scale; its optimum is that of the spectral contrastive loss (HaoChen 2021).
    """
    all_pairs = ((z1.T @ z1) * (z2.T @ z2)).sum()
    neighbours = _sum(z1 * symmetric_product(neighbourhood, z2))
    tiny = torch.finfo(z1.dtype).tiny ** 0.5
    return (all_pairs.clamp_min(tiny) * _sum(degree)).log() - 2 * neighbours.clamp_min(tiny).log()


CONSISTENCY = {"published": consistency_loss, "scale-free": scale_free_consistency_loss}


def losses(embeddings: Embeddings, neighbourhood: Tensor, temperature: float, consistency: str = "published") -> Losses:
    """All loss terms of one forward pass; neighbourhood is the sparse 0/1 matrix A + I, consistency a key of CONSISTENCY."""
    e1, e2, z1, z2 = embeddings
    degree = neighbourhood @ torch.ones_like(e1[:, 0])
    return Losses(
        *alignment_losses(e1, e2, neighbourhood, degree, temperature),
        CONSISTENCY[consistency](z1, z2, neighbourhood, degree),
    )


def _sum(x: Tensor) -> Tensor:
    """The sum of all, in an order that the number of threads does not change: torch splits a sum of 32,768 or more by threads."""
    side = math.isqrt(x.numel())
    flat = x.flatten()
    return flat[: side**2].view(side, side).sum(1).sum() + flat[side**2 :].sum()


def _row_dot(a: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.vecdot(a, b)
