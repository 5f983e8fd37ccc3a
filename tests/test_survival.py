"""What is left of a run that is killed, terminated, resumed, doubled, or meets a full disk."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from pathlib import Path

import anndata as ad
import pandas as pd
import pytest
import torch
import yaml
from conftest import run, simulate

import checkpoints
import degs
import draw_DEGs
import folders
import interrupts
import memory
import pipeline
import results
import runSC
from checkpoints import Checkpoints
from folders import FINISHED, LOCK, locked, staged
from simulate import layered_tissue
from utils import UserError, limited_threads, run_script

ROOT = Path(__file__).parents[1]
SMALL = ["--hidden", 16, "--n-top-genes", 60, "--n-pcs", 10, "--no-figures", "--plateau", 0]
N_KILLS = int(os.environ.get("SCRCL_KILLS", 12))  # docs/RELIABILITY.md is of 30


# Folders


def files(folder: Path) -> dict[str, str]:
    """Names and contents of what a user sees in a folder."""
    return {path.name: path.read_text() for path in folder.iterdir() if not path.name.startswith(".")}


def write(folder: Path, content: dict[str, str]) -> None:
    with staged(folder, ("config.yaml", "labels.csv", "umap.png")) as stage:
        for name, text in content.items():
            (stage / name).write_text(text)


OLD = {"config.yaml": "{settings: {}, provenance: old}", "labels.csv": "old", "umap.png": "old"}
NEW = {"config.yaml": "{settings: {}, provenance: new}", "labels.csv": "new"}


def die_at(n: int, folder: Path) -> bool:
    """Write NEW in a child that dies at its n-th change of a name; whether it did."""
    child = os.fork()
    if child == 0:
        calls = iter(range(n + 1))
        for name in ("replace", "unlink", "rmdir", "mkdir"):
            plain = getattr(os, name)

            def change(*args, plain=plain, **kwargs):
                if next(calls) == n:
                    os._exit(9)
                return plain(*args, **kwargs)

            setattr(os, name, change)
        write(folder, NEW)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def test_death_at_any_change_of_a_name_leaves_the_old_files_or_the_new(tmp_path):
    seen = []
    for n in range(100):
        folder = tmp_path / str(n)
        write(folder, OLD)
        died = die_at(n, folder)
        folders.complete_for_reading(folder)
        seen.append(files(folder))
        assert seen[-1] in (OLD, NEW), n
        write(folder, OLD)  # whatever was left is no obstacle, and is cleaned up
        assert files(folder) == OLD and not [path for path in folder.iterdir() if path.name.startswith(".")]
        if not died:
            break
    n_old = seen.count(OLD)  # up to the rename that decides, and never again after it
    assert not died and 0 < n_old < len(seen) - 1 and seen == [OLD] * n_old + [NEW] * (len(seen) - n_old)


def test_files_are_whole_or_not_there(tmp_path):
    path = tmp_path / "a.pt"
    folders.write_safely(path, b"one")
    with pytest.raises(TypeError):
        folders.write_safely(path, object())
    assert path.read_bytes() == b"one" and list(tmp_path.iterdir()) == [path]


def hold(folder: str, ready: multiprocessing.Event) -> None:
    with locked(Path(folder)):
        ready.set()
        time.sleep(600)


def test_a_lock_keeps_others_out_and_dies_with_its_owner(server, tmp_path):
    ready = server.Event()
    owner = server.Process(target=hold, args=(str(tmp_path / "out"), ready))
    owner.start()
    assert ready.wait(60)
    with pytest.raises(UserError, match="Another run is writing to .*out"), locked(tmp_path / "out"):
        pass
    owner.kill()
    owner.join()
    with locked(tmp_path / "out"), locked(tmp_path / "out"):
        assert (tmp_path / "out" / LOCK).exists()
    assert not (tmp_path / "out" / LOCK).exists()


def test_a_new_folder_without_a_file_is_removed(tmp_path):
    with pytest.raises(ValueError), staged(tmp_path / "new", ("labels.csv",)):
        raise ValueError
    assert not (tmp_path / "new").exists()


# Signals


def test_a_signal_waits_for_the_end_of_the_block():
    after = []
    with interrupts.handled():
        with pytest.raises(interrupts.Terminated), interrupts.deferred() as asked:
            assert not asked()
            os.kill(os.getpid(), signal.SIGTERM)
            after.append(asked())
        with pytest.raises(KeyboardInterrupt), interrupts.deferred():
            with interrupts.deferred():
                os.kill(os.getpid(), signal.SIGINT)
            after.append("outer")
            os.kill(os.getpid(), signal.SIGINT)  # the second does not wait
            after.append("never")
        with pytest.raises(interrupts.Terminated):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
    assert after == [True, "outer"]


# Checkpoints


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
        monkeypatch.setattr(memory, "ALL_AT_ONCE_UP_TO", 0)
        monkeypatch.setattr(memory, "BLOCKS", (64,))
    find, make = {
        "SC": (pipeline.find_cell_types, simulate),
        "ST": (pipeline.find_domains, lambda: layered_tissue(n_spots=200, n_genes=80)),
    }[task]
    settings = fast | {"epochs": 10, "seeds": [1, 2], "plateau": 0}
    whole = find(make(), **settings)
    assert whole.prepared.block == (64 if in_blocks else 0)
    with pytest.raises(Killed):
        find(make(), on_epoch=stopped_after(n), checkpoints=Checkpoints(tmp_path / "c", 4), **settings)
    told = []
    resumed = find(make(), on_epoch=told.append, checkpoints=Checkpoints(tmp_path / "c", 4, resume=True), **settings)
    assert resumed.labels.equals(whole.labels) and resumed.confidence.equals(whole.confidence)
    assert resumed.history == whole.history == told
    assert (resumed.cells.obsm["X_scrcl"] == whole.cells.obsm["X_scrcl"]).all()
    assert all(torch.equal(resumed.state_dict[name], value) for name, value in whole.state_dict.items())
    expected = {3: None, 9: "epoch 8 of seed 1", 13: "the end of seed 1"}[n]
    assert resumed.cells.uns["scrcl"].get("resumed_from") == expected
    assert (f"Resumed from {expected};" in results.summary(resumed)) == (expected is not None)


def test_a_plateau_is_found_again(counts, fast, tmp_path):
    settings = fast | {"epochs": 60, "plateau": 0.2}
    whole = pipeline.find_cell_types(counts.copy(), **settings)
    assert 10 < len(whole.history) < 60
    with pytest.raises(Killed):
        stop = stopped_after(len(whole.history))
        pipeline.find_cell_types(counts.copy(), on_epoch=stop, checkpoints=Checkpoints(tmp_path / "c", 1), **settings)
    resumed = pipeline.find_cell_types(counts, checkpoints=Checkpoints(tmp_path / "c", 1, resume=True), **settings)
    assert resumed.history == whole.history and resumed.labels.equals(whole.labels)


@pytest.fixture
def kept(counts, fast, tmp_path):
    """Runs on the same data with other settings, resumed from the checkpoint of a finished run."""
    settings = fast | {"encoder_input": "counts"}
    pipeline.find_cell_types(counts.copy(), checkpoints=Checkpoints(tmp_path / "c", 4), **settings)

    def again(adata=counts, **change):
        checkpoints = Checkpoints(tmp_path / "c", 4, resume=True)
        return pipeline.find_cell_types(adata.copy(), checkpoints=checkpoints, **(settings | change))

    return again


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"lr": 0.1}, "lr was 0.0005 and is 0.1"),
        ({"n_clusters": 4}, "n_clusters was "),
        ({"hidden": 17}, "hidden was 16 and is 17"),
        ({"threads": 3}, "threads was "),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused(kept, change, says):
    with pytest.raises(UserError, match=f"of another run: {says}"):
        kept(**change)


def test_a_checkpoint_of_other_data_is_refused(kept, counts):
    doubled = counts.copy()
    doubled.X = doubled.X * 2  # the same after normalisation, but not what the encoders see
    for other in (doubled, simulate(seed=1)):
        with pytest.raises(UserError, match="of another run: input was"):
            kept(other)


def test_a_checkpoint_serves_more_seeds(kept):
    assert kept(seeds=[5, 6]).cells.uns["scrcl"]["resumed_from"] == "the end of seed 5"


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
    with pytest.raises(UserError, match="of another run" if readable else "cannot be read .* leave --resume out"):
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
    with pytest.raises(UserError, match="holds a thesis.tex of somebody else"):
        pipeline.find_cell_types(counts.copy(), checkpoints=Checkpoints(tmp_path / "c", 4), **fast)
    (tmp_path / "c" / "thesis.tex").rename(tmp_path / "thesis.tex")
    own, off = Checkpoints(tmp_path / "c", 4), Checkpoints(tmp_path / "c")
    pipeline.find_cell_types(counts.copy(), checkpoints=own, **fast)
    pipeline.find_cell_types(counts.copy(), checkpoints=off, **fast)
    off.remove()
    assert (tmp_path / "c" / "seed_5.pt").exists()
    (tmp_path / "c" / "thesis.tex").write_text("mine")
    own.remove()
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["thesis.tex"]


def test_nothing_is_kept_where_nothing_is_wanted(monkeypatch, capsys, tmp_path, counts):
    counts.write_h5ad(tmp_path / "in.h5ad")
    argv = ["--dataset", tmp_path / "in.h5ad", *SMALL, "--output", tmp_path / "out", "--seed", 1, "--epochs", 30]
    monkeypatch.setattr(results, "write", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    assert run(runSC, monkeypatch, capsys, *argv, "--checkpoint-every", 0)[0] == 143
    assert not (tmp_path / "out" / checkpoints.NAME).exists()


def test_resume_where_nothing_is_kept(monkeypatch, capsys, tmp_path, counts):
    """With nothing there, and with a folder of that name that is somebody else's."""
    counts.write_h5ad(tmp_path / "in.h5ad")
    argv = ["--dataset", tmp_path / "in.h5ad", *SMALL, "--output", tmp_path / "out", "--seed", 1, "--epochs", 3]
    assert run(runSC, monkeypatch, capsys, *argv, "--resume", "--checkpoint-every", 0)[0] == 0
    other = tmp_path / "out" / checkpoints.NAME / "seed_9.pt"
    other.parent.mkdir()
    other.write_text("not ours")
    assert run(runSC, monkeypatch, capsys, *argv, "--resume", "--checkpoint-every", 0)[0] == 0
    assert other.read_text() == "not ours"


