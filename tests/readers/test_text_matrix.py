"""Tables of numbers in text: separators, encodings, headers, and which way round they are."""

from __future__ import annotations

import bz2
import csv
import gzip

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scrcl.messages import UserError
from scrcl.readers import source, text_matrix
from scrcl.readers.find import find
from scrcl.readers.orientation import cells_in_rows
from scrcl.readers.text_layout import layout_of

BARCODES = ["AAACCTGAGAAACCAT-1", "AAACCTGAGAAACCGC-1", "AAACCTGAGAAACCTA-1", "AAACCTGAGAAACGAG-1"]
GENES = ["ACTB", "B2M", "Rpl3", "odd", "even"]
VALUES = [[1, 0, 20, 3, 0], [0, 2, 10, 0, 4], [5, 0, 30, 0, 0], [0, 0, 7, 6, 1]]


@pytest.fixture
def table() -> pd.DataFrame:
    return pd.DataFrame(VALUES, index=BARCODES, columns=GENES)


def read(path):
    assert find(str(path), "SC") == (path, text_matrix)
    return source(str(path), "SC").read()


def assert_same(adata, cells=BARCODES, genes=GENES, values=VALUES) -> None:
    assert list(adata.obs_names) == list(cells) and list(adata.var_names) == list(genes)
    assert adata.X.toarray().tolist() == values
    assert isinstance(adata.X, sparse.csr_matrix) and adata.X.dtype == np.float32


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("name", ["in.csv", "in.txt", "in"])
@pytest.mark.parametrize("separator", [",", "\t", ";", " ", "|"])
def test_every_separator_whatever_the_name(table, separator, name, turned, tmp_path):
    (table.T if turned else table).to_csv(tmp_path / name, sep=separator)
    assert_same(read(tmp_path / name))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le-sig", "latin-1"])
def test_encodings(table, encoding, tmp_path):
    table.columns = [*GENES[:-1], "béta"]
    text = table.to_csv()
    content = b"\xff\xfe" + text.encode("utf-16-le") if encoding == "utf-16-le-sig" else text.encode(encoding)
    (tmp_path / "in.csv").write_bytes(content)
    assert_same(read(tmp_path / "in.csv"), genes=table.columns)


def test_packed_whatever_the_name(table, tmp_path):
    content = table.to_csv().encode()
    for name, packed in (("in.csv.gz", gzip.compress(content)), ("in.csv", bz2.compress(content)), ("in.gz", content)):
        (tmp_path / name).write_bytes(packed)
        assert_same(read(tmp_path / name))


def test_as_r_writes_it(table, tmp_path):
    """write.table names no column of row names, and quotes; write.csv has an empty name."""
    lines = table.T.to_csv(sep="\t", quoting=csv.QUOTE_NONNUMERIC)
    (tmp_path / "table.txt").write_text(lines.removeprefix('""\t'))
    assert_same(read(tmp_path / "table.txt"))
    table.to_csv(tmp_path / "csv.csv", quoting=csv.QUOTE_NONNUMERIC)
    assert_same(read(tmp_path / "csv.csv"))


def test_lines_that_end_in_a_separator(table, tmp_path):
    (tmp_path / "in.tsv").write_text(table.to_csv(sep="\t").replace("\n", "\t\n"))
    assert_same(read(tmp_path / "in.tsv"))


def test_decimal_commas(table, tmp_path):
    (table + 0.5).to_csv(tmp_path / "in.csv", sep=";", decimal=",")
    assert_same(read(tmp_path / "in.csv"), values=(table + 0.5).to_numpy().tolist())


def test_text_beside_numbers(table, tmp_path):
    """Columns of cells go to obs, and those of genes to var; x and y are no genes."""
    cells = table.assign(cell_type=["a", "b", "a", "b"], x=[1, 2, 3, 4], y=0.5)
    cells.to_csv(tmp_path / "cells.csv")
    adata = read(tmp_path / "cells.csv")
    assert_same(adata)
    assert list(adata.obs["cell_type"]) == ["a", "b", "a", "b"] and adata.obs["x"].tolist() == [1, 2, 3, 4]
    genes = table.T.set_index(pd.Index([f"ENSG{i:011d}" for i in range(5)], name="gene_id"))
    genes.insert(0, "gene_name", GENES)
    genes.to_csv(tmp_path / "genes.tsv", sep="\t")
    adata = read(tmp_path / "genes.tsv")
    assert_same(adata, genes=genes.index)
    assert list(adata.var["gene_name"]) == GENES


def test_text_that_comes_late(table, tmp_path):
    long = pd.concat([table] * 5).set_index(pd.Index([f"{code}{i}" for i in range(5) for code in BARCODES]))
    long["note"] = [1] * 19 + ["late"]
    long.to_csv(tmp_path / "in.csv")
    adata = read(tmp_path / "in.csv")
    assert list(adata.obs["note"]) == ["1"] * 19 + ["late"] and adata.n_vars == 5


def test_lines_before_the_header(table, tmp_path):
    """featureCounts says how it was called, and GCT how large the table is."""
    counts = table.T.rename_axis("Geneid")
    counts.insert(0, "Chr", "chr1;chr1")
    counts.insert(1, "Length", [10, 20, 30, 40, 50])
    (tmp_path / "counts.txt").write_text('# Program:featureCounts v2; Command:"x"\n' + counts.to_csv(sep="\t"))
    adata = read(tmp_path / "counts.txt")
    assert_same(adata)
    assert adata.var["Length"].tolist() == [10, 20, 30, 40, 50] and list(adata.var) == ["Chr", "Length"]
    gct = table.T.rename_axis("Name")
    gct.insert(0, "Description", "na")
    (tmp_path / "in.gct").write_text("#1.2\n5\t4\n" + gct.to_csv(sep="\t"))
    assert_same(read(tmp_path / "in.gct"))


