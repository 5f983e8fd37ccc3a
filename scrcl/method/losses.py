"""The three losses of scRCL, exact and in linear time: no N x N matrix is ever formed.

    L = HEA + lambda1 NDC + lambda2 CVC

Shapes: N cells (or spots), H hidden units, K' refined dimensions. `tests/dense_reference.py` computes the same losses
as the paper writes them, with N x N matrices.

To add a term, write a function here, add a field to `Losses` and a summand to `Objective.total`, and add its weight
as a field of `Objective` and a setting of the same name in `scrcl/recipes.py`. Sums over cells go through `share`, so
that several processes get what one gets.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from scrcl.method.kernels import Graph, RowProducts, row_dot, row_products, symmetric_product
from scrcl.method.network import Embeddings
from scrcl.method.shares import ALL, Share, fixed_sum


class Losses(NamedTuple):
    """The loss terms before they are weighted, each a scalar."""

    hea_global: Tensor
    hea_cell: Tensor
    ndc: Tensor
    cvc: Tensor


class Objective(NamedTuple):
    """What training minimises.

    Attributes
    ----------
    temperature
        t, by which the embeddings are divided before the softmax.
    lambda1, lambda2
        Weights of NDC and of CVC.
    consistency
        The form of CVC, a key of CONSISTENCY.
    """

    temperature: float
    lambda1: float
    lambda2: float
    consistency: str = "published"

    def total(self, terms: Losses) -> Tensor:
        """Return L = HEA + lambda1 NDC + lambda2 CVC."""
        return terms.hea_global + terms.hea_cell + self.lambda1 * terms.ndc + self.lambda2 * terms.cvc


def losses(
    embeddings: Embeddings, neighbourhood: Graph, objective: Objective, block: int = 0, share: Share = ALL
) -> Losses:
    """Return all loss terms of one forward pass.

    Parameters
    ----------
    embeddings
        What the network returns.
    neighbourhood
        [N, N] sparse 0/1, A + I.
    objective
        Temperature, and the form of CVC.
    block
        Cells at a time; 0 for as many as suit the device.
    share
        The cells that this process holds. Of several processes, all return the same.
    """
    e1, e2, z1, z2 = embeddings
    degree = symmetric_product(neighbourhood, torch.ones_like(e1[:, :1]))[:, 0]  # |N(i)| + 1
    # Logits: p and q of the paper are their row softmax.
    u, v = (e1, e2) if objective.temperature == 1 else (e1 / objective.temperature, e2 / objective.temperature)
    products = row_products(u, v, neighbourhood, block, share)
    return Losses(
        *distribution_alignment(products, share),
        neighbourhood_contrast(products, neighbourhood, degree, share),
        CONSISTENCY[objective.consistency](z1, z2, neighbourhood, degree, share),
    )


# The divergence between cell i in one view and cell j in the other is D_ij = KL(p_i || q_j) + KL(q_j || p_i). With u
# and v the logits of p and q,
#
#     D_ij = (p_i - q_j) . (log p_i - log q_j) = (p_i - q_j) . (u_i - v_j),
#
# since the log-normalisers are constant along a row and p_i - q_j sums to 0. No logarithm is taken, so nothing
# overflows at small t. For the same reason 1/H may be subtracted from p and q. What remains is as small as D itself, so
# float32 loses no digits by cancellation. Sums of D over all cells and over neighbours split into dot products, which
# cost O(N H) and O(edges H).


def distribution_alignment(products: RowProducts, share: Share = ALL) -> tuple[Tensor, Tensor]:
    """Return HEA, global and per cell: low when both views of the data give the same distribution.

        cell    1/2 mean_i D_ii
        global  KL(P || Q) + KL(Q || P)

    P and Q are the softmax over all N x H entries, which is the row softmax weighted by the rows' share of the total.

    Parameters
    ----------
    products
        The dot products of both views.
    share
        As for `losses`.
    """
    _, _, pd, qd, _, _, size_u, size_v, drift = products
    # A row's share of the softmax over all entries depends on its log-normaliser alone.
    of_p, of_q = share.softmax(size_u), share.softmax(size_v)
    hea_global = share.total(fixed_sum(of_p * (pd + drift) - of_q * (qd + drift)))
    hea_cell = share.mean(pd - qd) / 2
    return hea_global, hea_cell


def neighbourhood_contrast(products: RowProducts, neighbourhood: Graph, degree: Tensor, share: Share = ALL) -> Tensor:
    """Return NDC: low when a cell is near its neighbours in the other view and far from all other cells.

        mean_i [ sum_(j in N(i) or j=i) D_ij / (|N(i)| + 1) ] / [ sum_(j != i) D_ij / (N - 1) ]

    Parameters
    ----------
    products
        The dot products of both views.
    neighbourhood
        [N, N] sparse, A + I.
    degree
        [N], its row sums.
    share
        As for `losses`.
    """
    pu, qv, pd, qd, near_cross, all_cross, *_ = products
    n_cells = share.n_cells(len(pu))
    qv_near = symmetric_product(neighbourhood, qv[:, None])[:, 0]
    # Both sums of D_ij expand to p_i . u_i and q_j . v_j minus the cross terms. D is never below 0, but by rounding the
    # computed sum can be.
    near = (degree * pu + qv_near - near_cross).clamp_min(0) / degree
    # pd - qd is D_ii, which the denominator leaves out.
    far = (n_cells * pu + share.total(fixed_sum(qv)) - all_cross - (pd - qd)) / max(n_cells - 1, 1)
    far = torch.maximum(far, _rounding_error_of_far(pu, qv, share))
    return share.mean(near / far)


@torch.no_grad()
def _rounding_error_of_far(pu: Tensor, qv: Tensor, share: Share) -> Tensor:
    """Return a floor for the denominator of NDC, [N].

    Where all cells are alike, numerator and denominator are rounding errors, and without a floor their ratio could be
    anything.
    """
    precision = torch.finfo(pu.dtype)
    return 10 * precision.eps * (pu.abs() + share.mean(qv.abs())) + precision.tiny**0.5


def consistency(z1: Tensor, z2: Tensor, neighbourhood: Graph, degree: Tensor, share: Share = ALL) -> Tensor:
    """Return CVC: low when the refined embeddings of both views are alike for neighbours and for no other cells.

        mean over all N^2 of (Z1 Z2^T - (A + I))^2, expanded so that no N x N matrix is formed

    Parameters
    ----------
    z1, z2
        [N, K'], the refined embeddings.
    neighbourhood
        [N, N] sparse, A + I.
    degree
        [N], its row sums.
    share
        As for `losses`.
    """
    all_pairs = (share.total(z1.T @ z1) * share.total(z2.T @ z2)).sum()
    neighbours = share.total(fixed_sum(row_dot(z1, symmetric_product(neighbourhood, z2))))
    return (all_pairs - 2 * neighbours + share.total(fixed_sum(degree))) / share.n_cells(len(z1)) ** 2


def scale_free_consistency(z1: Tensor, z2: Tensor, neighbourhood: Graph, degree: Tensor, share: Share = ALL) -> Tensor:
    """Return CVC after the best scaling of Z1 Z2^T, as -log cos^2 of the angle between Z1 Z2^T and A + I.

    It is 0 where the two are parallel. In the published CVC the sum over neighbours is divided by N^2, so the force
    that draws neighbours together fades as 1/N compared with the force that drives all cells apart. With the best
    scaling c this does not happen:

        min over c of |c Z1 Z2^T - (A + I)|^2 = |A + I|^2 (1 - cos^2)

    Its optimum is the one of the spectral contrastive loss (HaoChen 2021).

    Parameters
    ----------
    z1, z2, neighbourhood, degree, share
        As for `consistency`.
    """
    all_pairs = (share.total(z1.T @ z1) * share.total(z2.T @ z2)).sum()
    neighbours = share.total(fixed_sum(row_dot(z1, symmetric_product(neighbourhood, z2))))
    tiny = torch.finfo(z1.dtype).tiny ** 0.5  # keeps the logarithms finite
    return (all_pairs.clamp_min(tiny) * share.total(fixed_sum(degree))).log() - 2 * neighbours.clamp_min(tiny).log()


CONSISTENCY = {"published": consistency, "scale-free": scale_free_consistency}