def test_a_checkpoint_object_serves_two_runs(counts, fast, tmp_path):
    both = Checkpoints(tmp_path / "c", 4, resume=True)
    results = [pipeline.find_cell_types(counts.copy(), checkpoints=both, **fast) for _ in range(2)]
    assert [run.cells.uns["scrcl"].get("resumed_from") for run in results] == [None, "the end of seed 5"]


def test_threads_after_ctrl_c_in_a_notebook(counts, fast, monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.optim.Adam, "step", interrupted)
    with limited_threads(2):
        with pytest.raises(KeyboardInterrupt):
            pipeline.find_cell_types(counts, **fast)
        assert torch.get_num_threads() == 2


@pytest.mark.parametrize("move", ["../victim", "/etc/victim", "a/b", "..", "", "c:\\victim", 3])
def test_moves_that_lead_elsewhere_are_refused(tmp_path, move):
    """A folder of results from somebody else must not remove or replace files when it is read."""
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "out" / FINISHED).mkdir(parents=True)
    for moves in ({"move": [], "remove": [move]}, {"move": [move], "remove": []}):
        (tmp_path / "out" / FINISHED / folders.MOVES).write_text(json.dumps(moves))
        with pytest.raises(UserError, match="is not of a run"):
            results.read_run(tmp_path / "out")
    assert (tmp_path / "victim").exists()


