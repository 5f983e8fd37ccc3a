"""The equations as they are written, dense in N x N: the oracle that the linear forms are compared with.

Also the published order of computation (projector before the gene product, one
message per edge), which the benchmark times.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, leaky_relu, normalize
from torch_geometric.nn import GCNConv


def pairwise_divergence(e1: Tensor, e2: Tensor, temperature: float) -> Tensor:
    """D_ij = KL(p_i || q_j) + KL(q_j || p_i), [N, N]."""
    a, b = torch.log_softmax(e1 / temperature, 1), torch.log_softmax(e2 / temperature, 1)
    p, q = a.exp(), b.exp()
    forward = (p * a).sum(1)[:, None] - p @ b.T
    return forward + (q * b).sum(1)[None, :] - a @ q.T


def symmetric_kl(a: Tensor, b: Tensor) -> Tensor:
    """KL both ways between distributions given by their logarithms, summed over all entries."""
    return ((a.exp() - b.exp()) * (a - b)).sum()


def dense_losses(
    e1: Tensor, e2: Tensor, z1: Tensor, z2: Tensor, adjacency: Tensor, temperature: float
) -> dict[str, Tensor]:
    """All losses; adjacency: [N, N] 0/1, zero diagonal."""
    n = len(e1)
    u, v = e1 / temperature, e2 / temperature
    eye = torch.ones(n, dtype=e1.dtype, device=e1.device).diag()
    near = adjacency + eye
    d = pairwise_divergence(e1, e2, temperature)
    numerator = (d * near).sum(1) / near.sum(1)
    denominator = (d * (1 - eye)).sum(1) / (n - 1)
    return {
        "hea_global": symmetric_kl(torch.log_softmax(u.flatten(), 0), torch.log_softmax(v.flatten(), 0)),
        "hea_cell": symmetric_kl(torch.log_softmax(u, 1), torch.log_softmax(v, 1)) / (2 * n),
        "ndc": (numerator / denominator).mean(),
        "cvc": ((z1 @ z2.T - near) ** 2).mean(),
    }


class PublishedOrder(nn.Module):
    """The same network, computed in the published order."""

    def __init__(self, n_cells: int, n_genes: int, hidden: int, refined_width: int, dropout: float):
        super().__init__()
        self.expression_encoder = nn.Linear(n_genes, hidden)
        self.gcn1, self.gcn2 = GCNConv(n_genes, hidden), GCNConv(hidden, hidden)
        self.out = nn.Linear(hidden, hidden)
        self.projector = nn.Linear(hidden, n_genes)
        self.gene_encoder = GCNConv(n_cells, refined_width)
        self.dropout = dropout

    def forward(self, view1: Tensor, view2: Tensor, edges: Tensor, gene_edges: Tensor) -> tuple[Tensor, ...]:
        h1 = self.expression_encoder(view1).relu()
        h2 = leaky_relu(self.gcn2(leaky_relu(self.gcn1(view2, edges)), edges))
        h2 = leaky_relu(self.out(dropout(h2, self.dropout, self.training)))
        q = self.gene_encoder(view1.T, gene_edges).relu()
        z1, z2 = (normalize(self.projector(dropout(h, self.dropout, self.training)) @ q) for h in (h1, h2))
        return normalize(h1), normalize(h2), z1, z2
