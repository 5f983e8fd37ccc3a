"""Tables of every type that pandas and Arrow have, brought to what every version can write."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from conftest import simulate

from scrcl.contents.plain import make_plain, plain


def odd_table() -> pd.DataFrame:
    """One column per type; every third value of those with gaps is missing."""
    return pd.DataFrame(
        {
            "text": pd.array(["a", "b", None], dtype="string"),
            "arrow": pd.array(["a", "b", None], dtype="string[pyarrow]"),
            "categories": pd.Categorical(pd.array(["x", "y", "x"], dtype="string")),
            "numbers as categories": pd.Categorical([3, 1, 3]),
            "mixed": ["a", 1, None],
            "dicts": [{"a": 1}, {}, None],
            "dates": pd.to_datetime(["2026-01-01", "2026-01-02", None]),
            "intervals": pd.cut([1, 5, 9], 2),
            "whole": pd.array([1, 2, 3], dtype="Int64"),
            "whole with gaps": pd.array([1, 2, None], dtype="Int64"),
            "fractions": pd.array([0.5, 1, None], dtype="Float64"),
            "truth": pd.array([True, False, True], dtype="boolean"),
            "truth with gaps": pd.array([True, False, None], dtype="boolean"),
            "plain": [1.5, 2.5, np.nan],
        },
        index=pd.Index(["c1", "c2", "c3"], dtype="string"),
    )


def test_every_type_can_be_written_and_reads_the_same(tmp_path):
    table = plain(odd_table())
    adata = ad.AnnData(np.eye(3, dtype=np.float32), obs=table, var=plain(odd_table()))
    adata.write_h5ad(tmp_path / "x.h5ad")
    read = ad.read_h5ad(tmp_path / "x.h5ad").obs
    assert list(table.index) == ["c1", "c2", "c3"] and table.index.dtype == object
    for name in ("text", "arrow"):
        assert list(read[name].astype(object).where(read[name].notna(), None)) == ["a", "b", None]
    assert list(read["mixed"].dropna()) == ["a", "1"] and list(read["dicts"].dropna()) == ["{'a': 1}", "{}"]
    assert list(read["categories"]) == ["x", "y", "x"]
    assert read["whole"].dtype == np.int64 and read["whole with gaps"].tolist()[:2] == [1.0, 2.0]
    assert read["fractions"].isna().tolist() == [False, False, True] and read["truth"].dtype == bool
    assert list(read["truth with gaps"].dropna()) == ["True", "False"]
    assert str(read["dates"].iloc[0]).startswith("2026-01-01")


def test_a_plain_table_is_not_copied():
    obs = plain(simulate(10, 5).obs)  # pandas 3 has texts of its own type in any table
    assert plain(obs) is obs
    assert plain(plain(odd_table())).equals(plain(odd_table()))


def test_names_that_are_numbers_become_text():
    assert list(plain(pd.DataFrame({"a": [1, 2]}, index=[7, 8])).index) == ["7", "8"]


@pytest.mark.parametrize("part", ["obs", "var"])
def test_an_anndata_and_its_raw(part, tmp_path):
    adata = simulate(10, 5)
    names = getattr(adata, part).index
    setattr(adata, part, getattr(adata, part).set_axis(names.astype("string")))
    adata.raw = adata.copy()
    make_plain(adata)
    assert adata.obs.index.dtype == adata.var.index.dtype == adata.raw.var.index.dtype == object
    assert list(getattr(adata, part).index) == list(names)
    adata.write_h5ad(tmp_path / "x.h5ad")
