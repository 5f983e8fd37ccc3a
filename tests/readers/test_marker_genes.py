"""Tables of known marker genes, and what is wrong with some."""

from __future__ import annotations

import pandas as pd
import pytest

from scrcl.messages import UserError
from scrcl.readers.marker_genes import COMMON, common_marker_genes, marker_genes, read_marker_genes


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


def test_markers_by_type(tmp_path, caplog):
    genes = pd.Index(["INS", "IAPP", "GCG", "ARX"])
    assert marker_genes({"beta": ["ins", "IAPP", "FOO"], "odd": ("BAR",)}, genes) == {"beta": ["INS", "IAPP"]}
    assert "None of the markers of odd is in the data" in caplog.text
    assert marker_genes("", genes) == {} and marker_genes("builtin", genes)["pancreatic alpha cell"] == ["GCG", "ARX"]
    (tmp_path / "own.csv").write_text("type,gene\nbeta,INS\n")
    assert marker_genes(str(tmp_path / "own.csv"), genes) == {"beta": ["INS"]}
    assert marker_genes({"beta": "INS"}, genes) == {"beta": ["INS"]}  # no list of letters
    with pytest.raises(UserError, match="no list of genes for beta; it takes genes by type"):
        marker_genes({"beta": None}, genes)
    with pytest.raises(UserError, match="None of the 1 genes in marker_genes is in the data"):
        marker_genes({"beta": ["FOO"]}, genes)
    with pytest.raises(UserError, match="--marker-genes nowhere is not a file; builtin means common types"):
        marker_genes("nowhere", genes)


def test_common_types_of_human_and_mouse(caplog):
    human = common_marker_genes(pd.Index(["INS", "IAPP", "MAFA", "CD3D", "CD3E", "CD4"]))
    assert human["pancreatic beta cell"] == ["INS", "IAPP", "MAFA"] and human["T cell CD4"] == ["CD3D", "CD3E", "CD4"]
    assert "NK cell" not in human
    assert (
        f"Markers of only {len(human)} of 72 common cell types are in the data, so names can be far off" in caplog.text
    )
    assert common_marker_genes(pd.Index(["Gcg", "Arx"])) == {"pancreatic alpha cell": ["Gcg", "Arx"]}
    with pytest.raises(UserError, match="No marker of a common cell type .* named like x1"):
        common_marker_genes(pd.Index(["x1", "x2"]))


def test_the_table_of_common_types_is_sound():
    lines = [line for line in COMMON.read_text().splitlines() if not line.startswith("#")]
    rows = [line.split(",") for line in lines]
    assert rows[0] == ["type", "genes"] and len(rows) > 60 and {len(row) for row in rows} == {2}
    names = [name for name, _ in rows[1:]]
    assert len(set(names)) == len(names)
    for _, genes in rows[1:]:
        own = genes.split()
        assert 3 <= len(own) == len(set(own)) and all(gene == gene.upper() for gene in own)
