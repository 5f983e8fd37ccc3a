"""The three losses of scRCL, exact and in linear time: no N x N matrix is ever formed.

    L = HEA + lambda1 NDC + lambda2 CVC

Shapes: N cells (or spots), H hidden units, K' refined dimensions. `tests/dense_reference.py` has the same losses as the
paper writes them, N x N and all. A further term is a function here, a field of `Losses` and a line of `Losses.total`;
its weight is a field of `Objective` and a setting of that name in `scrcl/recipes.py`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from scrcl.method.kernels import RowProducts, fixed_sum, mean, row_products, symmetric_product
from scrcl.method.network import Embeddings


class Objective(NamedTuple):
    """What is minimised: temperature t, the weights lambda1 (of NDC) and lambda2 (of CVC), and the form of CVC."""

    temperature: float
    lambda1: float
    lambda2: float
    consistency: str = "published"  # a key of CONSISTENCY


class Losses(NamedTuple):
    """Scalars, before their weights."""

    hea_global: Tensor
    hea_cell: Tensor
    ndc: Tensor
    cvc: Tensor

    def total(self, objective: Objective) -> Tensor:
        """L = HEA + lambda1 NDC + lambda2 CVC."""
        return self.hea_global + self.hea_cell + objective.lambda1 * self.ndc + objective.lambda2 * self.cvc


def losses(embeddings: Embeddings, neighbourhood: Tensor, objective: Objective, block: int = 0) -> Losses:
    """All loss terms of one forward pass.

    Parameters
    ----------
    embeddings
        What the network gives.
    neighbourhood
        [N, N] sparse 0/1, A + I.
    objective
        Temperature and form of CVC.
    block
        Cells at a time, 0 for as many as suit the device.
    """
    e1, e2, z1, z2 = embeddings
    degree = neighbourhood @ torch.ones_like(e1[:, 0])
    # p and q of the paper are the row softmax of these
    u, v = (e1, e2) if objective.temperature == 1 else (e1 / objective.temperature, e2 / objective.temperature)
    products = row_products(u, v, neighbourhood, block)
    return Losses(
        *distribution_alignment(products),
        neighbourhood_contrast(products, neighbourhood, degree),
        CONSISTENCY[objective.consistency](z1, z2, neighbourhood, degree),
    )


# The divergence of cell i in one view from cell j in the other is D_ij = KL(p_i || q_j) + KL(q_j || p_i). With u and v
# the logits of p and q,
#
#     D_ij = (p_i - q_j) . (log p_i - log q_j) = (p_i - q_j) . (u_i - v_j),
#
# since the log-normalisers are constant along a row and p_i - q_j sums to 0. No logarithm is taken, so nothing overflows
# at small t. For the same reason 1/H may be taken off p and q; what remains is as small as D itself, which keeps
# float32 from cancelling. Sums of D over all cells and over neighbours split into dot products: O(N H) and O(edges H).


def distribution_alignment(products: RowProducts) -> tuple[Tensor, Tensor]:
    """HEA, global and per cell: both views of the data give the same distribution.

    cell    1/2 mean_i D_ii
    global  KL(P || Q) + KL(Q || P), P and Q the softmax over all N x H entries: the row softmax weighted by the rows'
            share of the total
    """
    _, _, pd, qd, _, _, size_u, size_v, drift = products
    share_p, share_q = size_u.softmax(0), size_v.softmax(0)
    hea_global = fixed_sum(share_p * (pd + drift) - share_q * (qd + drift))
    hea_cell = mean(pd - qd) / 2
    return hea_global, hea_cell


def neighbourhood_contrast(products: RowProducts, neighbourhood: Tensor, degree: Tensor) -> Tensor:
    """NDC: a cell is near its neighbours in the other view, and far from all other cells.

        mean_i [ sum_(j in N(i) or j=i) D_ij / (|N(i)| + 1) ] / [ sum_(j != i) D_ij / (N - 1) ]

    neighbourhood: [N, N] sparse, A + I; degree: [N], its row sums.
    """
    pu, qv, pd, qd, near_cross, all_cross, *_ = products
    n_cells = len(pu)
    qv_near = symmetric_product(neighbourhood, qv[:, None])[:, 0]
    near = (degree * pu + qv_near - near_cross).clamp_min(0) / degree
    far = (n_cells * pu + fixed_sum(qv) - all_cross - (pd - qd)) / max(n_cells - 1, 1)
    far = torch.maximum(far, _rounding_error_of_far(pu, qv))
    return mean(near / far)


def _rounding_error_of_far(pu: Tensor, qv: Tensor) -> Tensor:
    """Where all cells are alike near and far are rounding errors; without a floor their ratio could be anything."""
    precision = torch.finfo(pu.dtype)
    return 10 * precision.eps * (pu.abs() + fixed_sum(qv.abs()) / len(pu)).detach() + precision.tiny**0.5


def consistency(z1: Tensor, z2: Tensor, neighbourhood: Tensor, degree: Tensor) -> Tensor:
    """CVC: the refined embeddings of both views are alike for neighbours and for no others.

        mean over all N^2 of (Z1 Z2^T - (A + I))^2, expanded so that no N x N is formed

    z1, z2: [N, K'].
    """
    all_pairs = ((z1.T @ z1) * (z2.T @ z2)).sum()
    neighbours = fixed_sum(z1 * symmetric_product(neighbourhood, z2))
    return (all_pairs - 2 * neighbours + fixed_sum(degree)) / z1.shape[0] ** 2


def scale_free_consistency(z1: Tensor, z2: Tensor, neighbourhood: Tensor, degree: Tensor) -> Tensor:
    """CVC after the best scaling of Z1 Z2^T: -log cos^2 of the angle between Z1 Z2^T and A + I, 0 where they are parallel.

    In the published CVC the sum over neighbours is divided by N^2, so what draws neighbours together fades
    as 1/N beside what drives all cells apart. min over c of |c Z1 Z2^T - (A + I)|^2 = |A + I|^2 (1 - cos^2)
    has no such scale; its optimum is that of the spectral contrastive loss (HaoChen 2021).
    """
    all_pairs = ((z1.T @ z1) * (z2.T @ z2)).sum()
    neighbours = fixed_sum(z1 * symmetric_product(neighbourhood, z2))
    tiny = torch.finfo(z1.dtype).tiny ** 0.5
    return (all_pairs.clamp_min(tiny) * fixed_sum(degree)).log() - 2 * neighbours.clamp_min(tiny).log()


CONSISTENCY = {"published": consistency, "scale-free": scale_free_consistency}
