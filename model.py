"""scRCL on one page: every equation of the paper in order, its name, and where it is computed.

L. Peng, H. Liu, Y. Ye, C. Liu, W. Shen, S. Wu, H.-S. Wong, Refinement Contrastive Learning of Cell-Gene Associations
for Unsupervised Cell Type Identification, AAAI 2026, arXiv 2512.10640.

Nothing here is a copy: what this page names is what runs, and what you edit there is what you change.

Symbols
    N cells or spots, G genes, H hidden units, K' refined dimensions
    X      [N, G]   expression of the highly variable genes        scrcl.prepare.genes.encoder_values
    A      [N, N]   cell graph, 0/1, symmetric, sparse              scrcl.prepare.graphs.cell_graph, spatial_graph
    B      [G, G]   gene graph, each gene to its 5 nearest          scrcl.prepare.graphs.gene_graph
    A_hat           D^-1/2 (A + I) D^-1/2                           scrcl.prepare.graphs.normalised

Forward pass                                                        scrcl.method.network.ScRCL.forward
    1. views        X1 = A_hat^m1 X, X2 = A_hat^m2 X                scrcl.method.inputs.host_inputs
    2. expression   H1 = ReLU(X1 W + b)                             scrcl.method.network.ScRCL.encode
    3. graph        H2 = GCN, LeakyReLU, GCN, LeakyReLU, dropout, Linear, LeakyReLU of X2
                                                                    scrcl.method.network.GraphEncoder.forward
    4. cells        E1, E2 = H1, H2 in rows of unit length          scrcl.method.network.ScRCL.contrasted
    5. genes        Q = ReLU(GCN_B(X1^T)), [G, K']                  scrcl.method.network.ScRCL.encode_genes
    6. refinement   Z1, Z2 = P(H1) Q, P(H2) Q in rows of unit length; P is Linear, H to G
                                                                    scrcl.method.network.ScRCL.refine

Loss  L = HEA + lambda1 NDC + lambda2 CVC                           scrcl.method.losses.Objective.total
    p_i, q_i = softmax(E1_i / t), softmax(E2_i / t);  D_ij = KL(p_i || q_j) + KL(q_j || p_i)
                                                                    scrcl.method.kernels.row_products
    7. HEA  distribution alignment: 1/2 mean_i D_ii, and the same over all N x H entries at once
                                                                    scrcl.method.losses.distribution_alignment
    8. NDC  neighbourhood contrast: mean_i of (mean of D_ij over j in N(i) and i) / (mean of D_ij over j other than i)
                                                                    scrcl.method.losses.neighbourhood_contrast
    9. CVC  cross-view consistency: mean over all N^2 of (Z1 Z2^T - (A + I))^2
                                                                    scrcl.method.losses.consistency
            the same after the best scaling of Z1 Z2^T, the recipe for cells
                                                                    scrcl.method.losses.scale_free_consistency

Training    Adam with L2 weight decay on the full batch             scrcl.method.training.fit
Clustering  a mixture of what `embedding` gives                     scrcl.cluster.embedding.embedding
            k-means on [Z1 | Z2], as published                      scrcl.cluster.methods.kmeans.cluster
Seeds       one training each, and what they agree on               scrcl.cluster.consensus.consensus
All of it                                                           scrcl.analysis.analyse

`python model.py --cells 3000 --genes 2000` prints the network for these sizes.
"""

from __future__ import annotations

import argparse

from scrcl.method.losses import (
    Losses,
    Objective,
    consistency,
    distribution_alignment,
    losses,
    neighbourhood_contrast,
    scale_free_consistency,
)
from scrcl.method.network import Architecture, Embeddings, GraphEncoder, ScRCL

__all__ = [
    "Architecture", "Embeddings", "GraphEncoder", "Losses", "Objective", "ScRCL", "consistency",
    "distribution_alignment", "losses", "neighbourhood_contrast", "scale_free_consistency",
]  # fmt: skip


def describe(n_cells: int, n_genes: int, architecture: Architecture) -> str:
    """The network in words: its layers, the shape of every parameter, and how many numbers that is."""
    network = ScRCL(n_cells, n_genes, architecture)
    rows = [f"  {name:32}{' x '.join(map(str, value.shape)):>16}" for name, value in network.named_parameters()]
    total = sum(value.numel() for value in network.parameters())
    return "\n".join([str(network), "", "parameters", *rows, "", f"{total:,} numbers, {4 * total / 2**20:.1f} MiB"])


def main() -> None:
    """Print the network for the sizes that are asked for; the defaults are those of the recipe for cells."""
    parser = argparse.ArgumentParser(
        description=__doc__, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", type=int, default=3000, help="N (default: %(default)s)")
    parser.add_argument("--genes", type=int, default=2000, help="G (default: %(default)s)")
    parser.add_argument("--hidden", type=int, default=256, help="H (default: %(default)s)")
    parser.add_argument("--refined", type=int, default=64, help="K' (default: %(default)s)")
    parser.add_argument("--dropout", type=float, default=0.1, help="its probability (default: %(default)s)")
    sizes = parser.parse_args()
    print(describe(sizes.cells, sizes.genes, Architecture(sizes.hidden, sizes.refined, sizes.dropout)))


if __name__ == "__main__":
    main()
