"""Build cell and gene graphs as sparse matrices; nothing here is dense in N x N."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from scipy import sparse
from scipy.spatial import Delaunay, QhullError
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from scrcl.contents.places import section_members
from scrcl.messages import UserError, log
from scrcl.prepare.features import Features
from scrcl.runtime import compiled_once, has_faiss, limited_threads, products_in

# Exact search costs N^2. On two cores and 50 PCs it takes 2 s at 30,000 cells and 7 s at 60,000; approximate search
# takes 3 s at 60,000, after 17 s of compiling. So search is exact up to about where the two cost the same.
EXACT_UP_TO = 60_000
# On a card exact search goes through 10^12 pairs in seconds, whereas approximate search would stay on the CPU.
EXACT_ON_CARD_UP_TO = 1_000_000
LISTS = 64  # in which faiss looks for the neighbours of a point
POINTS_PER_LIST = 50  # from which faiss learns its lists
QUERIES = 50_000  # points at a time, whose neighbours faiss looks for
PAIRS_AT_ONCE = 2**26  # distances that the card holds at a time, a quarter of a GiB and as much to work with
SPARE = 16  # points beyond those that are needed, whose distance is computed in float64 too


def nearest_neighbors(points: np.ndarray, k: int, metric: str, seed: int, device: str = "cpu") -> sparse.csr_matrix:
    """Return the directed k-nearest-neighbour graph: row i marks i's neighbours, without i itself.

    The search is exact (scikit-learn) up to 60,000 points and approximate beyond (faiss if it is installed, else
    pynndescent). On a card it is exact up to a million points.

    Parameters
    ----------
    points
        [n, d], or distances [n, n] for the metric 'precomputed'.
    k
        How many neighbours each point has.
    metric
        'euclidean', 'cosine' or 'precomputed'.
    seed
        For the approximate search.
    device
        Where distances are computed: 'cpu', or a CUDA card.

    Returns
    -------
    [n, n] float32, 0/1.

    Raises
    ------
    UserError
        When there are fewer than k + 1 points.
    """
    n = len(points)
    if k >= n:
        raise UserError(f"There are {n} cells, too few for {k} neighbours each; lower --n-neighbors to at most {n}.")
    if device != "cpu" and metric != "precomputed" and n <= EXACT_ON_CARD_UP_TO:
        neighbours = _exact(points, k, metric, device)
    elif n <= EXACT_UP_TO:
        index = NearestNeighbors(n_neighbors=k, metric=metric, algorithm="brute").fit(points)
        neighbours = index.kneighbors(return_distance=False)  # called without points, it leaves out each point itself
    else:
        neighbours = _approximate(points, k, metric, seed)
    rows = np.repeat(np.arange(n), neighbours.shape[1])
    keep = (neighbours.ravel() != rows) & (neighbours.ravel() >= 0)
    shape = (n, n)
    return sparse.csr_matrix(
        (np.ones(keep.sum(), dtype=np.float32), (rows[keep], neighbours.ravel()[keep])), shape=shape
    )


def _exact(points: np.ndarray, k: int, metric: str, device: str) -> np.ndarray:
    """Return the indices of each point's k + 1 nearest points, [n, k + 1], itself among them unless others coincide.

    Distances of some rows to all points are held at a time. Cosine distance is Euclidean distance of unit rows. A few
    more points than needed are found in float32, in half of the time, and compared in float64, since distances are
    differences of large numbers.
    """
    import torch

    values = normalize(points) if metric == "cosine" else points - points.mean(axis=0)
    x = torch.as_tensor(values, dtype=torch.float64, device=device)
    rough, squared = x.float(), (x**2).sum(1).float()
    n_tried = min(len(x), k + 1 + SPARE)
    n_rows = max(1, PAIRS_AT_ONCE // max(len(x), n_tried * x.shape[1]))
    found = []
    with products_in("ieee"):
        for rows in torch.arange(len(x), device=device).split(n_rows):
            # |x - y|^2 without |x|^2, which is the same along a row
            tried = (squared - 2 * rough[rows] @ rough.T).topk(n_tried, largest=False).indices
            exact = ((x[rows][:, None] - x[tried]) ** 2).sum(2)
            found.append(tried.gather(1, exact.topk(k + 1, largest=False).indices))
    return torch.cat(found).cpu().numpy()


def _approximate(points: np.ndarray, k: int, metric: str, seed: int) -> np.ndarray:
    """Return the indices of approximately nearest neighbours, [n, k + 1], with -1 where none is found.

    A point is usually among its own neighbours.
    """
    if has_faiss():
        log.info("%d cells: approximate nearest neighbours (faiss).", len(points))
        return _by_lists(normalize(points) if metric == "cosine" else points, k)
    log.info("%d cells: approximate nearest neighbours (pynndescent).", len(points))
    # It compiles on import, so only where it is used, and warns when it finds fewer neighbours for some points.
    with compiled_once("pynndescent") as pynndescent, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Failed to correctly find n_neighbors")
        return pynndescent.NNDescent(points, metric=metric, n_neighbors=k + 1, random_state=seed).neighbor_graph[0]


def _by_lists(points: np.ndarray, k: int) -> np.ndarray:
    """Return the indices of each point's k + 1 nearest points, [n, k + 1], as faiss finds them.

    The points are cut into 4 sqrt(n) lists by k-means; a point is compared with those of the nearest lists. One index
    answers for blocks of points, one after the other.
    """
    import faiss
    import torch

    faiss.omp_set_num_threads(torch.get_num_threads())
    points = np.ascontiguousarray(points, dtype=np.float32)
    lists = int(4 * np.sqrt(len(points)))
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(points.shape[1]), points.shape[1], lists)
    index.nprobe = LISTS
    index.train(points[:: max(1, len(points) // (POINTS_PER_LIST * lists))])
    index.add(points)
    return np.concatenate([index.search(points[i : i + QUERIES], k + 1)[1] for i in range(0, len(points), QUERIES)])


def cell_graph(points: np.ndarray, n_neighbors: int, metric: str, seed: int, device: str = "cpu") -> sparse.csr_matrix:
    """Return the cell graph, A of the paper.

    Parameters
    ----------
    points
        [N, d], genes or PCs.
    n_neighbors
        How many neighbours each cell has, the cell itself included, as in scanpy and in the paper.
    metric, seed, device
        As for `nearest_neighbors`.

    Returns
    -------
    [N, N], 0/1, symmetric (an edge where either cell names the other), zero diagonal.
    """
    directed = nearest_neighbors(points, n_neighbors - 1, metric, seed, device)
    return directed.maximum(directed.T).tocsr()


def spatial_graph(
    points: np.ndarray, how: str, n_neighbors: int, radius: float, sections: np.ndarray | None = None
) -> sparse.csr_matrix:
    """Return the graph of the spots, A of the paper, from positions alone.

    Parameters
    ----------
    points
        [N, 2 or 3], positions.
    how
        'knn' joins two spots when either is among the n_neighbors nearest of the other, not counting itself. 'radius'
        joins spots no further apart than radius. 'delaunay' joins spots that the Delaunay triangulation joins and,
        where radius is above 0, that are no further apart than it.
    n_neighbors, radius
        As `how` uses them; radius is in the unit of the positions.
    sections
        [N], the section of each spot; no edge joins two sections. None for a single section.

    Returns
    -------
    [N, N], 0/1, symmetric, zero diagonal. A spot may end up without neighbours.

    Raises
    ------
    UserError
        When `how` is 'radius' and there is no radius, and when spots cannot be triangulated.
    """
    if how == "radius" and radius <= 0:
        nearest = NearestNeighbors(n_neighbors=1).fit(points).kneighbors()[0] if len(points) > 1 else 0
        raise UserError(
            "--graph radius needs --radius, in the unit of the coordinates; half of the spots have their nearest "
            f"neighbour within {np.median(nearest):.4g}."
        )
    build = {
        "knn": lambda part: _nearest_in_space(part, n_neighbors),
        "radius": lambda part: NearestNeighbors(radius=radius).fit(part).radius_neighbors_graph(mode="connectivity"),
        "delaunay": lambda part: _delaunay(part, radius),
    }[how]
    directed = per_section(points, sections, build)
    graph = directed.maximum(directed.T).tocsr()
    alone = int((graph.getnnz(axis=1) == 0).sum())
    log.info(
        "Spatial graph: %.1f neighbours per spot%s.",
        graph.nnz / len(points),
        f", {alone} spots have none" * (alone > 0),
    )
    return graph


def nearest_spots(points: np.ndarray, k: int, sections: np.ndarray | None = None) -> sparse.csr_matrix:
    """Return the directed graph of nearest spots: row i marks the k spots nearest to i in i's section, or all if fewer.

    Parameters
    ----------
    points
        [N, 2 or 3], positions.
    k
        How many nearest spots.
    sections
        [N], the section of each spot; None for a single section.

    Returns
    -------
    [N, N] float32, 0/1, zero diagonal.
    """
    return per_section(points, sections, lambda part: _nearest_in_space(part, k))


def per_section(
    points: np.ndarray, sections: np.ndarray | None, build: Callable[[np.ndarray], sparse.spmatrix]
) -> sparse.csr_matrix:
    """Build a graph of the points in every section, and put all of them into one [N, N] matrix."""
    n = len(points)
    rows, columns = [], []
    for member in section_members(sections, n):
        part = build(points[member]).tocoo() if len(member) > 1 else sparse.coo_matrix((1, 1))
        rows.append(member[part.row])
        columns.append(member[part.col])
    ends = np.concatenate(rows), np.concatenate(columns)
    return sparse.csr_matrix((np.ones(len(ends[0]), dtype=np.float32), ends), shape=(n, n))


def _nearest_in_space(points: np.ndarray, k: int) -> sparse.csr_matrix:
    """Return the directed graph of the k nearest points, or of all others if there are fewer."""
    index = NearestNeighbors(n_neighbors=min(k, len(points) - 1), algorithm="kd_tree").fit(points)
    return index.kneighbors_graph(mode="connectivity")


def _delaunay(points: np.ndarray, radius: float) -> sparse.coo_matrix:
    """Return the graph of the Delaunay triangulation, without edges longer than radius where radius is above 0."""
    try:
        indptr, neighbours = Delaunay(points).vertex_neighbor_vertices
    except (QhullError, ValueError) as error:
        raise UserError(
            "The spots of a section cannot be triangulated (fewer than 4, or all on a line); use --graph knn."
        ) from error
    rows = np.repeat(np.arange(len(points)), np.diff(indptr))
    if radius > 0:
        near = np.linalg.norm(points[rows] - points[neighbours], axis=1) <= radius
        rows, neighbours = rows[near], neighbours[near]
    return sparse.coo_matrix((np.ones(len(rows), dtype=np.float32), (rows, neighbours)), shape=(len(points),) * 2)


@limited_threads(1)  # between equally near genes, the number of threads would decide
def gene_graph(values: np.ndarray | Features, n_neighbors: int, device: str = "cpu") -> sparse.csr_matrix:
    """Return the gene graph, B of the paper: each gene points at its nearest genes, itself included.

    Parameters
    ----------
    values
        [N, G] as the encoders see them. Distances are Euclidean, between columns.
    n_neighbors
        How many genes each gene points at, itself included.
    device
        As for `nearest_neighbors`, for dense values.

    Returns
    -------
    [G, G], 0/1, directed.
    """
    k = min(n_neighbors, values.shape[1]) - 1
    self_loops = sparse.identity(values.shape[1], dtype=np.float32, format="csr")
    if k == 0:
        return self_loops
    if isinstance(values, Features):
        # |x - y|^2 = |x|^2 + |y|^2 - 2 x.y, so the products of genes give all distances.
        lengths = values.gram.diagonal()
        squared = lengths[:, None] + lengths - 2 * values.gram
        nearest = nearest_neighbors(np.sqrt(squared.clip(min=0)), k, "precomputed", seed=0)
    else:
        nearest = nearest_neighbors(values.T, k, "euclidean", 0, device)
    return (nearest + self_loops).tocsr()


def with_self_loops(graph: sparse.spmatrix) -> sparse.csr_matrix:
    """Return A + I."""
    return (graph + sparse.identity(graph.shape[0], dtype=np.float32)).tocsr()


def normalised(graph: sparse.spmatrix) -> sparse.csr_matrix:
    """Return D^-1/2 M^T D^-1/2 with D the column sums of M: GCN normalisation by in-degree.

    M contains its own self-loops. Row n of the result weighs the messages that n receives, from every g whose row in M
    points at n. For a symmetric M = A + I this is A_hat of the paper.

    Parameters
    ----------
    graph
        M, [N, N].
    """
    scale = sparse.diags(1 / np.sqrt(np.asarray(graph.sum(axis=0)).ravel()))
    return (scale @ graph.T @ scale).tocsr()


def neighbour_mean(values: np.ndarray, graph: sparse.spmatrix) -> np.ndarray:
    """Return the mean of values [N, d] over each point's neighbours and itself, in the type of values."""
    neighbourhood = with_self_loops(graph)
    degree = np.asarray(neighbourhood.sum(axis=1))
    return ((neighbourhood @ values) / degree).astype(values.dtype)


def smooth(values: np.ndarray, a_hat: sparse.spmatrix, hops: int) -> np.ndarray:
    """Return A_hat^hops X, [N, G]."""
    for _ in range(hops):
        values = a_hat @ values
    return values
