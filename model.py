"""The scRCL network and its three losses, exact and without any N x N matrix.

Peng et al., Refinement Contrastive Learning of Cell-Gene Associations for
Unsupervised Cell Type Identification, AAAI 2026, arXiv 2512.10640.

Shapes: N cells (or spots), G genes, H hidden units, K refined dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu_, linear
from torch_geometric.nn import GCNConv
from torch_geometric.nn.dense.linear import Linear as InitLinear

from rows import by_rows, dropout, fixed_sum, row_products, symmetric_product, unit_rows

if TYPE_CHECKING:
    from views import SparseView


@dataclass(frozen=True)
class GraphInputs:
    """What stays constant over training; every tensor on one device.

    view1            [N, G], the expression encoder's input A_hat^m1 X, dense or a view of sparse values
    propagated_view2 [N, G], A_hat times the graph encoder's input A_hat^m2 X, in the same form
    normalised       [N, N] sparse, A_hat = D^-1/2 (A + I) D^-1/2
    neighbourhood    [N, N] sparse 0/1, A + I
    gene_graph       [G, G] sparse, normalised, row g holds what gene g receives
    block            cells at a time where a step works on rows alone, 0 for all; bounds its memory
    """

    view1: Tensor | SparseView
    propagated_view2: Tensor | SparseView
    normalised: Tensor
    neighbourhood: Tensor
    gene_graph: Tensor
    block: int = 0


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

    def forward(self, inputs: GraphInputs) -> Tensor:
        h = leaky_relu_(self.gcn1(inputs.propagated_view2))
        h = leaky_relu_(self.gcn2(h, inputs.normalised))
        (h,) = by_rows(self._head, inputs.block, (h,), (self.out.weight, self.out.bias))
        return h

    def _head(self, h: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor]:
        return (leaky_relu_(linear(dropout(h, self.dropout, self.training), weight, bias)),)


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
        return self.contrasted(*self.encode(inputs), inputs)

    def encode(self, inputs: GraphInputs) -> tuple[Tensor, Tensor]:
        """Hidden units of both views, [N, H] each."""
        return self.expression_encoder(inputs.view1).relu_(), self.graph_encoder(inputs)

    def contrasted(self, h1: Tensor, h2: Tensor, inputs: GraphInputs) -> Embeddings:
        """What the losses compare: the hidden units, and their refinement by the genes, in rows of unit length."""
        q = self.gene_encoder(inputs.view1.T, inputs.gene_graph).relu()
        z1, z2 = self.refine(q, h1, h2, block=inputs.block)
        (e1,), (e2,) = (by_rows(lambda h: (unit_rows(h),), inputs.block, (h,)) for h in (h1, h2))
        return Embeddings(e1, e2, z1, z2)

    def refine(self, q: Tensor, *hidden: Tensor, block: int = 0) -> list[Tensor]:
        """Z = rownorm(P(h) Q) for each h. q: [G, K], h: [N, H], results [N, K].

        P(h) Q = h (W^T Q) + b Q: multiplied small side first, so that the
        N x G intermediate P(h) never exists.
        """

        def refined(h: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor]:
            return (unit_rows(dropout(h, self.dropout, self.training) @ weight + bias),)

        projected = self.projector.weight.T @ q, self.projector.bias @ q
        return [by_rows(refined, block, (h,), projected)[0] for h in hidden]


def alignment_losses(
    e1: Tensor, e2: Tensor, neighbourhood: Tensor, degree: Tensor, temperature: float, block: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """HEA (global, cell) and NDC from D_ij = KL(p_i || q_j) + KL(q_j || p_i).

    e1, e2: [N, H]; neighbourhood: [N, N] sparse 0/1, A + I; degree: [N], its row sums; block: as in GraphInputs.
    With logits u = e1 / t, v = e2 / t and p, q their row softmax,

        D_ij = (p_i - q_j) . (log p_i - log q_j) = (p_i - q_j) . (u_i - v_j),

    since the log-normalisers are constant along a row and p_i - q_j sums to 0. No
    logarithm is taken, so nothing overflows at small t. For the same reason 1/H may
    be taken off p and q; what remains is as small as D itself, which keeps float32
    from cancelling. The sums of D over all cells and over neighbours split into dot
    products: O(N H) and O(edges H).
    """
    n_cells = len(e1)
    u, v = (e1, e2) if temperature == 1 else (e1 / temperature, e2 / temperature)
    pu, qv, pd, qd, near_cross, all_cross, size_u, size_v, drift = row_products(u, v, neighbourhood, block)
    own = pd - qd  # D_ii
    hea_cell = fixed_sum(own) / n_cells / 2

    # The softmax over all N*H entries is the row softmax weighted by the rows' share of the total.
    share_p, share_q = size_u.softmax(0), size_v.softmax(0)
    hea_global = fixed_sum(share_p * (pd + drift) - share_q * (qd + drift))

    near = degree * pu + symmetric_product(neighbourhood, qv[:, None])[:, 0] - near_cross
    far = (n_cells * pu + fixed_sum(qv) - all_cross - own) / max(n_cells - 1, 1)
    # Where all cells are alike both are rounding errors; without a floor their ratio could be anything.
    precision = torch.finfo(e1.dtype)
    floor = 10 * precision.eps * (pu.abs() + fixed_sum(qv.abs()) / n_cells).detach() + precision.tiny**0.5
    ndc = fixed_sum(near.clamp_min(0) / degree / torch.maximum(far, floor)) / n_cells
    return hea_global, hea_cell, ndc


def consistency_loss(z1: Tensor, z2: Tensor, neighbourhood: Tensor, degree: Tensor) -> Tensor:
    """CVC, the mean over all N^2 of (Z1 Z2^T - (A + I))^2, expanded so that no N x N is formed."""
    all_pairs = ((z1.T @ z1) * (z2.T @ z2)).sum()
    neighbours = fixed_sum(z1 * symmetric_product(neighbourhood, z2))
    return (all_pairs - 2 * neighbours + fixed_sum(degree)) / z1.shape[0] ** 2


def scale_free_consistency_loss(z1: Tensor, z2: Tensor, neighbourhood: Tensor, degree: Tensor) -> Tensor:
    """CVC after the best scaling of Z1 Z2^T: -log cos^2 of the angle between Z1 Z2^T and A + I, 0 where they are parallel.

    In the published CVC the sum over neighbours is divided by N^2, so what draws neighbours together fades
    as 1/N beside what drives all cells apart. min over c of |c Z1 Z2^T - (A + I)|^2 = |A + I|^2 (1 - cos^2)
    has no such scale; its optimum is that of the spectral contrastive loss (HaoChen 2021).
    """
    all_pairs = ((z1.T @ z1) * (z2.T @ z2)).sum()
    neighbours = fixed_sum(z1 * symmetric_product(neighbourhood, z2))
    tiny = torch.finfo(z1.dtype).tiny ** 0.5
    return (all_pairs.clamp_min(tiny) * fixed_sum(degree)).log() - 2 * neighbours.clamp_min(tiny).log()


CONSISTENCY = {"published": consistency_loss, "scale-free": scale_free_consistency_loss}


def losses(
    embeddings: Embeddings, neighbourhood: Tensor, temperature: float, consistency: str = "published", block: int = 0
) -> Losses:
    """All loss terms of one forward pass.

    neighbourhood: the sparse 0/1 matrix A + I; consistency: a key of CONSISTENCY; block: as in GraphInputs.
    """
    e1, e2, z1, z2 = embeddings
    degree = neighbourhood @ torch.ones_like(e1[:, 0])
    return Losses(
        *alignment_losses(e1, e2, neighbourhood, degree, temperature, block),
        CONSISTENCY[consistency](z1, z2, neighbourhood, degree),
    )
