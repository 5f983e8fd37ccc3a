"""Values left on disk, found and read in blocks: their kind as a whole, and damage in them."""

from __future__ import annotations

from typing import get_args

import anndata as ad
import h5py
import numpy as np
import pytest
from conftest import simulate
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from scrcl.contents import blocks
from scrcl.contents.kinds import Evidence, ValueKind
from scrcl.contents.values import find_expression
from scrcl.messages import UserError
from scrcl.readers.h5ad import open_in_place

COUNTS = simulate(60, 300).X.toarray()


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "CELLS", 17)


@pytest.mark.parametrize("make", [np.asarray, sparse.csr_matrix, lambda x: sparse.csr_matrix(np.log1p(x))])
def test_one_look_tells_what_all_values_tell(make, tmp_path):
    values = COUNTS.copy()
    values[20] = values[:, 7] = 0
    adata = ad.AnnData(make(values))
    adata.write_h5ad(tmp_path / "in.h5ad")
    found, expected = blocks.find_values(open_in_place(tmp_path / "in.h5ad"), "auto"), find_expression(adata)
    assert len(found.blocks.bounds) == 4
    assert (found.kind, found.slot) == (expected.kind, expected.slot)
    counts = expected.cells.X
    assert np.array_equal(found.seen.filled, counts.getnnz(axis=1) > 0) and not found.seen.filled[20]
    assert np.array_equal(found.seen.n_cells, counts.getnnz(axis=0)) and not found.seen.n_cells[7]
    assert np.array_equal(found.seen.totals, np.asarray(counts.sum(axis=1)).ravel())


@pytest.mark.parametrize(
    ("part", "place", "value", "says"),
    [
        ("indices", 200, 10**6, "indices must be < 300"),
        ("indices", 200, -3, "indices must be >= 0"),
        ("indptr", 0, 1, "should start with 0"),
        ("indptr", 20, 10**6, "non-decreasing"),
        ("indptr", 17, -5, "non-decreasing"),
        ("indptr", -1, 10**8, "[lL]ast value of index pointer"),
    ],
)
def test_damaged_sparse_matrices(part, place, value, says, tmp_path):
    ad.AnnData(sparse.csr_matrix(COUNTS)).write_h5ad(tmp_path / "in.h5ad")
    with h5py.File(tmp_path / "in.h5ad", "r+") as file:
        values = file["X"][part][()]
        values[place] = value
        file["X"][part][:] = values
    with pytest.raises(UserError, match=f"The sparse matrix in X is damaged .*{says}"):
        blocks.find_values(open_in_place(tmp_path / "in.h5ad"), "auto")


@pytest.mark.parametrize(
    ("part", "values", "says"), [("indptr", [0, 1], "index pointer size"), ("indices", [0], "the same size")]
)
def test_parts_of_the_wrong_length(part, values, says, tmp_path):
    ad.AnnData(sparse.csr_matrix(COUNTS)).write_h5ad(tmp_path / "in.h5ad")
    with h5py.File(tmp_path / "in.h5ad", "r+") as file:
        del file["X"][part]
        file["X"][part] = np.array(values, dtype=np.int32)
    with pytest.raises(UserError, match=f"The sparse matrix in X is damaged .*{says}"):
        blocks.find_values(open_in_place(tmp_path / "in.h5ad"), "auto")


def test_damaged_values_are_met_while_reading(tmp_path):
    path = tmp_path / "in.h5ad"
    ad.AnnData(sparse.csr_matrix(COUNTS)).write_h5ad(path, compression="gzip")
    with h5py.File(path) as file:
        chunk = file["X/data"].id.get_chunk_info(0)
    with path.open("r+b") as raw:
        raw.seek(chunk.byte_offset)
        raw.write(b"\xff" * chunk.size)
    with pytest.raises(UserError, match="The values in X cannot be read"):
        blocks.find_values(open_in_place(path), "auto")


PARTS = {
    "counts": lambda rng: rng.poisson(1, (3, 4)),
    "large counts": lambda rng: rng.poisson(40, (3, 4)),
    "fractions": lambda rng: rng.uniform(0, 20, (3, 4)),
    "large fractions": lambda rng: rng.uniform(0, 1000, (3, 4)),
    "logarithms": lambda rng: np.log1p(rng.poisson(2, (3, 4))),
    "negative": lambda rng: rng.normal(size=(3, 4)),
    "not finite": lambda rng: rng.choice([1, np.nan, np.inf], (3, 4)),
    "empty": lambda rng: np.zeros((3, 4)),
}


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(sorted(PARTS)), min_size=1, max_size=4), st.integers(0, 10**6))
def test_the_kind_of_all_blocks_is_that_of_the_whole(names, seed):
    rng = np.random.default_rng(seed)
    parts = [sparse.csr_matrix(PARTS[name](rng), dtype=np.float32) for name in names]
    whole = sparse.vstack(parts, format="csr")
    evidence = Evidence(whole.shape[0])
    for i, part in enumerate(parts):
        evidence.add(part, 3 * i)
    together = Evidence(whole.shape[0])
    together.add(whole)
    assert evidence.kind() == together.kind() and evidence.kind().name in get_args(ValueKind)
