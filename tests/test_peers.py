"""Peers of the benchmarks: what they are given, the rows that they leave, and that a failure is one of them."""

from __future__ import annotations

import sys
from pathlib import Path

import anndata as ad
import pandas as pd
import pytest
from conftest import simulate

from benchmarks import peers
from scrcl.messages import UserError
from scrcl.readers.simulated import layered_tissue

# A peer that keeps what it was given, finds one cluster more than it was asked for, and fails for seed 6
FAKE = """
import shutil, sys, json
from pathlib import Path
import anndata as ad, pandas as pd
method, cells, labels, n_clusters, seed = sys.argv[1:]
kept = Path(__file__).parent / "given"
with open(kept.with_suffix(".txt"), "a") as calls:
    print(method, n_clusters, seed, file=calls)
shutil.copy(cells, kept.with_suffix(".h5ad"))
if seed == "6":
    raise ValueError("six is too many")
names = ad.read_h5ad(cells).obs_names
found = [str(i % (int(n_clusters) + 1)) for i in range(len(names))]
pd.DataFrame({"one way": found, "another": found}, index=names).to_csv(labels)
Path(labels).with_name("cost.json").write_text(json.dumps({"seconds": 1.5, "gib": 0.25}))
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """The folder of a fake peer for cells and one for tissue, run by this interpreter."""
    script = tmp_path / "fake.py"
    script.write_text(FAKE)
    monkeypatch.setattr(peers, "SCRIPT", script)
    monkeypatch.setattr(peers, "interpreter", lambda name, envs: Path(sys.executable))
    found = {name: peers.Peer(task, ("one way", "another"), ()) for name, task in (("cells", "SC"), ("spots", "ST"))}
    monkeypatch.setattr(peers, "PEERS", found)
    return tmp_path


def run(folder: Path, adata: ad.AnnData, task: str, name: str, seeds: list[int]) -> pd.DataFrame:
    adata.write_h5ad(folder / "some.h5ad")
    peers.run(task, [str(folder / "some.h5ad")], [name], seeds, folder, folder / "peers.csv")
    return pd.read_csv(folder / "peers.csv")


def test_rows_and_a_second_call_that_goes_on(fake):
    run(fake, simulate(80), "SC", "cells", [5])
    rows = run(fake, simulate(80), "SC", "cells", [5, 7])
    assert (fake / "given.txt").read_text().split("\n") == ["cells 3 5", "cells 3 7", ""]
    assert list(zip(rows["method"], rows["seed"])) == [("one way", 5), ("another", 5), ("one way", 7), ("another", 7)]
    assert rows["ARI"].notna().all() and rows["error"].isna().all()
    assert set(rows["n_clusters"]) == {4} and set(rows["n_types"]) == {3}
    assert set(rows["seconds"]) == {1.5} and set(rows["gib"]) == {0.25}


def test_a_failure_is_a_row_in_words(fake):
    rows = run(fake, simulate(80), "SC", "cells", [6, 5])
    assert list(rows["error"][:2]) == ["ValueError: six is too many"] * 2 and rows["ARI"][:2].isna().all()
    assert rows["ARI"][2:].notna().all()  # the next one runs
    assert peers.document(rows).count("\n") == 3  # a table of the rows that have scores


@pytest.mark.parametrize("task", ["SC", "ST"])
def test_what_a_peer_is_given_has_no_labels(fake, task):
    adata, name = (simulate(80), "cells") if task == "SC" else (layered_tissue(150, 60), "spots")
    run(fake, adata, task, name, [5])
    given = ad.read_h5ad(fake / "given.h5ad")
    assert given.shape == adata.shape and list(given.obs_names) == [str(i) for i in range(adata.n_obs)]
    assert not len(given.obs.columns) and not len(given.var.columns)
    assert list(given.obsm) == (["spatial"] if task == "ST" else [])
    assert not (given.uns or given.layers or given.obsp or given.varm or given.raw)


def test_data_without_labels_are_refused(fake):
    adata = simulate(80)
    del adata.obs["cell_type1"]
    with pytest.raises(UserError, match="no known labels"):
        run(fake, adata, "SC", "cells", [5])


def test_a_peer_as_it_is(tmp_path, monkeypatch):
    """Scanpy's usual analysis needs nothing that is not here."""
    monkeypatch.setattr(peers, "interpreter", lambda name, envs: Path(sys.executable))
    row = run(tmp_path, simulate(80), "SC", "scanpy", [5]).iloc[0]
    assert row["method"] == "scanpy" and row["ARI"] > 0.9 and row["seconds"] > 0


def test_an_environment_that_cannot_be_made_is_a_row(tmp_path, monkeypatch):
    monkeypatch.setattr(peers, "PEERS", {"none": peers.Peer("SC", ("none",), ("scanpy===no.such",))})
    (python := tmp_path / "none" / "bin" / "python").parent.mkdir(parents=True)
    python.symlink_to("/bin/false")  # in place of pip
    row = run(tmp_path, simulate(80), "SC", "none", [5]).iloc[0]
    assert "exit status 1" in row["error"] and pd.isna(row["ARI"])


def test_table_by_hand():
    """Two sets and two seeds; the second method has not been run on b."""
    made = [("one", "a", 5, 0.5, 10, 1.0), ("one", "a", 15, 0.7, 20, 2.0), ("one", "b", 5, 0.4, 30, 3.0)]
    made += [("two", "a", 5, 0.9, 1, 0.5), ("two", "b", 5, None, None, None)]
    rows = pd.DataFrame(made, columns=["method", "dataset", "seed", "ARI", "seconds", "gib"])
    header, _, one, two = peers.document(rows.assign(task="SC", input="as it is")).split("\n")
    assert header == "| ARI | a | b | mean | seconds | GiB |"
    assert one == "| one | 0.600 | 0.400 | 0.500 | 20 | 2.0 |"
    assert two == "| two | 0.900 |  |  | 1 | 0.5 |"