def test_a_config_yaml_of_ones_own_is_no_earlier_run(monkeypatch, capsys, tmp_path, counts):
    counts.write_h5ad(tmp_path / "in.h5ad")
    (tmp_path / "config.yaml").write_text("# my own settings\nepochs: 3\n")
    argv = ["--dataset", tmp_path / "in.h5ad", "--config", tmp_path / "config.yaml", "--output", tmp_path]
    code, _, err = run(runSC, monkeypatch, capsys, *argv, *SMALL, "--seed", 1)
    assert code == 2 and "has a config.yaml that is not of an earlier run" in err
    assert (tmp_path / "config.yaml").read_text().startswith("# my own")


@pytest.mark.parametrize(("name", "says"), [("x" * 300, "cannot be written"), ("a\0b", "output does not take")])
def test_impossible_folders(monkeypatch, capsys, tmp_path, counts, name, says):
    counts.write_h5ad(tmp_path / "in.h5ad")
    code, _, err = run(runSC, monkeypatch, capsys, "--dataset", tmp_path / "in.h5ad", "--output", f"{tmp_path}/{name}")
    assert code == 2 and says in err
    assert run(draw_DEGs, monkeypatch, capsys, "--dataset", f"{tmp_path}/{name}")[0] == 2


def test_genes_of_a_run_that_was_replaced_meanwhile(monkeypatch, capsys, tmp_path, counts):
    counts.write_h5ad(tmp_path / "in.h5ad")
    argv = ["--dataset", tmp_path / "in.h5ad", *SMALL, "--output", tmp_path / "out", "--epochs", 3]
    assert run(runSC, monkeypatch, capsys, *argv, "--seed", 1)[0] == 0
    find = degs.labelled.find

    def slow(settings):
        found = find(settings)
        assert run(runSC, monkeypatch, capsys, *argv, "--seed", 2)[0] == 0
        return found

    monkeypatch.setattr(degs.labelled, "find", slow)
    code, _, err = run(draw_DEGs, monkeypatch, capsys, "--dataset", tmp_path / "out")
    assert code == 2 and "was replaced by another meanwhile" in err and not (tmp_path / "out" / "markers.csv").exists()


