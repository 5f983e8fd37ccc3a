"""The scRCL network: two encoders of the same cells, and the refinement by cell-gene associations.

Shapes: N cells (or spots), G genes, H hidden units, K' refined dimensions.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.functional import leaky_relu_, linear
from torch_geometric.nn import GCNConv
from torch_geometric.nn.dense.linear import Linear as InitLinear

from scrcl.method.inputs import GraphInputs
from scrcl.method.kernels import Graph, by_rows, dropout, graph_product, random_numbers, unit_rows
from scrcl.method.shares import ALL, Share

PER_CELL = "gene_encoder.lin.weight"  # [K', N], the one parameter of the network that has a column per cell


class Architecture(NamedTuple):
    """The sizes of the network.

    Attributes
    ----------
    hidden
        H, the number of hidden units.
    refined_width
        K', the number of refined dimensions.
    dropout
        The probability of dropout, in [0, 1).
    """

    hidden: int
    refined_width: int
    dropout: float


class Embeddings(NamedTuple):
    """What the network returns, all with rows of unit length.

    Attributes
    ----------
    e1, e2
        [N, H], cell embeddings of both views.
    z1, z2
        [N, K'], refined embeddings of both views.
    """

    e1: Tensor
    e2: Tensor
    z1: Tensor
    z2: Tensor


class ConstantGCNConv(GCNConv):
    """GCNConv for normalised sparse graphs that never change, with one sparse product in each direction."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, normalize=False)

    def forward(self, x: Tensor, graph: Graph, transposed: Graph, share: Share = ALL) -> Tensor:
        """Return graph (x W) + b.

        Parameters
        ----------
        x
            [n, in_channels].
        graph, transposed
            [n, n]; the same graph twice for a symmetric one.
        share
            Where the channels are cells, those that this process holds.
        """
        return graph_product(graph, transposed, share.total(self.lin(x))).add_(self.bias)


class GraphEncoder(nn.Module):
    """The graph encoder: GCN -> LeakyReLU -> GCN -> LeakyReLU -> dropout -> Linear -> LeakyReLU, [N, G] to [N, H].

    The first GCN multiplies an input that never changes by a graph that never changes. So it receives the product and
    keeps only its weights: (A_hat X) W + b.
    """

    def __init__(self, n_genes: int, hidden: int, dropout: float):
        super().__init__()
        # Initialised as GCNConv does it, since this layer is the weight half of one.
        self.gcn1 = InitLinear(n_genes, hidden, weight_initializer="glorot", bias_initializer="zeros")
        self.gcn2 = ConstantGCNConv(hidden, hidden)
        self.out = nn.Linear(hidden, hidden)
        self.dropout = dropout

    def forward(self, inputs: GraphInputs) -> Tensor:
        """Return H2, [N, H]."""
        h = leaky_relu_(self.gcn1(inputs.propagated_view2))
        h = leaky_relu_(self.gcn2(h, inputs.normalised, inputs.normalised))
        with inputs.share.turn(random_numbers(h, self.dropout, self.training)):
            (h,) = by_rows(self._head, inputs.block, (h,), (self.out.weight, self.out.bias))
        return h

    def _head(self, h: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor]:
        """Return dropout, Linear and LeakyReLU of some rows."""
        return (leaky_relu_(linear(dropout(h, self.dropout, self.training), weight, bias)),)


class ScRCL(nn.Module):
    """Two encoders of the same cells, and their refinement by cell-gene associations.

    Parameters
    ----------
    n_cells, n_genes
        N and G; the gene encoder has one weight vector per cell.
    architecture
        H, K' and the probability of dropout.
    """

    def __init__(self, n_cells: int, n_genes: int, architecture: Architecture):
        super().__init__()
        hidden, refined_width, self.dropout = architecture
        self.expression_encoder = nn.Linear(n_genes, hidden)
        self.graph_encoder = GraphEncoder(n_genes, hidden, self.dropout)
        self.projector = nn.Linear(hidden, n_genes)
        self.gene_encoder = ConstantGCNConv(n_cells, refined_width)

    def forward(self, inputs: GraphInputs) -> Embeddings:
        """Return the embeddings that the losses compare."""
        h1, h2 = self.encode(inputs)
        q = self.encode_genes(inputs)
        return self.contrasted(h1, h2, q, inputs.block, inputs.share)

    def encode(self, inputs: GraphInputs) -> tuple[Tensor, Tensor]:
        """Return the hidden units of both views, [N, H] each: H1 = ReLU(X1 W + b), and H2 of the graph encoder."""
        return self.expression_encoder(inputs.view1).relu_(), self.graph_encoder(inputs)

    def encode_genes(self, inputs: GraphInputs) -> Tensor:
        """Return Q = ReLU(GCN_B(X1^T)), [G, K']."""
        return self.gene_encoder(inputs.view1.T, inputs.gene_graph, inputs.gene_graph_transposed, inputs.share).relu()

    def contrasted(self, h1: Tensor, h2: Tensor, q: Tensor, block: int = 0, share: Share = ALL) -> Embeddings:
        """Return what the losses compare: the cell embeddings and the refined embeddings of both views.

        E1, E2 are H1, H2 with rows of unit length, and Z1, Z2 their refinement by the genes.

        Parameters
        ----------
        h1, h2
            [N, H], the hidden units of both views.
        q
            [G, K'], the encoded genes.
        block
            Cells at a time; 0 for all.
        share
            The cells that this process holds.
        """
        found: list[tuple[Tensor, ...]] = []
        associations = self.associations(q)
        for h in (h1, h2):
            with share.turn(random_numbers(h, self.dropout, self.training)):
                found.append(by_rows(self._contrasted_rows, block, (h,), associations))
        (e1, z1), (e2, z2) = found
        return Embeddings(e1, e2, z1, z2)

    def _contrasted_rows(self, h: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Return E and Z of some rows of one view."""
        return unit_rows(h), self.refine(h, weight, bias)

    def associations(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """Return W^T Q, [H, K'], and b Q, [K'], of the projector P(h) = h W^T + b and the encoded genes Q, [G, K']."""
        return self.projector.weight.T @ q, self.projector.bias @ q

    def refine(self, h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Return Z = rownorm(P(h) Q), [n, K'], for hidden units h, [n, H].

        P(h) Q = h (W^T Q) + b Q. The small factors are multiplied first, so the N x G matrix P(h) is never formed.

        Parameters
        ----------
        h
            Hidden units of some cells.
        weight, bias
            What `associations` returns.
        """
        return unit_rows(dropout(h, self.dropout, self.training) @ weight + bias)
