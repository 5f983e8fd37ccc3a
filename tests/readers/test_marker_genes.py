"""Tables of known marker genes, and what is wrong with some."""

from __future__ import annotations

import pandas as pd
import pytest

from scrcl.messages import UserError
from scrcl.readers.marker_genes import read_marker_genes


def test_a_table_of_markers(tmp_path, caplog):
    path = tmp_path / "known.csv"
    path.write_text("Gene,Type\nins,beta\nIAPP,beta\nGCG,alpha\n gcg ,alpha\nFOO,odd\n,beta\n")
    genes = pd.Index(["INS", "IAPP", "GCG", "Gcg"])
    assert read_marker_genes(path, genes) == {"beta": ["INS", "IAPP"], "alpha": ["GCG"]}
    assert "odd" in caplog.text and "beta" not in caplog.text
    with pytest.raises(UserError, match="None of the 5 genes .* named like x1, x2, x3"):
        read_marker_genes(path, pd.Index(["x1", "x2", "x3", "x4"]))
    path.write_text("Type;gene\nbeta;INS\n")
    assert read_marker_genes(path, genes) == {"beta": ["INS"]}
    path.write_text("Type,type,gene\nbeta,beta,INS\n")
    with pytest.raises(UserError, match="columns type and gene"):
        read_marker_genes(path, genes)
    path.write_text("cell,gene\nbeta,INS\n")
    with pytest.raises(UserError, match="has the columns cell, gene; a table of markers has columns type and gene"):
        read_marker_genes(path, genes)
