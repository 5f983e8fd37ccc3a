"""Values worked on in blocks: by any number of threads, on a dask cluster, and what is said where there is none."""

from __future__ import annotations

import anndata as ad
import h5py
import numpy as np
import pytest
import torch
from anndata.experimental import read_elem_lazy
from conftest import FAST, run, simulate
from distributed import Client, LocalCluster
from scipy import sparse

from scrcl import scheduler
from scrcl.contents import blocks
from scrcl.messages import UserError
from scrcl.prepare.on_disk import preprocess
from scrcl.readers import anndata_zarr, h5ad

HOW = ("auto", "10000", 50, "seurat", 10)


@pytest.fixture(scope="module")
def cluster():
    """Two workers in processes of their own, with a thread each."""
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as found:
        yield found


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "CELLS", 17)


@pytest.fixture(params=["h5ad", "zarr"])
def opened(request, tmp_path) -> ad.AnnData:
    """The same cells left on disk in either format."""
    path = tmp_path / f"in.{request.param}"
    if request.param == "h5ad":
        simulate(60, 300).write_h5ad(path)
        return h5ad.open_in_place(path)
    with ad.settings.override(zarr_write_format=2):
        simulate(60, 300).write_zarr(path)
    return anndata_zarr.open_in_place(path)


def same(one: ad.AnnData, other: ad.AnnData) -> bool:
    """Whether both have the same genes and values, to the last bit."""
    return list(one.var_names) == list(other.var_names) and all(
        np.array_equal(mine.data, its.data) and np.array_equal(mine.indices, its.indices)
        for mine, its in ((one.X, other.X), (one.layers["counts"], other.layers["counts"]))
    )


def test_any_number_of_threads_and_a_cluster_give_the_same_bits(opened, cluster, monkeypatch):
    found = []
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda n=threads: n)
        found.append(preprocess(opened, *HOW)[0])
    with scheduler.connected(cluster.scheduler_address):
        assert scheduler.on_cluster() and scheduler.size() == 2
        found.append(preprocess(opened, *HOW)[0])
    assert not scheduler.on_cluster()
    assert found[0].shape == (60, 50) and same(found[0], found[1]) and same(found[0], found[2])


def test_a_dask_array_of_ones_own(opened, cluster):
    """As anndata makes it lazily, also cut by genes; a client that the user has connected is used."""
    expected = preprocess(opened, *HOW)[0]
    for chunks in ({}, {1: 100}):
        lazy = ad.AnnData(read_elem_lazy(opened.X.group).rechunk({0: 25, **chunks}), obs=opened.obs, var=opened.var)
        assert blocks.is_lazy(lazy)
        assert same(preprocess(lazy, *HOW)[0], expected)
    with Client(cluster.scheduler_address):
        assert scheduler.on_cluster() and same(preprocess(lazy, *HOW)[0], expected)


def test_a_dask_array_by_genes_is_refused(tmp_path):
    ad.AnnData(sparse.csc_matrix(simulate(60, 300).X)).write_h5ad(tmp_path / "in.h5ad")
    with h5py.File(tmp_path / "in.h5ad") as file, pytest.raises(UserError, match="stored by genes"):
        blocks.find_values(ad.AnnData(read_elem_lazy(file["X"])), "auto")


def test_the_same_sentence_about_damage_on_a_cluster(tmp_path, cluster):
    path = tmp_path / "in.h5ad"
    simulate(60, 300).write_h5ad(path)
    with h5py.File(path, "r+") as file:
        file["X/indices"][200] = 10**6
    with scheduler.connected(cluster.scheduler_address), pytest.raises(UserError, match="X is damaged .*must be < 300"):
        preprocess(h5ad.open_in_place(path), *HOW)


def test_a_file_that_the_workers_do_not_see(tmp_path, cluster):
    simulate(60, 300).write_h5ad(tmp_path / "in.h5ad")
    adata = h5ad.open_in_place(tmp_path / "in.h5ad")
    (tmp_path / "in.h5ad").rename(tmp_path / "elsewhere.h5ad")
    with scheduler.connected(cluster.scheduler_address), pytest.raises(UserError, match="the file under the same path"):
        preprocess(adata, *HOW)


@pytest.mark.parametrize("format", ["h5ad", "zarr"])
def test_the_command_on_a_cluster(format, tmp_path, capsys, caplog, cluster):
    """Also with the AnnData of the result in zarr, which takes the place of that of an earlier run."""
    adata = simulate()
    with ad.settings.override(zarr_write_format=2):
        (adata.write_h5ad if format == "h5ad" else adata.write_zarr)(tmp_path / f"in.{format}")
    flags = ["--dataset", tmp_path / f"in.{format}", *FAST, "--output", tmp_path / "out", "--no-figures"]
    assert run("cells", capsys, *flags)[0] == 0
    first, labels = ad.read_h5ad(tmp_path / "out/result.h5ad"), (tmp_path / "out/labels.csv").read_text()
    for _ in range(2):
        more = ["--dask-scheduler", cluster.scheduler_address, "--format", "zarr"]
        with caplog.at_level("INFO"):
            assert run("cells", capsys, *flags, *more)[0] == 0
        assert "2 dask workers with 2 threads" in caplog.text
        assert (tmp_path / "out/labels.csv").read_text() == labels and not (tmp_path / "out/result.h5ad").exists()
        result = ad.read_zarr(tmp_path / "out/result.zarr")
        assert result.obs["scrcl"].equals(first.obs["scrcl"]) and result.obsm.keys() == first.obsm.keys()
        assert result.uns["scrcl"].keys() == first.uns["scrcl"].keys() and result.obsp.keys() == first.obsp.keys()
    assert run("markers", capsys, "--dataset", tmp_path / "out")[0] == 0
    assert run("cells", capsys, *flags)[0] == 0
    assert not (tmp_path / "out/result.zarr").exists() and (tmp_path / "out/result.h5ad").exists()


def test_nobody_answers(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(scheduler, "PATIENCE", 0.5)
    simulate().write_h5ad(tmp_path / "in.h5ad")
    for address in ("tcp://127.0.0.1:9", "nonsense"):
        code, _, err = run("cells", capsys, "--dataset", tmp_path / "in.h5ad", "--dask-scheduler", address)
        assert code == 2 and f"No dask scheduler answers at {address}" in err
    with LocalCluster(n_workers=0, dashboard_address=":0") as empty:
        address = empty.scheduler_address
        code, _, err = run("cells", capsys, "--dataset", tmp_path / "in.h5ad", "--dask-scheduler", address)
    assert code == 2 and f"`dask worker {address}`" in err


def test_values_that_are_in_memory_need_no_cluster(tmp_path, capsys, caplog):
    np.savetxt(tmp_path / "in.csv", simulate().X.toarray(), delimiter=",", fmt="%d")
    flags = ["--dataset", tmp_path / "in.csv", *FAST, "--output", tmp_path / "out", "--no-figures"]
    assert run("cells", capsys, *flags, "--dask-scheduler", "tcp://127.0.0.1:9")[0] == 0
    assert "--dask-scheduler has no effect: the values are in memory" in caplog.text
