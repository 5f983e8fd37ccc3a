"""Symbols beside ids, in whichever column of var, and mitochondrial genes."""

from __future__ import annotations

import pandas as pd
import pytest

from scrcl.contents.gene_names import are_mitochondrial, gene_names, symbol_columns
from scrcl.messages import UserError

IDS = ["ENSG00000000003", "ENSG00000000005.6", "ENSG00000000419"]
SYMBOLS = ["TSPAN6", "TNMD", "DPM1"]


@pytest.mark.parametrize(
    "column",
    [
        *("gene_symbols", "gene_symbol", "Gene Symbol", "SYMBOL", "symbols", "feature_name", "gene_name", "Gene.Name"),
        *("external_gene_name", "hgnc_symbol", "mgi_symbol", "gene_short_name", "HUGO_symbol", "name", "Gene"),
    ],
)
def test_symbols_in_any_spelling_of_a_usual_name(column):
    assert list(gene_names(pd.DataFrame({"n_cells": [1, 2, 3], column: SYMBOLS}, index=IDS))) == SYMBOLS


def test_columns_of_ids_and_numbers_are_no_symbols():
    table = pd.DataFrame({"gene_ids": IDS, "feature": [1, 2, 3], "name": [None] * 3, "symbol": SYMBOLS}, index=IDS)
    assert symbol_columns(table) == ["symbol"]


def test_gaps_keep_their_id():
    names = gene_names(pd.DataFrame({"symbol": ["TSPAN6", None, "TSPAN6"]}, index=IDS))
    assert list(names) == ["TSPAN6", IDS[1], "TSPAN6-1"]


def test_ids_without_symbols_are_said_with_the_columns_that_may_hold_them(caplog):
    table = pd.DataFrame({"hugo": SYMBOLS, "chromosome": ["X", "X", "X"], "length": [1, 2, 3]}, index=IDS)
    assert list(gene_names(table)) == IDS
    assert (
        "The genes have ids or numbers such as ENSG00000000003 instead of names; the symbols may be in hugo: "
        "gene_key (--gene-key) names a column." in caplog.text
    )
    caplog.clear()
    gene_names(table[["length"]])
    assert "instead of names; var has no symbols." in caplog.text
    assert list(gene_names(table, "hugo")) == SYMBOLS
    with pytest.raises(UserError, match="no var column 'nope'; the columns are hugo"):
        gene_names(table, "nope")


def test_symbols_as_names_stay_whatever_stands_beside_them():
    assert list(gene_names(pd.DataFrame({"symbol": ["a", "b", "c"]}, index=SYMBOLS))) == SYMBOLS


def test_mitochondrial_genes_by_symbol():
    table = pd.DataFrame({"symbol": ["MT-CO1", "mt-Nd1", "MTOR"]}, index=IDS)
    assert list(are_mitochondrial(table)) == [True, True, False]
    assert list(are_mitochondrial(pd.DataFrame(index=["mt:CoI", "MT-ND1", "MT1A"]))) == [True, True, False]