def test_names_that_are_numbers_or_missing(tmp_path):
    table = pd.DataFrame(VALUES)
    table.to_csv(tmp_path / "counted.csv")
    table.to_csv(tmp_path / "bare.csv", header=False, index=False)
    for name in ("counted.csv", "bare.csv"):
        assert_same(read(tmp_path / name), list("0123"), list("01234"))
    table.set_axis([7, 3, 9, 5]).T.set_axis(GENES).to_csv(tmp_path / "cells.tsv", sep="\t", index_label="gene")
    assert_same(read(tmp_path / "cells.tsv"), list("7395"))


def test_a_gene_called_na_and_one_that_repeats(table, tmp_path):
    table.columns = ["NA", "B2M", "B2M", "odd", "even"]
    table.to_csv(tmp_path / "rows.csv")
    table.T.to_csv(tmp_path / "columns.csv")
    for name in ("rows.csv", "columns.csv"):
        assert list(read(tmp_path / name).var_names) == ["NA", "B2M", "B2M-1", "odd", "even"]


@pytest.mark.parametrize(
    ("rows", "columns", "corner", "expected", "why"),
    [
        (BARCODES, list("abcd"), "gene", True, "the rows are named like barcodes (AAACCTGAGAAACCAT-1)"),
        (
            list("abcd"),
            [f"S1_{code}".replace("-", ".") for code in BARCODES],
            "",
            False,
            "columns are named like barcodes (S1_AAAC",
        ),
        (
            [f"ENSMUSG0000000000{i}.2" for i in range(4)],
            list("abcd"),
            "",
            False,
            "the rows are named like ids of genes",
        ),
        (list("abcd"), ["mt-Co1", "b", "c", "d"], "", True, "mt-Co1 is among the columns"),
        (["GAPDH", "RPS27A", "c", "d"], list("abcd"), "", False, "GAPDH is among the rows"),
        (list("abcd"), list("efgh"), "Gene Symbol", False, "the word above the names of the rows is 'Gene Symbol'"),
        (list("abcd"), list("efgh"), "cell_id", True, "the word above the names of the rows is 'cell_id'"),
    ],
)
def test_which_way_round_by_names(rows, columns, corner, expected, why):
    found, said = cells_in_rows(sparse.csr_matrix(np.ones((4, 4))), pd.Index(rows), pd.Index(columns), corner)
    assert found == expected and why in said


def test_which_way_round_by_totals():
    """Genes have totals of 1, 10, 100 and 1000 here; cells all have the same."""
    matrix = sparse.csr_matrix(np.tile([1.0, 10, 100, 1000], (4, 1)))
    for values, expected in ((matrix, True), (matrix.T.tocsr(), False)):
        found, why = cells_in_rows(values, pd.Index(list("abcd")), pd.Index(list("efgh")))
        assert found == expected and "no names tell" in why
        assert ("the totals of the columns spread" in why) == expected


def test_the_log_says_which_way_round(table, tmp_path, caplog):
    caplog.set_level("INFO")
    table.T.to_csv(tmp_path / "in.csv")
    read(tmp_path / "in.csv")
    assert "in.csv has cells in columns and genes in rows: the columns are named like barcodes (AAACC" in caplog.text


def test_a_few_rows_at_a_time(table, tmp_path, monkeypatch):
    monkeypatch.setattr(text_matrix, "AT_ONCE", 1)
    table.to_csv(tmp_path / "in.csv")
    assert_same(read(tmp_path / "in.csv"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "one line,1,2,3\n",
        "a,b,c\nd,e,f\ng,h,i\n",  # no numbers
        "barcode,cell_type,n_counts\nAAACCTGA,a,5\nAAACCTGC,b,6\n",  # about cells
        "# A title\n\nSome words, and a number 5.\nMore words.\n",
        "chr1\t10\t20\nchr1\t30\t40\n",  # BED
        "%%MatrixMarket matrix coordinate integer general\n3 2 1\n1 1 5\n",
    ],
)
def test_what_is_no_matrix(text, tmp_path):
    (tmp_path / "in.csv").write_text(text)
    assert layout_of(tmp_path / "in.csv") is None and text_matrix.locate(tmp_path / "in.csv") is None


def test_damaged_tables(table, tmp_path):
    path, text = tmp_path / "in.csv", pd.concat([table] * 8).to_csv()
    for damage, says in (
        (text[:-4], "row 32 of 32 has fewer fields than the others"),
        (text + "x,1,2,3,4,5,6\n", "Expected 6 fields in line 33, saw 7"),
        (text + "x,1,2,3,four,5\n" + "y,one,two,three,4,5\n" * 2, "could not convert string to float"),
    ):
        path.write_text(damage)
        with pytest.raises(UserError, match=f"in.csv is no matrix of numbers that can be read .*{says}"):
            read(path)
    path.write_bytes(gzip.compress(text.encode())[:-12])
    with pytest.raises(UserError, match="ended before the end-of-stream marker"):
        read(path)
