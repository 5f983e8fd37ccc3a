"""Tissue made of real cells, to choose settings by.

    python -m benchmarks.tissue_like --cells A.h5ad B.h5ad --to FOLDER    # the whole suite, one h5ad per tissue
    python -m benchmarks.tissue_like --cells A.h5ad B.h5ad --sections 151673 151674 --to FOLDER
    python runST.py --dataset FOLDER/layers-1.h5ad

The counts are those of real, labelled cells. Where the cells lie, and hence the domains, are made up, or are those of
an annotated section; what a domain is made of is made up in any case. So a score on such tissue tells settings apart
and is no accuracy of anything, and none is reported.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from scipy import sparse
from scipy.spatial import cKDTree

from scrcl.commands.script import guarded
from scrcl.contents.labels import find_labels
from scrcl.contents.places import placed
from scrcl.keys import LABELS_OF_SPOTS, SPATIAL
from scrcl.messages import UserError
from scrcl.readers import source
from scrcl.readers.find import dataset_name

SPACING = 100.0  # um between neighbouring spots
FEWEST_CELLS = 15  # of a type: copies of fewer cells would be a cluster of their own
FEWEST_SHARE = 0.25  # of the area goes to all domains alike, so that none has just a few spots
CLUMP = 4.0  # spots: how far types clump within a domain
RING = 6  # neighbours that take up what leaks from a spot
DRAWS = 20  # of the domains' compositions, of which the set whose two closest lie farthest apart is taken
KNOWN, TYPES = "ground_truth", "cell_types"  # obs, obsm


@dataclass(frozen=True)
class Tissue:
    """What one tissue is like.

    Attributes
    ----------
    layout
        A key of `LAYOUTS`.
    n_domains, n_spots
        How many.
    strength
        Above 0, below 1: how far the types' shares in a domain lie from those that all domains have in common. It is
        the variance of a share between domains over that of single cells, as F_ST in genetics.
    clumps
        How much types clump within a domain, without regard to domains: standard deviation of their log shares.
    grid
        Where spots lie.
    cells
        Mean number of cells in a spot; at 1 every spot is one cell, beyond it the number varies.
    panel
        How many genes are measured, the most variable of the cells; 0 for all.
    depth
        Mean counts of a spot, where the cells have more; 0 for all counts.
    leak
        Share of a spot's counts that are found in its neighbours.
    seed
        The same seed and cells give the same tissue.
    """

    layout: str = "layers"
    n_domains: int = 5
    n_spots: int = 1500
    strength: float = 0.2
    clumps: float = 0.7
    grid: Literal["hexagonal", "square", "irregular"] = "hexagonal"
    cells: float = 1.0
    panel: int = 0
    depth: float = 0.0
    leak: float = 0.0
    seed: int = 0


def suite() -> dict[str, Tissue]:
    """Return the tissues that settings are chosen on, by name."""
    # Each layout meets small and large tissue, few and many cells in a spot, panels and all genes.
    rows = [
        # layout, domains, spots, strength, clumps, grid, cells, panel, depth, leak
        ("layers", 7, 3500, 0.20, 0.6, "hexagonal", 4, 0, 3000, 0.10),
        ("bent layers", 4, 1000, 0.25, 0.6, "irregular", 1, 150, 300, 0.0),
        ("rings", 5, 260, 0.20, 0.4, "square", 15, 0, 12000, 0.05),
        ("gradient", 4, 1200, 0.35, 0.4, "irregular", 1, 1000, 300, 0.0),
        ("islands", 3, 250, 0.10, 0.4, "square", 10, 0, 6000, 0.10),
        ("layers", 5, 1000, 0.35, 0.6, "irregular", 1, 1000, 500, 0.05),
        ("bent layers", 7, 4500, 0.20, 0.6, "hexagonal", 5, 500, 1000, 0.15),
        ("rings", 4, 1500, 0.30, 0.8, "irregular", 1, 1000, 250, 0.0),
        ("gradient", 3, 300, 0.20, 0.4, "square", 12, 0, 8000, 0.10),
        ("islands", 6, 3000, 0.25, 0.6, "hexagonal", 3, 0, 2500, 0.15),
        ("layers", 3, 400, 0.20, 0.8, "square", 8, 0, 5000, 0.20),
        ("bent layers", 8, 10000, 0.25, 0.8, "irregular", 1, 1000, 300, 0.05),
        ("rings", 6, 2500, 0.20, 0.6, "hexagonal", 2, 0, 1500, 0.10),
        ("gradient", 6, 3500, 0.25, 0.6, "hexagonal", 5, 800, 2000, 0.10),
        ("islands", 5, 1500, 0.40, 0.8, "irregular", 1, 400, 350, 0.0),
        ("layers", 6, 6000, 0.30, 0.8, "square", 1, 800, 350, 0.10),
        ("bent layers", 5, 2000, 0.10, 0.6, "square", 6, 600, 4000, 0.05),
        ("rings", 3, 800, 0.35, 0.6, "irregular", 1, 0, 800, 0.20),
        ("gradient", 5, 2000, 0.30, 0.6, "hexagonal", 3, 0, 3000, 0.15),
        ("islands", 8, 5000, 0.35, 0.6, "square", 1, 1000, 600, 0.05),
    ]
    return {f"{row[0].replace(' ', '-')}-{i // 5 + 1}": Tissue(*row, seed=i) for i, row in enumerate(rows)}


def like(i: int) -> Tissue:
    """Return what the i-th tissue with the domains of an annotated section is like: Visium, of three kinds in turn."""
    kinds = itertools.product(((4, 3000), (3, 1500), (6, 5000)), (0.05, 0.1, 0.2))
    (n_cells, depth), strength = list(kinds)[i % 9]
    return Tissue("a section", strength=strength, clumps=0.6, cells=n_cells, depth=depth, leak=0.1, seed=100 + i)


def make(cells: ad.AnnData, how: Tissue, section: ad.AnnData | None = None) -> ad.AnnData:
    """Lay real cells out as tissue.

    Parameters
    ----------
    cells
        Counts of labelled cells.
    how
        What the tissue is like.
    section
        Annotated spots, whose places and domains are taken; the layout, grid and numbers of `how` then do not count.

    Returns
    -------
    Spots x genes: counts in X (CSR), obs['ground_truth'], obsm['spatial'] (um), the number of cells of each type in
    obsm['cell_types'], and what it was made by in uns['tissue_like'].

    Raises
    ------
    UserError
        When the cells have no labels or no counts.
    """
    counts, known = counts_and_types(cells)
    # One generator per step, so that tissues which differ in one field share all that the field has no part in.
    where, what, clumped, which, measured = np.random.default_rng(how.seed).spawn(5)
    if section is None:
        at = places(how.grid, how.n_spots, where)
        weights = LAYOUTS[how.layout](at, areas(how.n_domains, where), where)
        domains = np.array([f"D{i + 1}" for i in range(how.n_domains)])
    else:
        at, weights, domains = laid_out(section)
    shares = weights @ compositions(known.nunique(), len(domains), how.strength, what)
    shares *= np.exp(how.clumps * field(at, shares.shape[1], CLUMP, clumped))
    members = drawn(shares / shares.sum(axis=1, keepdims=True), known.cat.codes.to_numpy(), how.cells, which)
    genes = variable(cells, how.panel)
    spots = members @ counts[:, genes]
    spots.sort_indices()  # the order in which counts are drawn from
    spots = leaked(thinned(spots, how.depth, measured), how.leak, at, measured)
    names = [f"spot-{i:05d}" for i in range(len(at))]
    obs = pd.DataFrame({KNOWN: pd.Categorical(domains[weights.argmax(axis=1)])}, index=names)
    of_types = pd.DataFrame(members @ pd.get_dummies(known).to_numpy(dtype=np.float32), names, known.cat.categories)
    var = pd.DataFrame(index=cells.var_names[genes])
    made = ad.AnnData(spots.astype(np.float32), obs=obs, var=var, obsm={SPATIAL: SPACING * at, TYPES: of_types})
    made.uns["tissue_like"] = asdict(how)
    return made


def laid_out(section: ad.AnnData) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return places [S, 2] in distances of neighbours, domains [S, K] as 0 and 1, and their names [K]."""
    spots = placed(section)
    known = find_labels(spots.obs, usual=LABELS_OF_SPOTS)
    if known is None:
        raise UserError("A section whose domains are taken needs labels in obs; this one has none.")
    there = known.notna().to_numpy()
    domains, at = pd.Categorical(known[there]), spots.obsm[SPATIAL][there].astype(np.float64)
    spacing = np.median(cKDTree(at).query(at, 2)[0][:, 1])
    return at / spacing, np.eye(len(domains.categories))[domains.codes], domains.categories.to_numpy()