# Whole runs in processes of their own


@pytest.fixture(scope="module")
def server():
    """Starts processes that have all modules imported already."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["test_survival"])
    yield context
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


def work(script: str, argv: list, log: str) -> None:
    """Run a script as its command does, its output in a file."""
    sys.argv = [script, *map(str, argv)]
    with open(log, "a", buffering=1) as file, redirect_stdout(file), redirect_stderr(file):
        code = run_script(import_module(script).main)
    sys.exit(code)


def start(server, script: str, *argv, log: Path) -> multiprocessing.Process:
    process = server.Process(target=work, args=(script, list(argv), str(log)))
    process.start()
    return process


def read_consistent(folder: Path) -> dict | None:
    """The run in folder with all its files read, and that they belong together; None where there is none yet."""
    run = results.read_run(folder)
    if run is None:
        assert not set(results.FILES) & {path.name for path in folder.glob("*")}
        return None
    seeds = [f"seed_{seed}" for seed in run.settings["seeds"]]
    labels = pd.read_csv(folder / "labels.csv", dtype=str)
    assert list(labels) == ["barcode", *seeds, "scrcl_confidence", "scrcl"] and labels["scrcl"].notna().all()
    saved = ad.read_h5ad(folder / "result.h5ad")
    assert set(saved.uns["scrcl"]["params"]["seeds"]) == set(run.settings["seeds"])
    assert (saved.obs["scrcl"].astype(str).to_numpy() == labels["scrcl"]).all()
    epochs = [json.loads(line)["seed"] for line in (folder / "log.jsonl").read_text().splitlines()]
    assert {f"seed_{seed}" for seed in epochs} == set(seeds)
    assert set(run.metrics["n_clusters_found"]) == {*seeds, "scrcl"}
    torch.load(folder / "model.pt", weights_only=True)
    return run.settings


def test_kill_9_at_random_moments(server, tmp_path, counts):
    """Every kill leaves the earlier run whole; at the end --resume has arrived where an undisturbed run does."""
    counts.write_h5ad(tmp_path / "in.h5ad")
    out, log = tmp_path / "out", tmp_path / "log"
    argv = ["--dataset", tmp_path / "in.h5ad", "--threads", 1, "--checkpoint-every", 5, *SMALL]
    earlier = start(server, "runSC", *argv, "--output", out, "--seed", 99, "--epochs", 5, log=log)
    earlier.join()
    assert earlier.exitcode == 0 and read_consistent(out)["seeds"] == [99]
    asked = [*argv, "--seeds", 1, 2, "--epochs", 150]
    started = time.perf_counter()
    undisturbed = start(server, "runSC", *asked, "--output", tmp_path / "undisturbed", log=log)
    undisturbed.join()
    duration = time.perf_counter() - started
    moments, n_killed, finished = random.Random(0), 0, False
    while n_killed < N_KILLS or not finished:
        if finished:  # too fast: once more from the start
            start(server, "runSC", *argv, "--output", out, "--seed", 99, "--epochs", 5, log=log).join()
        process = start(server, "runSC", *asked, "--output", out, "--resume", log=log)
        process.join(moments.uniform(0, duration) if n_killed < N_KILLS else None)
        finished = process.exitcode == 0
        if process.exitcode is None:
            process.kill()
            process.join()
            n_killed += 1
        assert process.exitcode in (0, -signal.SIGKILL), log.read_text()[-2000:]
        assert read_consistent(out)["seeds"] in (([1, 2],) if finished else ([99], [1, 2]))
    assert (out / "labels.csv").read_bytes() == (tmp_path / "undisturbed" / "labels.csv").read_bytes()
    assert (out / "log.jsonl").read_bytes() == (tmp_path / "undisturbed" / "log.jsonl").read_bytes()
    assert {path.name for path in out.iterdir()} == set(results.FILES)
    assert "Going on from epoch" in log.read_text()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_leave_a_checkpoint(server, tmp_path, counts, number, code):
    counts.write_h5ad(tmp_path / "in.h5ad")
    out, log = tmp_path / "out", tmp_path / "log"
    argv = ["--dataset", tmp_path / "in.h5ad", "--checkpoint-every", 10_000, "--epochs", 3000, "--seed", 1]
    process = start(server, "runSC", *argv, *SMALL, "--output", out, log=log)
    while process.is_alive() and not (out / "log.unfinished.jsonl").exists():
        time.sleep(0.02)
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == code, log.read_text()
    assert "the same command with --resume goes on from it" in log.read_text() and "Traceback" not in log.read_text()
    state = torch.load(out / checkpoints.NAME / checkpoints.TRAINING, weights_only=True)
    assert 0 < state["epoch"] < 3000 and state["epoch"] % 10_000
    assert {path.name for path in out.iterdir()} == {checkpoints.NAME, "log.unfinished.jsonl"}


def test_two_runs_into_one_folder(server, monkeypatch, capsys, tmp_path, counts):
    counts.write_h5ad(tmp_path / "in.h5ad")
    out, log = tmp_path / "out", tmp_path / "log"
    argv = ["--dataset", tmp_path / "in.h5ad", *SMALL, "--output", out, "--seed", 1]
    first = start(server, "runSC", *argv, "--epochs", 3000, log=log)
    while first.is_alive() and not (out / "log.unfinished.jsonl").exists():
        time.sleep(0.02)
    code, _, err = run(runSC, monkeypatch, capsys, *argv, "--epochs", 3)
    first.kill()
    assert code == 2 and f"Another run is writing to {out}; wait for its end" in err


def test_resume_without_a_checkpoint_and_config_yaml_of_a_resumed_run(monkeypatch, capsys, caplog, tmp_path, counts):
    counts.write_h5ad(tmp_path / "in.h5ad")
    argv = ["--dataset", tmp_path / "in.h5ad", *SMALL, "--output", tmp_path / "out", "--seed", 1, "--epochs", 3]
    assert run(runSC, monkeypatch, capsys, *argv, "--resume")[0] == 0
    assert "no checkpoint in" in caplog.text
    assert yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())["settings"]["resume"] is False


# Full disks

FULL = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
sys.argv = {argv!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("limit", [2_000, 100_000])
def test_a_limit_to_the_size_of_files(tmp_path, counts, limit):
    """Met by the first checkpoint, or only by the result."""
    counts.write_h5ad(tmp_path / "in.h5ad")
    out = tmp_path / "out"
    argv = [ROOT / "runSC.py", "--dataset", tmp_path / "in.h5ad", *SMALL, "--output", out, "--seed", 1, "--epochs", 12]
    argv = [str(value) for value in argv]
    assert subprocess.run([sys.executable, *argv], capture_output=True).returncode == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    done = subprocess.run(
        [sys.executable, "-c", FULL.format(limit=limit, argv=argv)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert "could not be written" in done.stderr and "File too large" in done.stderr
    after = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    assert {name: content for name, content in after.items() if name != "log.unfinished.jsonl"} == before


def mounted(folder: Path, mebibytes: int) -> bool:
    """Whether a small file system in memory could be put at folder (only root may)."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(folder)]
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def test_a_full_disk(monkeypatch, capsys, tmp_path, counts):
    counts.write_h5ad(tmp_path / "in.h5ad")
    disk = tmp_path / "disk"
    if not mounted(disk, 2):
        pytest.skip("mounting takes root")
    try:
        argv = ["--dataset", tmp_path / "in.h5ad", *SMALL, "--output", disk / "out", "--epochs", 12]
        assert run(runSC, monkeypatch, capsys, *argv, "--seed", 1)[0] == 0
        before = {path.name: path.read_bytes() for path in (disk / "out").iterdir()}
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        (disk / "filler").write_bytes(bytes(free - 20_000))
        code, _, err = run(runSC, monkeypatch, capsys, *argv, "--seed", 2)
        assert code == 2 and "No space left on device" in err and "Traceback" not in err
        after = {path.name: path.read_bytes() for path in (disk / "out").iterdir() if path.is_file()}
        after.pop("log.unfinished.jsonl", None)
        assert after == before
        (disk / "filler").unlink()
        assert run(runSC, monkeypatch, capsys, *argv, "--seed", 2, "--resume")[0] == 0
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_too_little_memory_is_said_in_one_sentence(capsys):
    def fail() -> None:
        raise MemoryError("Unable to allocate 8 TiB")

    assert run_script(fail) == 2 and "There is not enough memory (Unable to allocate 8 TiB)" in capsys.readouterr().err
