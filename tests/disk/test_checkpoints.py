"""An analysis goes on from its checkpoint to the same bits, and from nothing else."""

from __future__ import annotations

import os

import pytest
import torch
from conftest import simulate

from scrcl.analysis import analyse
from scrcl.disk.checkpoints import Checkpoints
from scrcl.messages import UserError
from scrcl.prepare import plan
from scrcl.readers.simulated import layered_tissue
from scrcl.recipes import CellSettings, TissueSettings
from scrcl.result import summary


class Killed(Exception):
    """Stands for the end of the process."""


def stopped_after(n: int):
    """on_epoch that ends a run after n epochs."""
    seen = []

    def on_epoch(record: dict) -> None:
        seen.append(record)
        if len(seen) == n:
            raise Killed

    return on_epoch


@pytest.mark.parametrize("in_blocks", [False, True])
@pytest.mark.parametrize("task", ["SC", "ST"])
@pytest.mark.parametrize("n", [3, 9, 13])
def test_a_resumed_run_ends_in_the_same_bits(task, n, in_blocks, fast, tmp_path, monkeypatch):
    """Stopped before the first checkpoint, in the first seed, and in the second."""
    if in_blocks:
        monkeypatch.setattr(plan, "ALL_AT_ONCE_UP_TO", 0)
        monkeypatch.setattr(plan, "BLOCKS", (64,))
    recipe, make = {
        "SC": (CellSettings, simulate),
        "ST": (TissueSettings, lambda: layered_tissue(n_spots=200, n_genes=80)),
    }[task]
    settings = recipe(**fast | {"epochs": 10, "seeds": [1, 2], "plateau": 0})
    whole = analyse(make(), settings)
    assert whole.prepared.block == (64 if in_blocks else 0)
    with pytest.raises(Killed):
        analyse(make(), settings, on_epoch=stopped_after(n), checkpoints=Checkpoints(tmp_path / "c", 4))
    told = []
    kept = Checkpoints(tmp_path / "c", 4, resume=True)
    resumed = analyse(make(), settings, on_epoch=told.append, checkpoints=kept)
    assert resumed.labels.equals(whole.labels) and resumed.confidence.equals(whole.confidence)
    assert resumed.history == whole.history == told
    assert (resumed.cells.obsm["X_scrcl"] == whole.cells.obsm["X_scrcl"]).all()
    assert all(torch.equal(resumed.state_dict[name], value) for name, value in whole.state_dict.items())
    expected = {3: None, 9: "epoch 8 of seed 1", 13: "the end of seed 1"}[n]
    assert resumed.cells.uns["scrcl"].get("resumed_from") == expected
    assert (f"Resumed from {expected};" in summary(resumed)) == (expected is not None)


def test_a_plateau_is_found_again(counts, fast, tmp_path):
    settings = CellSettings(**fast | {"epochs": 60, "plateau": 0.2})
    whole = analyse(counts, settings)
    assert 10 < len(whole.history) < 60
    with pytest.raises(Killed):
        stop = stopped_after(len(whole.history))
        analyse(counts, settings, on_epoch=stop, checkpoints=Checkpoints(tmp_path / "c", 1))
    resumed = analyse(counts, settings, checkpoints=Checkpoints(tmp_path / "c", 1, resume=True))
    assert resumed.history == whole.history and resumed.labels.equals(whole.labels)


@pytest.fixture
def kept(counts, fast, tmp_path):
    """Runs on the same data with other settings, resumed from the checkpoint of a finished run."""
    settings = fast | {"encoder_input": "counts"}
    analyse(counts, CellSettings(**settings), checkpoints=Checkpoints(tmp_path / "c", 4))

    def again(adata=counts, **change):
        checkpoints = Checkpoints(tmp_path / "c", 4, resume=True)
        return analyse(adata, CellSettings(**settings | change), checkpoints=checkpoints)

    return again


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"lr": 0.1}, "lr was 0.0005 and is 0.1"),
        ({"n_clusters": 4}, "n_clusters was "),
        ({"hidden": 17}, "hidden was 16 and is 17"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused(kept, change, says):
    with pytest.raises(UserError, match=f"another run: {says}"):
        kept(**change)


def test_a_checkpoint_of_other_data_is_refused(kept, counts):
    doubled = counts.copy()
    doubled.X = doubled.X * 2  # the same after normalisation, but not what the encoders see
    for other in (doubled, simulate(seed=1)):
        with pytest.raises(UserError, match="another run: input was"):
            kept(other)


def test_a_checkpoint_serves_more_seeds_and_another_number_of_threads(kept):
    assert kept(seeds=[5, 6], threads=1).cells.uns["scrcl"]["resumed_from"] == "the end of seed 5"
    assert kept(threads=2).cells.uns["scrcl"]["resumed_from"] == "the end of seed 5"


@pytest.mark.parametrize("name", ["seed_5.pt", "settings.json"])
@pytest.mark.parametrize("damage", ["cut off", "one bit", "something else", "empty"])
def test_a_damaged_checkpoint_is_refused(kept, tmp_path, name, damage):
    path = tmp_path / "c" / name
    content = bytearray(path.read_bytes())
    inside = content.index(b'"input": "') + 12 if name == "settings.json" else len(content) // 2  # a value, or tensors
    content[inside] ^= 1 << 6
    if damage == "something else":
        if name.endswith(".pt"):
            torch.save({"labels": torch.zeros(3)}, path)
        else:
            path.write_text("[]")
    else:
        path.write_bytes({"cut off": content[: len(content) // 2], "one bit": content, "empty": b""}[damage])
    readable = (name, damage) == ("settings.json", "one bit")  # text without a checksum
    with pytest.raises(UserError, match="another run" if readable else "cannot be read .* leave --resume out"):
        kept()


def test_a_checkpoint_executes_nothing(kept, tmp_path):
    """A pickle that would make a folder when it is read is refused."""

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    torch.save({"labels": Bomb(), "model": {}, "history": []}, tmp_path / "c" / "seed_5.pt")
    with pytest.raises(UserError, match="cannot be read"):
        kept()
    assert not (tmp_path / "executed").exists()


def test_only_own_files_are_removed(counts, fast, tmp_path):
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="holds .*thesis.tex.*; choose another folder with --output"):
        analyse(counts, CellSettings(**fast), checkpoints=Checkpoints(tmp_path / "c", 4))
    (tmp_path / "c" / "thesis.tex").rename(tmp_path / "thesis.tex")
    own, off = Checkpoints(tmp_path / "c", 4), Checkpoints(tmp_path / "c")
    analyse(counts, CellSettings(**fast), checkpoints=own)
    analyse(counts, CellSettings(**fast), checkpoints=off)
    off.remove()
    assert (tmp_path / "c" / "seed_5.pt").exists()
    (tmp_path / "c" / "thesis.tex").write_text("mine")
    own.remove()
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["thesis.tex"]


def test_a_checkpoint_object_serves_two_runs(counts, fast, tmp_path):
    both = Checkpoints(tmp_path / "c", 4, resume=True)
    runs = [analyse(counts, CellSettings(**fast), checkpoints=both) for _ in range(2)]
    assert [run.cells.uns["scrcl"].get("resumed_from") for run in runs] == [None, "the end of seed 5"]
