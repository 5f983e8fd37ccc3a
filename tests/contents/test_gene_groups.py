"""Genes that have no part in telling cells apart: groups by name, lists in files, and what is wrong with them."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from conftest import FAST, run, simulate
from scipy import sparse

from scrcl.contents.gene_groups import GROUPS, GeneFilter
from scrcl.messages import UserError
from scrcl.prepare.prepared import preprocessed
from scrcl.readers.h5ad import open_in_place
from scrcl.recipes import CellSettings

MEMBERS = {
    "mitochondrial": "MT-ND1 mt-Co1 MT-RNR2",
    "ribosomal": "RPL13A RPS27 RPS4X RPLP0 RPSA Rpl3 Rps2 RPL22L1 RPS4Y1 Rpl9-ps6",
    "haemoglobin": "HBA1 HBA2 HBB HBD HBE1 HBG2 HBQ1 HBZ Hba-a1 Hbb-bs Hbb-bt Hba-x Hbb-y",
    "immune-receptor": "IGKC IGHV3-23 IGHM IGHG1 IGHA2 IGLC2 TRAC TRBC2 TRBV11-2 TRAJ10 TRDC TRGC1 Igkc Ighg2b Trbv1",
    "cell-cycle": "MKI67 TOP2A Cdk1 PCNA CENPU",
    "sex": "XIST RPS4Y1 Uty Ddx3y Eif2s3y",
}
OTHERS = (
    "MTOR MT1X MTRNR2L8 RPS6KA1 RPTOR RPL RPSAP HBEGF HBP1 HBS1L "
    "IGLL5 IGF1 IGHMBP2 IGKV TRAF1 TRADD TRAM1 TRBP CDK10 XISTA CD3E"
)


@pytest.mark.parametrize("group", GROUPS)
def test_members_and_others(group):
    own = MEMBERS[group].split()
    others = OTHERS.split() + [name for names in MEMBERS.values() for name in names.split() if name not in own]
    others = [name for name in others if group not in ("sex", "ribosomal") or name != "RPS4Y1"]
    var = pd.DataFrame(index=own + others)
    allowed = GeneFilter((group,)).allows(var)
    wrong = [name for name, kept in zip(var.index, allowed) if kept == (name in own)]
    assert not wrong


def test_symbols_beside_ids():
    var = pd.DataFrame({"gene_symbols": ["MT-ND1", "CD3E", "RPL3"]}, index=[f"ENSG0000000000{i}" for i in range(3)])
    assert list(GeneFilter(("mitochondrial",)).allows(var)) == [False, True, True]


def test_files(tmp_path, caplog):
    var = pd.DataFrame(index=["A", "B", "C", "D"])
    (tmp_path / "some.txt").write_text('a\n"B",x\n\nnone such\n')
    with caplog.at_level("INFO"):
        assert list(GeneFilter((str(tmp_path / "some.txt"),)).allows(var)) == [False, False, True, True]
    assert "1 of the 3 genes in" in caplog.text and "2 genes have no part" in caplog.text
    assert list(GeneFilter((), str(tmp_path / "some.txt")).allows(var)) == [True, True, False, False]


def test_what_is_wrong(tmp_path, caplog):
    var = pd.DataFrame(index=["A", "B", "C"])
    (tmp_path / "other.txt").write_text("X\n")
    (tmp_path / "most.txt").write_text("A\nB\n")
    for filter, says in (
        (GeneFilter(("ribosomes",)), r"'ribosomes' is no file \(did you mean ribosomal\?\)"),
        (GeneFilter((str(tmp_path / "other.txt"),)), "None of the 1 genes"),
        (GeneFilter((str(tmp_path / "most.txt"),)), "Only 1 genes are left"),
        (GeneFilter((), str(tmp_path)), "cannot be read as text"),
        (GeneFilter((), str(tmp_path / "none.txt")), "cannot be read as text"),
    ):
        with pytest.raises(UserError, match=says):
            filter.allows(var)
    assert GeneFilter(("sex",)).allows(var).all() and "no gene has such a name" in caplog.text


def test_in_memory_and_on_disk(tmp_path):
    """Excluded genes keep their values in the result of data in memory, but are not highly variable."""
    adata = ad.AnnData(sparse.csr_matrix(simulate(60, 300).X))
    adata.write_h5ad(tmp_path / "in.h5ad")
    best = preprocessed(adata, CellSettings(n_top_genes=30))[0].var.query("highly_variable").index
    (tmp_path / "best.txt").write_text("\n".join(best[:10]))
    for filter in ({"exclude_genes": [str(tmp_path / "best.txt")]}, {"genes": str(tmp_path / "best.txt")}):
        settings = CellSettings(n_top_genes=30, **filter)
        whole, part = preprocessed(adata, settings)[0], preprocessed(open_in_place(tmp_path / "in.h5ad"), settings)[0]
        chosen = whole.var.query("highly_variable").index
        assert list(chosen) == list(part.var_names) and whole.n_vars == 300
        assert set(best[:10]) & set(chosen) == (set() if "exclude_genes" in filter else set(best[:10]))
        assert len(chosen) == (30 if "exclude_genes" in filter else 10)
    assert np.array_equal(whole[:, chosen].X.toarray(), part.X.toarray())


def test_the_command(tmp_path, capsys):
    simulate().write_h5ad(tmp_path / "in.h5ad")
    flags = ["--dataset", tmp_path / "in.h5ad", *FAST, "--no-figures", "--output", tmp_path / "out"]
    code, _, err = run("cells", capsys, *flags, "--exclude-genes", "ribosomel")
    assert code == 2 and "'ribosomel' is no file (did you mean ribosomal?)" in err
