"""Genes told from antibodies, hashtags, guides and controls, by their types and by their names."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scrcl.contents.features import are_genes


def var(names: list[str], **columns: list) -> pd.DataFrame:
    return pd.DataFrame(columns, index=names)


def test_types_of_cell_ranger_decide(caplog):
    caplog.set_level("INFO")
    table = var(
        ["A", "B", "CD3", "HTO_1", "C"],
        feature_types=["Gene Expression", "Gene Expression", "Antibody Capture", "Multiplexing Capture", None],
    )
    assert list(are_genes(table)) == [True, True, False, False, True]
    said = "2 of 5 features are no genes (1 Antibody Capture, 1 Multiplexing Capture): left out"
    assert f"{said}; --features all keeps them." in caplog.text
    assert are_genes(table, "all").all()


@pytest.mark.parametrize(
    ("types", "kept"),
    [
        (["Antibody Capture"] * 3, 3),  # a panel of antibodies alone is what there is
        (["protein_coding", "lncRNA", "miRNA"], 3),  # biotypes are all genes
        (["gene", "gene", "spike-in"], 2),
        (["Gene Expression", "Gene Expression", "Something New"], 2),
        (["protein_coding", "lncRNA", "Negative Control Probe"], 2),
    ],
)
def test_types_of_others(types, kept):
    assert are_genes(var(["A", "B", "C"], feature_type=types)).sum() == kept


NO_GENES = [
    *("CD3_TotalSeqB", "CD4-TotalSeqC", "TotalSeqA_CD8", "ADT_CD3", "ADT-CD3", "HTO1-HTO", "HTO-3", "Hashtag_1"),
    *("CD19_adt", "CD19_protein", "CD3-Ab", "Mouse_IgG1_isotype_ctrl", "CMO301", "sgRNA_TP53_1", "ERCC-00002"),
    *("NegControlProbe_00042", "NegControlCodeword_0500", "UnassignedCodeword_0001", "BLANK_0069", "Blank-12"),
    *("antisense_PROKR2", "Intergenic_Region_1072", "DeprecatedCodeword_0303", "NegPrb3", "Negative12"),
    *("SystemControl7", "FalseCode1", "NegativeControl_1"),
]
GENES = [
    *("CD3E", "HLA-DRB1", "MT-CO1", "mt-Nd1", "ERCC1", "ERCC6L", "NEGR1", "RP11-34P13.7", "AC011.2", "Gm1992"),
    *("adt-1", "H2-Ab1", "Abca1", "CTLA4", "ENSG00000001", "gene-12", "gene_7", "1700012B09Rik", "nhr-25"),
    *("ANTXR1", "PROTEIN1", "Negative", "SNORD115-1", "trnL2", "AB019441.29", "ABCA1-AS1"),
]


def test_names_where_types_are_not_known():
    found = are_genes(var([*NO_GENES, *GENES, *(f"G{i}" for i in range(40))]))
    kept = [name for name, gene in zip([*NO_GENES, *GENES], found) if gene]
    assert kept == GENES and found[len(NO_GENES) + len(GENES) :].all()


def test_names_do_not_take_most_features_away():
    assert are_genes(var(["CD3_TotalSeqB", "CD4_TotalSeqB", "A"])).all()
    assert are_genes(var([])).shape == (0,) and np.array_equal(are_genes(var(["A"])), [True])
