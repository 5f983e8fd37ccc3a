"""Cell Ranger's matrices of every make: one sample and several, told by what is there."""

from __future__ import annotations

import gzip
import shutil

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from conftest import simulate, write_matrix
from scipy import sparse

from scrcl.contents.plain import plain
from scrcl.messages import UserError
from scrcl.readers import h5ad, source, tenx, visium
from scrcl.readers.find import find
from scrcl.readers.market import read_market

# Two cells, three genes; the third gene has the symbol of the first
MATRIX = "%%MatrixMarket matrix coordinate integer general\n%\n3 2 4\n1 1 5\n3 1 1\n2 2 7\n3 2 2\n"
VALUES = [[5, 0, 1], [0, 7, 2]]
BARCODES = "AAAC-1\nAAAG-1\n"
FEATURES = "ENSG1\tNA\tGene Expression\nENSG2\tB2M\tGene Expression\nENSG3\tNA\tAntibody Capture\n"
GENES = "ENSG1\tNA\nENSG2\tB2M\nENSG3\tNA\n"


def write(path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def write_texts(folder, before="", features="features.tsv.gz", ending=".gz", listed=FEATURES, matrix=MATRIX):
    write(folder / f"{before}matrix.mtx{ending}", matrix)
    write(folder / f"{before}barcodes.tsv{ending}", BARCODES)
    write(folder / f"{before}{features}", listed)
    return folder


def write_genomes(path, genomes: dict[str, list[str]]):
    """A file of Cell Ranger 2: one group per genome, with the same cells."""
    with h5py.File(path, "w") as file:
        for genome, genes in genomes.items():
            group = file.create_group(genome)
            group["data"], group["indices"] = np.array([3, 4], dtype=np.int32), np.array([0, 1])
            group["indptr"], group["shape"] = np.array([0, 1, 2]), np.array([len(genes), 2], dtype=np.int32)
            group["barcodes"] = np.array(["AAAC-1", "AAAG-1"], dtype="S")
            group["genes"] = np.array([f"id-{gene}" for gene in genes], dtype="S")
            group["gene_names"] = np.array(genes, dtype="S")
    return path


def read(path) -> ad.AnnData:
    found = find(str(path), "SC")
    assert found.reader is tenx
    return source(str(path), "SC").read()


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("name", ["features.tsv", "genes.tsv"])
def test_a_folder_of_three_texts(name, ending, tmp_path):
    listed = FEATURES if name == "features.tsv" else GENES
    folder = write_texts(tmp_path / "mine", "", name + ending, ending, listed)
    adata = read(folder)
    assert adata.X.toarray().tolist() == VALUES and adata.X.dtype == np.float32 and sparse.issparse(adata.X)
    assert list(adata.obs_names) == ["AAAC-1", "AAAG-1"] and list(adata.var_names) == ["NA", "B2M", "NA-1"]
    assert list(adata.var["gene_ids"]) == ["ENSG1", "ENSG2", "ENSG3"]
    assert ("feature_types" in adata.var) == (name == "features.tsv")
    assert sorted(path.name for path in tenx.files(folder)) == sorted(path.name for path in folder.iterdir())
    assert read(folder / f"matrix.mtx{ending}").X.toarray().tolist() == VALUES


def test_the_same_as_scanpy_reads(tmp_path):
    adata = simulate(30, 20)
    write_matrix(adata, tmp_path / "mine.h5")
    ours, theirs = read(tmp_path / "mine.h5"), sc.read_10x_h5(tmp_path / "mine.h5", gex_only=False)
    assert np.array_equal(ours.X.toarray(), theirs.X.toarray()) and plain(ours.var).equals(plain(theirs.var))
    folder = write_texts(tmp_path / "texts", listed=FEATURES.replace("NA", "A"))
    ours, theirs = read(folder), sc.read_10x_mtx(folder, gex_only=False)
    assert np.array_equal(ours.X.toarray(), theirs.X.toarray()) and plain(ours.var).equals(plain(theirs.var))


def test_lists_with_few_columns_or_a_header_or_numbers(tmp_path):
    adata = read(write_texts(tmp_path / "one", listed="A\nB\nC\n"))
    assert list(adata.var_names) == list(adata.var["gene_ids"]) == ["A", "B", "C"]
    adata = read(write_texts(tmp_path / "header", listed="id\tname\n7\tA\n8\tB\n9\t\n"))
    assert list(adata.var_names) == ["A", "B", "9"] and list(adata.var["gene_ids"]) == ["7", "8", "9"]


def test_cells_in_rows(tmp_path, caplog):
    caplog.set_level("INFO")
    turned = "%%MatrixMarket matrix coordinate real general\n2 3 4\n1 1 5\n1 3 1\n2 2 7\n2 3 2.0\n"
    assert read(write_texts(tmp_path / "mine", matrix=turned)).X.toarray().tolist() == VALUES
    assert "has cells in rows" in caplog.text


def test_several_genomes_of_cell_ranger_2(tmp_path):
    adata = read(write_genomes(tmp_path / "one.h5", {"hg19": ["A", "B"]}))
    assert adata.shape == (2, 2) and adata.X.toarray().tolist() == [[3, 0], [0, 4]]
    adata = read(write_genomes(tmp_path / "two.h5", {"hg19": ["A", "B"], "mm10": ["a", "b"]}))
    assert list(adata.var_names) == ["A", "B", "a", "b"] and list(adata.var["genome"]) == ["hg19"] * 2 + ["mm10"] * 2
    assert adata.X.toarray().tolist() == [[3, 0, 3, 0], [0, 4, 0, 4]]
    adata = read(write_genomes(tmp_path / "clash.h5", {"hg19": ["A", "B"], "mm10": ["A", "b"]}))
    assert list(adata.var_names) == ["hg19_A", "hg19_B", "mm10_A", "mm10_b"]
    for genome in ("hg19", "mm10"):
        inner = tmp_path / "filtered_gene_bc_matrices" / genome
        write_texts(inner, "", "genes.tsv", "", GENES.replace("ENSG", genome).replace("B2M", f"{genome}-B2M"))
    adata = read(inner.parent)
    assert adata.shape == (2, 6) and "mm10_mm10-B2M" in adata.var_names and len(tenx.files(inner.parent)) == 6
    assert read(inner).shape == (2, 3)


def test_probes(tmp_path):
    path = tmp_path / "raw_probe_bc_matrix.h5"
    adata = simulate(30, 20)
    write_matrix(adata, path)
    with h5py.File(path, "r+") as file:
        file["matrix/filtered_barcodes"] = np.arange(30) < 10
        file["matrix/features/gene_id"] = file["matrix/features/id"][:]
    adata = read(path)
    assert adata.obs["filtered_barcodes"].sum() == 10 and {"gene_ids", "probe_ids"} <= set(adata.var)


def test_filtered_goes_before_raw(tmp_path, caplog):
    outs = tmp_path / "mine" / "outs"
    outs.mkdir(parents=True)
    for n, name in ((9, "raw_feature_bc_matrix"), (5, "filtered_feature_bc_matrix"), (7, "raw_probe_bc_matrix")):
        write_matrix(simulate(n, 20), outs / f"{name}.h5")
    write_texts(outs / "filtered_feature_bc_matrix")
    write_genomes(outs / "molecule_info.h5", {"other": ["A", "B"]})
    for path in (tmp_path / "mine", outs):
        assert read(path).n_obs == 5 and [file.name for file in tenx.files(path)] == ["filtered_feature_bc_matrix.h5"]
    assert source(str(outs), "SC").name == "mine"
    assert not caplog.text and read(outs / "raw_feature_bc_matrix.h5").n_obs == 9
    assert "raw_feature_bc_matrix.h5 is a raw matrix, which has empty droplets beside the cells." in caplog.text
    (outs / "filtered_feature_bc_matrix.h5").unlink()
    assert read(outs).n_obs == 2  # the folder of texts
    shutil.rmtree(outs / "filtered_feature_bc_matrix")
    assert read(outs).n_obs == 9 and "sample" not in read(outs).obs


def test_matrices_of_starsolo_and_kallisto(tmp_path):
    """STARsolo counts the same cells in several ways; kallisto writes cells in rows."""
    for of in ("Gene", "GeneFull"):
        for kind in ("filtered", "raw"):
            write_texts(tmp_path / "star" / "Solo.out" / of / kind, "", "features.tsv", "")
    adata = read(tmp_path / "star")
    assert adata.shape == (2, 3) and tenx.files(tmp_path / "star")[0].parent.parts[-2:] == ("Gene", "filtered")
    before = tmp_path / "kallisto" / "cells_x_genes"
    write(before.with_suffix(".mtx"), "%%MatrixMarket matrix coordinate real general\n2 3 2\n1 3 4\n2 1 5\n")
    write(before.with_suffix(".barcodes.txt"), BARCODES)
    write(before.with_suffix(".genes.txt"), "ENSG1\nENSG2\nENSG3\n")
    write(before.with_suffix(".genes.names.txt"), "A\nB\nC\n")
    adata = read(tmp_path / "kallisto")
    assert adata.X.toarray().tolist() == [[0, 0, 4], [5, 0, 0]] and list(adata.var_names) == ["ENSG1", "ENSG2", "ENSG3"]


def test_samples_of_geo_in_one_folder(tmp_path, caplog):
    caplog.set_level("INFO")
    write_texts(tmp_path, "GSM1_A_")
    write_texts(tmp_path, "GSM2_B_", "genes.tsv", "", GENES)
    adata = read(tmp_path)
    assert list(adata.obs_names) == [f"{code}-1-{name}" for name in ("GSM1_A", "GSM2_B") for code in ("AAAC", "AAAG")]
    assert list(adata.obs["sample"]) == ["GSM1_A"] * 2 + ["GSM2_B"] * 2
    assert isinstance(adata.obs["sample"].dtype, pd.CategoricalDtype)
    assert adata.X.toarray().tolist() == VALUES * 2 and list(adata.var_names) == ["NA", "B2M", "NA-1"]
    assert "holds 2 samples with 4 cells in all: GSM1_A, GSM2_B" in caplog.text and "differ" not in caplog.text
    assert len(tenx.files(tmp_path)) == 6
    assert read(tmp_path / "GSM2_B_matrix.mtx").n_obs == 2


@pytest.mark.parametrize("inner", ["", "outs", "outs/filtered_feature_bc_matrix", "filtered_gene_bc_matrices/hg19"])
def test_a_folder_per_sample(inner, tmp_path):
    for name in "AB":
        write_texts(tmp_path / name / inner)
    assert read(tmp_path).obs["sample"].cat.categories.tolist() == ["A", "B"]


def test_the_samples_of_cellranger_multi(tmp_path):
    outs = tmp_path / "outs"
    write_texts(outs / "multi" / "count" / "raw_feature_bc_matrix")
    for n, name in ((4, "S1"), (6, "S2")):
        (outs / "per_sample_outs" / name / "count").mkdir(parents=True)
        write_matrix(
            simulate(n, 20), outs / "per_sample_outs" / name / "count" / "sample_filtered_feature_bc_matrix.h5"
        )
    assert read(tmp_path).obs["sample"].value_counts().to_dict() == {"S1": 4, "S2": 6}


def test_files_of_several_samples(tmp_path):
    """Under Cell Ranger's names or any other."""
    for n, name in ((4, "S1"), (6, "S2")):
        write_matrix(simulate(n, 20), tmp_path / f"{name}.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["something"] = 1
    assert read(tmp_path).obs["sample"].value_counts().to_dict() == {"S1": 4, "S2": 6}
    for name in ("S1", "S2"):
        (tmp_path / f"{name}.h5").rename(tmp_path / f"{name}_filtered_feature_bc_matrix.h5")
    assert read(tmp_path).obs["sample"].value_counts().to_dict() == {"S1": 4, "S2": 6}


def test_samples_with_different_genes(tmp_path, caplog):
    """ENSG1 and ENSG3 are shared; they have one symbol, which the second sample wrote otherwise."""
    caplog.set_level("INFO")
    write_texts(tmp_path, "A_")
    write_texts(tmp_path, "B_", listed="ENSG3\tX\tGene Expression\nENSG9\tB2M\tGene Expression\nENSG1\tNA\tA\n")
    adata = read(tmp_path)
    assert list(adata.var["gene_ids"]) == ["ENSG1", "ENSG3"] and list(adata.var_names) == ["NA", "NA-1"]
    assert adata.X.toarray().tolist() == [[5, 1], [0, 2], [1, 5], [2, 0]]
    assert "the 2 of 4 that all have are read" in caplog.text
    write_texts(tmp_path, "B_", listed="X\nY\nZ\n")
    with pytest.raises(UserError, match=r"The samples in .* \(A, B\) have no gene in common; name one"):
        read(tmp_path)


def test_genes_are_joined_by_symbol_where_the_ids_are_of_another_kind(tmp_path):
    write_texts(tmp_path, "A_", listed=GENES.replace("1\tNA", "1\tA"))
    write_texts(tmp_path, "B_", listed="A\nNA\nB2M\n")
    assert list(read(tmp_path).var_names) == ["A", "B2M", "NA"]


def test_what_is_of_others_is_left_to_them(tmp_path):
    write_texts(tmp_path / "visium" / "filtered_feature_bc_matrix")
    (tmp_path / "visium" / "spatial").mkdir()
    assert find(str(tmp_path / "visium"), "SC").reader is visium and tenx.locate(tmp_path) is None
    write_texts(tmp_path / "cells")
    simulate(5, 5).write_h5ad(tmp_path / "cells" / "mine.h5ad")
    assert find(str(tmp_path / "cells"), "SC").reader is h5ad


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("matrix.mtx.gz", MATRIX[:-6], "it has 3 values, not 4"),
        ("matrix.mtx.gz", MATRIX.replace("3 2 2", "4 2 2"), "values outside the matrix"),
        ("matrix.mtx.gz", MATRIX.replace("coordinate", "array"), "array integer general"),
        ("matrix.mtx.gz", "3 2 4\n", "does not begin with the line"),
        ("matrix.mtx.gz", MATRIX.replace("3 2 4\n", "3 2\n"), "does not say how many"),
        ("barcodes.tsv.gz", "AAAC-1\n", "it is 3 x 2, but there are 3 features and 1 barcodes"),
        ("features.tsv.gz", "", "features.tsv.gz is empty"),
    ],
)
def test_damaged_texts(name, text, says, tmp_path):
    write(write_texts(tmp_path) / name, text)
    with pytest.raises(UserError, match=f"cannot be read as a 10x matrix .*{says}"):
        read(tmp_path)


def test_damaged_hdf5(tmp_path):
    path = tmp_path / "filtered_feature_bc_matrix.h5"
    write_matrix(simulate(30, 20), path)
    with h5py.File(path, "r+") as file:
        file["matrix/indices"][3] = 2_000_000_000
    with pytest.raises(UserError, match="cannot be read as a 10x matrix .its indices point outside"):
        read(tmp_path)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(UserError, match="filtered_feature_bc_matrix.h5 cannot be read as a 10x matrix"):
        read(tmp_path)


def test_places_without_values(tmp_path):
    path = tmp_path / "matrix.mtx"
    path.write_text("%%MatrixMarket matrix coordinate pattern general\n2 3 2\n1 3\n2 1\n")
    assert read_market(path).toarray().tolist() == [[0, 1], [0, 0], [1, 0]]
    path.write_text("%%MatrixMarket matrix coordinate integer general\n2 3 0\n")
    assert read_market(path).shape == (3, 2)
