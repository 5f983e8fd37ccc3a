"""Odd and damaged input, made from a seed: AnnData of every shape, and files with bytes changed."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

CELLS = (0, 1, 2, 3, 4, 7, 15, 16, 17, 40, 60)
GENES = (0, 1, 2, 3, 5, 20, 50)

# Values: from a generator and a shape, a dense matrix of any type


def poisson(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return rng.poisson(rng.gamma(0.5, 2, shape))


def few_values(rng, shape):
    return (rng.random(shape) < 0.02).astype(np.int32)


def all_zero(rng, shape):
    return np.zeros(shape, dtype=np.float32)


def constant(rng, shape):
    return np.full(shape, 3.0)


def constant_genes(rng, shape):
    return np.where(np.arange(shape[1]) % 2, 4, poisson(rng, shape))


def duplicate_cells(rng, shape):
    return np.tile(poisson(rng, (1, shape[1])), (shape[0], 1))


def two_kinds(rng, shape):
    return poisson(rng, (2, shape[1]))[np.arange(shape[0]) % 2]


def tpm(rng, shape):
    values = poisson(rng, shape) + 0.01
    return values / values.sum(1, keepdims=True) * 1e6 if values.size else values.astype(float)


def log_normalised(rng, shape):
    return np.log1p(tpm(rng, shape) / 100)


def log_of_counts(rng, shape):
    return np.log1p(poisson(rng, shape))


def negative(rng, shape):
    return rng.normal(size=shape)


def with_one(value: float, dtype: type = np.float64):
    def make(rng, shape):
        values = poisson(rng, shape).astype(dtype)
        if values.size:
            values[tuple(rng.integers(shape))] = value
        return values

    return make


def overflowed(rng, shape):
    """Counts up to 300 in 8 bits, so that some come out negative."""
    return (poisson(rng, shape) * 60).astype(np.int8)


def truth(rng, shape):
    return rng.random(shape) < 0.3


def huge(rng, shape):
    return rng.random(shape) * 1e300


def large_counts(rng, shape):
    return poisson(rng, shape) * 10**9


def tiny(rng, shape):
    return rng.random(shape) * 1e-310


def half(rng, shape):
    return poisson(rng, shape).astype(np.float16)


def unsigned(rng, shape):
    return poisson(rng, shape).astype(np.uint64)


def complex_numbers(rng, shape):
    return poisson(rng, shape) + 1j


def objects(rng, shape):
    return poisson(rng, shape).astype(object)


def texts(rng, shape):
    return poisson(rng, shape).astype(str)


def one_cell_has_all(rng, shape):
    values = np.zeros(shape)
    values[:1] = 5
    return values


def one_gene_has_all(rng, shape):
    values = np.zeros(shape)
    values[:, :1] = 1 + rng.poisson(3, (shape[0], min(1, shape[1])))
    return values


def depth_of_extremes(rng, shape):
    return poisson(rng, shape) * 10.0 ** rng.integers(-6, 7, (shape[0], 1))


VALUES = (
    *(poisson, few_values, all_zero, constant, constant_genes, duplicate_cells, two_kinds, tpm, log_normalised),
    *(log_of_counts, negative, overflowed, truth, huge, large_counts, tiny, half, unsigned, complex_numbers, objects),
    *(texts, one_cell_has_all, one_gene_has_all, depth_of_extremes),
    *(with_one(np.nan), with_one(np.inf), with_one(-1), with_one(1e300), with_one(3e38), with_one(0.5), with_one(-0.0)),
    *(with_one(np.nan, np.float32), with_one(2**62, np.int64), with_one(25.5)),
)

# Containers: the same values in another form


def as_memmap(values: np.ndarray) -> np.ndarray:
    if not values.size or values.dtype == object:
        return values
    mapped = np.memmap(tempfile.NamedTemporaryFile(), dtype=values.dtype, mode="w+", shape=values.shape)
    mapped[:] = values
    return mapped


def non_contiguous(values: np.ndarray) -> np.ndarray:
    return np.repeat(np.repeat(values, 2, axis=0), 2, axis=1)[::2, ::2]


def with_explicit_zeros(values: np.ndarray) -> sparse.csr_matrix:
    matrix = sparse.csr_matrix(np.ones_like(values, dtype=values.dtype))
    matrix.data[:] = values.ravel()
    return matrix


def with_split_entries(values: np.ndarray) -> sparse.csr_matrix:
    """Every value stored as two halves, in falling order of genes."""
    n, g = values.shape
    columns = np.tile(np.repeat(np.arange(g)[::-1], 2), n)
    data = np.repeat(values[:, ::-1].ravel() / 2, 2)
    return sparse.csr_matrix((data, columns, np.arange(n + 1) * 2 * g), shape=values.shape)


CONTAINERS = (
    *(lambda x: x, sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array, sparse.csc_array, np.asfortranarray),
    *(as_memmap, non_contiguous, with_explicit_zeros, with_split_entries),
)

NAMES = {
    "plain": lambda n: [f"cell-{i}" for i in range(n)],
    "numbers": lambda n: [str(i) for i in range(n)],
    "unicode": lambda n: [f"ΔΩ細胞🧬\u200b{i}" for i in range(n)],
    "one empty": lambda n: ["", *(f"c{i}" for i in range(1, n))][:n],
    "all the same": lambda n: ["same"] * n,
    "one twice": lambda n: [*(f"c{i}" for i in range(n - 1)), "c0"][:n],
    "signs": lambda n: [f' {i},"\n\t;=/\\../%$' for i in range(n)],
    "one with NUL": lambda n: ["a\0b", *(f"c{i}" for i in range(1, n))][:n],
    "one half of a pair": lambda n: ["a\ud800", *(f"c{i}" for i in range(1, n))][:n],
    "long": lambda n: [f"{i}" + "x" * 3000 for i in range(n)],
    "words for nothing": lambda n: ["nan", "None", "NaN", "<NA>", "null", *(f"c{i}" for i in range(5, n))][:n],
}


def labels(rng: np.random.Generator, n: int) -> dict[str, Any]:
    kinds = rng.integers(0, 3, n)
    words = np.array(["a", "b", "c"])[kinds]
    return {
        "none": None,
        "text": words,
        "unused levels": pd.Categorical(words, ["z", "a", "b", "c", "unused"]),
        "whole numbers": kinds,
        "floats with gaps": np.where(kinds == 0, np.nan, kinds.astype(float)),
        "fractions": rng.random(n),
        "truth": kinds == 0,
        "missing": np.full(n, np.nan),
        "nothing": np.array([None] * n, dtype=object),
        "one for all": np.full(n, "same"),
        "one for each": np.array([f"type {i}" for i in range(n)], dtype=object),
        "mixed": np.array([[1, "one", None, 2.5, True][i % 5] for i in range(n)], dtype=object),
        "unicode": np.array([f"T细胞 $x_{{{k}}}$ 🧬" for k in kinds], dtype=object),
        "empty": np.where(kinds == 0, "", words),
        "dates": pd.to_datetime(kinds, unit="D"),
        "lists": pd.Series([[k] for k in kinds], dtype=object).to_numpy(),
        "numeric categories": pd.Categorical(kinds),
    }


def places(rng: np.random.Generator, n: int) -> dict[str, np.ndarray | None]:
    plain = rng.random((n, 2)) * 100
    one_missing, one_infinite = plain.copy(), plain.copy()
    one_missing[:1], one_infinite[:1] = np.nan, np.inf
    return {
        "plain": plain,
        "none": None,
        "one missing": one_missing,
        "one infinite": one_infinite,
        "all missing": np.full((n, 2), np.nan),
        "all the same": np.zeros((n, 2)),
        "on a line": np.column_stack([np.arange(n), np.arange(n)]).astype(float),
        "3D": rng.random((n, 3)),
        "1D": rng.random((n, 1)),
        "huge": plain * 1e300,
        "whole numbers": np.rint(plain).astype(int),
        "texts": plain.astype(str).astype(object),
        "pairs": np.repeat(plain[: (n + 1) // 2], 2, axis=0)[:n],
    }


@dataclass
class Odd:
    """An AnnData, and settings for a run on it."""

    adata: ad.AnnData
    settings: dict[str, Any] = field(default_factory=dict)
    what: str = ""


def odd_anndata(draw, task: str) -> Odd:
    """An odd AnnData; draw(options) chooses one of them."""

    def mostly(usual: tuple, others: Sequence, odds: int = 8) -> Any:
        """One of the usual, odds to one: a case in which everything is odd ends at the first of it."""
        return draw(usual) if draw(range(odds + 1)) else draw(others)

    rng = np.random.default_rng(draw(range(2**16)))
    n, g = mostly((40, 60), CELLS), mostly((20, 50), GENES)
    make, contain = mostly((poisson,), VALUES, 2), mostly((sparse.csr_matrix,), CONTAINERS, 2)
    values = make(rng, (n, g))
    try:
        x = contain(values)
    except (TypeError, ValueError):  # scipy has no such matrix
        x = values
    cell_names, gene_names = mostly(("plain",), list(NAMES)), mostly(("plain",), list(NAMES))
    obs = pd.DataFrame(index=pd.Index(NAMES[cell_names](n), dtype=object))
    label, section = draw(list(labels(rng, n))), mostly(("none",), ["text", "one for each", "floats with gaps"])
    column = mostly(("cell_type1", "layer_guess"), ["celltype", "scrcl", "scrcl_seed_1", "_index", "scrcl_confidence"])
    if label != "none":
        obs[column] = labels(rng, n)[label]
    if section != "none":
        obs["library_id"] = labels(rng, n)[section]
    adata = ad.AnnData(x, obs=obs, var=pd.DataFrame(index=pd.Index(NAMES[gene_names](g), dtype=object)))
    slot = mostly(("X",), ["counts", "raw", "none"], 4)
    if slot == "counts":
        adata.layers["counts"] = adata.X
        adata.X = negative(rng, (n, g))
    elif slot == "raw":
        adata.raw = adata.copy()
        adata.X = negative(rng, (n, g))
    elif slot == "none":
        adata.X = None
    place = mostly(("plain",), list(places(rng, n)), 2) if task == "ST" else "none"
    if place != "none":
        adata.obsm["spatial"] = places(rng, n)[place]
    if mostly((False,), [True]) and n:
        adata = adata[rng.permutation(n)]  # a view
    settings = {
        "epochs": draw([1, 2, 12]),
        "seeds": mostly(([1],), [[1, 2, 3]]),
        "hidden": draw([1, 4, 8]),
        "n_clusters": mostly(("3",), ["2", "20", "auto"], 4),
        "n_top_genes": draw([2, 10, 2000]),
        "n_pcs": draw([1, 5, 50]),
        "n_neighbors": draw([2, 5, 15, 100]),
        "gene_neighbors": draw([1, 5, 100]),
        "embedding": draw(["joint-or-pcs", "joint", "joint-refined", "encoder", "refined", "pcs"]),
        "cluster_method": mostly(("gmm",), ["kmeans", "leiden"], 3),
        "encoder_input": mostly(("scaled",), ["uncentred", "lognorm", "counts"], 3),
        "hops": draw([[0, 0], [2, 1]]),
        "consistency": draw(["published", "scale-free"]),
        "hvg_flavor": mostly(("seurat",), ["seurat_v3"]),
        "layer": mostly(("auto",), ["X", "counts", "raw", "no such layer"]),
        "label_key": mostly(("auto", "none"), [column]),
        "figures": False,
        "device": "cpu",
    }
    if task == "SC":
        settings |= {"graph_on": draw(["pcs", "genes"]), "metric": draw(["euclidean", "cosine"])}
    else:
        graph = mostly(("knn",), ["radius", "delaunay"], 2)
        settings |= {
            "graph": graph,
            "radius": draw([0.0, 1.0, 1e9]) if graph != "knn" else 0.0,
            "gene_weights": draw(["spatial", "none"]),
            "refine_neighbors": draw([0, 6, 1000]),
        }
    what = f"{n} x {g} {make.__qualname__}, {cell_names}/{gene_names}, {column}: {label}, {slot}, {place}, {section}"
    return Odd(adata, settings, what)


def damaged(content: bytes, rng: random.Random) -> bytes:
    """The bytes of a file with some of them changed, cut off, moved, or added."""
    data, n = bytearray(content), len(content)
    i, j = rng.randrange(n), rng.randrange(n)
    kind = rng.choice(("bit", "few", "many", "cut", "zero", "swap", "insert", "ones", "empty", "tail"))
    if kind == "bit":
        data[i] ^= 1 << rng.randrange(8)
    elif kind == "few":
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(n)] = rng.randrange(256)
    elif kind == "many":
        for _ in range(n // 100):
            data[rng.randrange(n)] = rng.randrange(256)
    elif kind == "cut":
        del data[i:]
    elif kind == "zero":
        size = rng.choice((1, 8, 64, 512, 4096))
        data[i : i + size] = bytes(len(data[i : i + size]))
    elif kind == "swap":
        size = rng.choice((4, 32, 256))
        data[i : i + size], data[j : j + size] = data[j : j + size], data[i : i + size]
    elif kind == "insert":
        data[i:i] = rng.randbytes(rng.choice((1, 8, 100)))
    elif kind == "ones":
        data[i : i + 8] = b"\xff" * 8
    elif kind == "empty":
        data.clear()
    else:
        data += rng.randbytes(1000)
    return bytes(data)


def write_damaged(source: Path, target: Path, rng: random.Random) -> None:
    target.write_bytes(damaged(source.read_bytes(), rng))