def counts_and_types(cells: ad.AnnData) -> tuple[sparse.csr_matrix, pd.Series]:
    """Return counts [N, G] of the cells and their types, missing for types of few cells."""
    known, counts = find_labels(cells.obs), sparse.csr_matrix(cells.X)
    if known is None or (counts.data % 1).any() or (counts.data < 0).any():
        raise UserError("Tissue is made of labelled cells with counts; these have no labels in obs, or no counts in X.")
    frequent = known.map(known.value_counts()) >= FEWEST_CELLS
    return counts.astype(np.int32), known.where(frequent).astype("category")


def places(grid: str, n_spots: int, rng: np.random.Generator) -> np.ndarray:
    """Return the positions [S, 2] of spots on a square of tissue, in distances of neighbours."""
    height = np.sqrt(3) / 2 if grid == "hexagonal" else 1.0
    row, column = np.divmod(np.arange(n_spots), int(np.ceil(np.sqrt(n_spots * height))))
    at = np.column_stack([column + (row % 2 / 2 if grid == "hexagonal" else 0.0), row * height])
    return at + rng.normal(0, 0.3, at.shape) if grid == "irregular" else at


def areas(n_domains: int, rng: np.random.Generator) -> np.ndarray:
    """Return unequal shares [K] of the tissue, the largest first."""
    shares = FEWEST_SHARE / n_domains + (1 - FEWEST_SHARE) * rng.dirichlet(np.full(n_domains, 1.5))
    return np.sort(shares)[::-1]


def field(at: np.ndarray, n_fields: int, reach: float, rng: np.random.Generator) -> np.ndarray:
    """Return smooth random fields [S, n] of mean 0 and variance 1 whose values agree within the reach.

    A sum of many random waves is nearly a Gaussian process, and has no matrix of all pairs of spots.
    """
    waves = rng.normal(0, 1 / reach, (n_fields, 2, 64))
    phases = rng.uniform(0, 2 * np.pi, (n_fields, 1, 64))
    return np.column_stack([np.cos(at @ w + p).sum(axis=1) for w, p in zip(waves, phases)]) / np.sqrt(32)


# Layouts: positions [S, 2] and areas [K] to the part that each domain has in a spot, [S, K]; rows sum to 1


def along(at: np.ndarray, rng: np.random.Generator, bend: float) -> np.ndarray:
    """Return how far spots lie along a random direction, from 0 to about 1."""
    angle = rng.uniform(0, 2 * np.pi)
    x, y = ((at / at.max(axis=0) - 0.5) @ [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]).T
    return y + bend * np.sin(np.pi * (x + rng.uniform())) + ragged(at, rng)


def ragged(at: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return small shifts [S] that make borders uneven."""
    return 0.03 * field(at, 1, at.max() / 12, rng)[:, 0]


def quantiles(values: np.ndarray) -> np.ndarray:
    """Return ranks as shares, above 0 and below 1: domains cut along these have the areas asked for."""
    return (values.argsort().argsort() + 0.5) / len(values)


def bands(depth: np.ndarray, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return domains that follow each other by depth."""
    return np.eye(len(shares))[np.searchsorted(np.cumsum(rng.permutation(shares))[:-1], quantiles(depth))]


def layers(at: np.ndarray, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return straight layers."""
    return bands(along(at, rng, bend=0), shares, rng)


def bent_layers(at: np.ndarray, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return layers that bend, as in cortex."""
    return bands(along(at, rng, bend=0.25), shares, rng)


def rings(at: np.ndarray, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return rings around a place near the middle, as in a follicle or an organ cut across."""
    middle = rng.uniform(0.35, 0.65, 2)
    return bands(np.linalg.norm(at / at.max(axis=0) - middle, axis=1) + ragged(at, rng), shares, rng)


def islands(at: np.ndarray, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a background, the largest domain, with up to three islands of every other one."""
    domain, unit = np.zeros(len(at), dtype=int), at / at.max(axis=0)
    for i, share in enumerate(shares[1:], start=1):
        centres = rng.uniform(0.1, 0.9, (rng.integers(1, 4), 2))
        far = np.linalg.norm(unit[:, None] - centres, axis=2).min(axis=1) + ragged(at, rng)
        far[domain > 0] = np.inf  # taken by an earlier domain
        domain[far.argsort()[: round(share * len(at))]] = i
    return np.eye(len(shares))[domain]


def gradient(at: np.ndarray, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return domains that pass into each other along an axis; a spot is most of the domain whose centre is nearest."""
    ends = np.cumsum(rng.permutation(shares))
    centres = ends - np.diff(ends, prepend=0) / 2
    depth = quantiles(along(at, rng, bend=0))
    return np.column_stack([np.interp(depth, centres, one) for one in np.eye(len(shares))])


LAYOUTS: dict[str, Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]] = {
    "layers": layers,
    "bent layers": bent_layers,
    "rings": rings,
    "islands": islands,
    "gradient": gradient,
}


# Cells, and what is measured of them


def compositions(n_types: int, n_domains: int, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Return the shares [K, T] of the types in every domain, which scatter around a background that they share."""
    background = rng.dirichlet(np.full(n_types, 2.0))
    draws = [rng.dirichlet((1 / strength - 1) * background, n_domains) for _ in range(DRAWS)]
    return max(draws, key=lambda drawn: np.abs(drawn[:, None] - drawn)[np.triu_indices(n_domains, 1)].sum(axis=1).min())


def drawn(shares: np.ndarray, types: np.ndarray, mean: float, rng: np.random.Generator) -> sparse.csr_matrix:
    """Return how often a cell is in a spot [S, N], from shares [S, T] of the types and the type [N] of a cell or -1.

    The cells of a type are taken equally often.
    """
    spot = np.repeat(np.arange(len(shares)), 1 + rng.poisson(mean - 1, len(shares)))
    kind = (rng.random((len(spot), 1)) > np.cumsum(shares, axis=1)[spot, :-1]).sum(axis=1)
    cell = np.empty(len(spot), dtype=int)
    for i in range(shares.shape[1]):
        pool, wanted = rng.permutation(np.flatnonzero(types == i)), np.flatnonzero(kind == i)
        cell[wanted] = pool[rng.permutation(len(wanted)) % len(pool)]
    ones = np.ones(len(spot), dtype=np.int32)
    return sparse.csr_matrix((ones, (spot, cell)), shape=(len(shares), len(types)))


def variable(cells: ad.AnnData, panel: int) -> np.ndarray:
    """Return which genes are measured, in their order: the most variable ones of the cells, or all for a panel of 0."""
    if panel == 0 or panel >= cells.n_vars:
        return np.arange(cells.n_vars)
    values = ad.AnnData(sparse.csr_matrix(cells.X, dtype=np.float32))
    seen = np.flatnonzero(values.X.getnnz(axis=0) >= 10)  # a gene of one or two cells is variable by accident
    values = values[:, seen].copy()
    sc.pp.normalize_total(values, target_sum=1e4)
    sc.pp.log1p(values)
    sc.pp.highly_variable_genes(values, n_top_genes=panel)
    return seen[values.var["highly_variable"]][:panel]


def thinned(counts: sparse.csr_matrix, depth: float, rng: np.random.Generator) -> sparse.csr_matrix:
    """Keep every count with the probability that leaves so many per spot in the mean."""
    mean, kept = counts.sum() / counts.shape[0], counts.copy()  # a sum may reorder what it sums
    if 0 < depth < mean:
        kept.data = rng.binomial(kept.data, depth / mean)
        kept.eliminate_zeros()
    return kept


def leaked(counts: sparse.csr_matrix, share: float, at: np.ndarray, rng: np.random.Generator) -> sparse.csr_matrix:
    """Move a share of every spot's counts to its nearest neighbours, each count to one at random."""
    moved = counts.copy()
    left = rng.binomial(moved.data, share)
    moved.data = moved.data - left
    result, spots = moved.copy(), np.arange(len(at))
    near = cKDTree(at).query(at, RING + 1)[1][:, 1:]
    for i in range(RING):
        moved.data = rng.binomial(left, 1 / (RING - i))
        left = left - moved.data
        to = sparse.csr_matrix((np.ones(len(at), dtype=np.int32), (near[:, i], spots)), shape=(len(at), len(at)))
        result = result + to @ moved
    result.eliminate_zeros()
    return result


def write_tissues(datasets: list[str], sections: list[str], folder: Path) -> None:
    """Write the tissues of the suite, or those with the domains of sections, each of the cells of one data set."""
    sets = [(dataset_name(dataset), source(dataset, "SC").read()) for dataset in datasets]
    folder.mkdir(parents=True, exist_ok=True)
    made = [(dataset_name(one), like(i), source(one, "ST").read(), i) for i, one in enumerate(sections)] or [
        (name, how, None, i + i // len(LAYOUTS))  # so that each layout meets each of five sets
        for i, (name, how) in enumerate(suite().items())
    ]
    for name, how, section, i in made:
        made_of, cells = sets[i % len(sets)]
        spots = make(cells, how, section)
        spots.uns["tissue_like"]["made_of"] = made_of
        spots.write_h5ad(folder / f"{name}.h5ad", compression="gzip")
        n_domains = spots.obs[KNOWN].nunique()
        print(f"{name}: {spots.n_obs} spots, {spots.n_vars} genes, {n_domains} domains, of {made_of}")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tissue_like",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--cells", nargs="+", required=True, help="labelled data sets, which the tissues take in turn")
    parser.add_argument(
        "--sections",
        nargs="+",
        default=[],
        metavar="DATASET",
        help="annotated tissue, whose places and domains are taken in place of made-up ones",
    )
    parser.add_argument("--to", type=Path, required=True, help="folder of the tissues")
    args = parser.parse_args()
    write_tissues(args.cells, args.sections, args.to)


if __name__ == "__main__":
    sys.exit(guarded(main))
