"""What is left of a whole run that is killed, terminated, resumed, doubled, or meets a full disk."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import anndata as ad
import pandas as pd
import pytest
import torch
import yaml
from conftest import ROOT, run

from scrcl.commands import files, ranking, results, script
from scrcl.disk import checkpoints

SMALL = ["--hidden", 16, "--n-top-genes", 60, "--n-pcs", 10, "--no-figures", "--plateau", 0]
N_KILLS = int(os.environ.get("SCRCL_KILLS", 12))  # docs/RELIABILITY.md is of 30


def test_nothing_is_kept_where_nothing_is_wanted(monkeypatch, capsys, tmp_path, counts):
    counts.write_h5ad(tmp_path / "in.h5ad")
    argv = ["--dataset", tmp_path / "in.h5ad", *SMALL, "--output", tmp_path / "out", "--seed", 1, "--epochs", 30]
    monkeypatch.setattr(results, "write", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    assert run("cells", capsys, *argv, "--checkpoint-every", 0)[0] == 143
    assert not (tmp_path / "out" / checkpoints.NAME).exists()


def test_resume_where_nothing_is_kept(capsys, tmp_path, counts):
    """With nothing there, and with a folder of that name that is somebody else's."""
    counts.write_h5ad(tmp_path / "in.h5ad")
    argv = ["--dataset", tmp_path / "in.h5ad", *SMALL, "--output", tmp_path / "out", "--seed", 1, "--epochs", 3]
    assert run("cells", capsys, *argv, "--resume", "--checkpoint-every", 0)[0] == 0
    other = tmp_path / "out" / checkpoints.NAME / "seed_9.pt"
    other.parent.mkdir()
    other.write_text("not ours")
    assert run("cells", capsys, *argv, "--resume", "--checkpoint-every", 0)[0] == 0
    assert other.read_text() == "not ours"


def test_a_config_yaml_of_ones_own_is_no_earlier_run(capsys, tmp_path, counts):
    counts.write_h5ad(tmp_path / "in.h5ad")
    (tmp_path / "config.yaml").write_text("# my own settings\nepochs: 3\n")
    argv = ["--dataset", tmp_path / "in.h5ad", "--config", tmp_path / "config.yaml", "--output", tmp_path]
    code, _, err = run("cells", capsys, *argv, *SMALL, "--seed", 1)
    assert code == 2 and re.search("config.yaml.* earlier run.*; choose another with --output", err)
    assert (tmp_path / "config.yaml").read_text().startswith("# my own")


@pytest.mark.parametrize(("name", "says"), [("x" * 300, "cannot be written"), ("a\0b", "output does not take")])
def test_impossible_folders(capsys, tmp_path, counts, name, says):
    counts.write_h5ad(tmp_path / "in.h5ad")
    code, _, err = run("cells", capsys, "--dataset", tmp_path / "in.h5ad", "--output", f"{tmp_path}/{name}")
    assert code == 2 and says in err
    assert run("markers", capsys, "--dataset", f"{tmp_path}/{name}")[0] == 2


def test_genes_of_a_run_that_was_replaced_meanwhile(monkeypatch, capsys, tmp_path, counts):
    counts.write_h5ad(tmp_path / "in.h5ad")
    argv = ["--dataset", tmp_path / "in.h5ad", *SMALL, "--output", tmp_path / "out", "--epochs", 3]
    assert run("cells", capsys, *argv, "--seed", 1)[0] == 0
    find = ranking.labelled.find

    def slow(settings):
        found = find(settings)
        assert run("cells", capsys, *argv, "--seed", 2)[0] == 0
        return found

    monkeypatch.setattr(ranking.labelled, "find", slow)
    code, _, err = run("markers", capsys, "--dataset", tmp_path / "out")
    assert code == 2 and "was replaced by another" in err and not (tmp_path / "out" / "markers.csv").exists()


def work(command: str, argv: list, log: str) -> None:
    """Run a command, its output in a file."""
    with open(log, "a", buffering=1) as file, redirect_stdout(file), redirect_stderr(file):
        code = script.run(command, [str(word) for word in argv], f"scrcl {command}")
    sys.exit(code)


def start(server, command: str, *argv, log: Path) -> multiprocessing.Process:
    process = server.Process(target=work, args=(command, list(argv), str(log)))
    process.start()
    return process


def read_consistent(folder: Path) -> dict | None:
    """The run in folder with all its files read, and that they belong together; None where there is none yet."""
    found = results.read_run(folder)
    if found is None:
        assert not set(files.RESULTS) & {path.name for path in folder.glob("*")}
        return None
    seeds = [f"seed_{seed}" for seed in found.settings["seeds"]]
    labels = pd.read_csv(folder / "labels.csv", dtype=str)
    assert list(labels) == ["barcode", *seeds, "scrcl_confidence", "scrcl"] and labels["scrcl"].notna().all()
    saved = ad.read_h5ad(folder / "result.h5ad")
    assert set(saved.uns["scrcl"]["params"]["seeds"]) == set(found.settings["seeds"])
    assert (saved.obs["scrcl"].astype(str).to_numpy() == labels["scrcl"]).all()
    epochs = [json.loads(line)["seed"] for line in (folder / "log.jsonl").read_text().splitlines()]
    assert {f"seed_{seed}" for seed in epochs} == set(seeds)
    assert set(found.metrics["n_clusters_found"]) == {*seeds, "scrcl"}
    torch.load(folder / "model.pt", weights_only=True)
    return found.settings


def test_kill_9_at_random_moments(server, tmp_path, counts):
    """Every kill leaves the earlier run whole; at the end --resume has arrived where an undisturbed run does."""
    counts.write_h5ad(tmp_path / "in.h5ad")
    out, log = tmp_path / "out", tmp_path / "log"
    argv = ["--dataset", tmp_path / "in.h5ad", "--threads", 1, "--checkpoint-every", 5, *SMALL]
    earlier = start(server, "cells", *argv, "--output", out, "--seed", 99, "--epochs", 5, log=log)
    earlier.join()
    assert earlier.exitcode == 0 and read_consistent(out)["seeds"] == [99]
    asked = [*argv, "--seeds", 1, 2, "--epochs", 150]
    started = time.perf_counter()
    undisturbed = start(server, "cells", *asked, "--output", tmp_path / "undisturbed", log=log)
    undisturbed.join()
    duration = time.perf_counter() - started
    in_training = start(server, "cells", *asked, "--output", out, log=log)  # one kill that is sure to be in training
    while not (out / "checkpoint" / "training.pt").exists():
        time.sleep(0.001)
    in_training.kill()
    in_training.join()
    assert read_consistent(out)["seeds"] == [99]
    moments, n_killed, finished = random.Random(0), 0, False
    while n_killed < N_KILLS or not finished:
        if finished:  # too fast: once more from the start
            start(server, "cells", *argv, "--output", out, "--seed", 99, "--epochs", 5, log=log).join()
        process = start(server, "cells", *asked, "--output", out, "--resume", log=log)
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
    assert {path.name for path in out.iterdir()} == set(files.RESULTS)
    assert re.search(r"from epoch \d+ of seed", log.read_text())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_leave_a_checkpoint(server, tmp_path, counts, number, code):
    counts.write_h5ad(tmp_path / "in.h5ad")
    out, log = tmp_path / "out", tmp_path / "log"
    argv = ["--dataset", tmp_path / "in.h5ad", "--checkpoint-every", 10_000, "--epochs", 3000, "--seed", 1]
    process = start(server, "cells", *argv, *SMALL, "--output", out, log=log)
    while process.is_alive() and not (out / "log.unfinished.jsonl").exists():
        time.sleep(0.02)
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == code, log.read_text()
    said = log.read_text()
    assert str(out / checkpoints.NAME) in said and "with --resume" in said and "Traceback" not in said
    state = torch.load(out / checkpoints.NAME / checkpoints.TRAINING, weights_only=True)
    assert 0 < state["epoch"] < 3000 and state["epoch"] % 10_000
    assert {path.name for path in out.iterdir()} == {checkpoints.NAME, "log.unfinished.jsonl"}


def test_two_runs_into_one_folder(server, capsys, tmp_path, counts):
    counts.write_h5ad(tmp_path / "in.h5ad")
    out, log = tmp_path / "out", tmp_path / "log"
    argv = ["--dataset", tmp_path / "in.h5ad", *SMALL, "--output", out, "--seed", 1]
    first = start(server, "cells", *argv, "--epochs", 3000, log=log)
    while first.is_alive() and not (out / "log.unfinished.jsonl").exists():
        time.sleep(0.02)
    code, _, err = run("cells", capsys, *argv, "--epochs", 3)
    first.kill()
    assert code == 2 and f"Another run is writing to {out}; wait for its end" in err


def test_resume_without_a_checkpoint_and_config_yaml_of_a_resumed_run(capsys, caplog, tmp_path, counts):
    counts.write_h5ad(tmp_path / "in.h5ad")
    argv = ["--dataset", tmp_path / "in.h5ad", *SMALL, "--output", tmp_path / "out", "--seed", 1, "--epochs", 3]
    assert run("cells", capsys, *argv, "--resume")[0] == 0
    assert "no checkpoint in" in caplog.text
    assert yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())["settings"]["resume"] is False


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


def test_a_full_disk(capsys, tmp_path, counts):
    counts.write_h5ad(tmp_path / "in.h5ad")
    disk = tmp_path / "disk"
    if not mounted(disk, 2):
        pytest.skip("mounting takes root")
    try:
        argv = ["--dataset", tmp_path / "in.h5ad", *SMALL, "--output", disk / "out", "--epochs", 12]
        assert run("cells", capsys, *argv, "--seed", 1)[0] == 0
        before = {path.name: path.read_bytes() for path in (disk / "out").iterdir()}
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        (disk / "filler").write_bytes(bytes(free - 20_000))
        code, _, err = run("cells", capsys, *argv, "--seed", 2)
        assert code == 2 and "No space left on device" in err and "Traceback" not in err
        after = {path.name: path.read_bytes() for path in (disk / "out").iterdir() if path.is_file()}
        after.pop("log.unfinished.jsonl", None)
        assert after == before
        (disk / "filler").unlink()
        assert run("cells", capsys, *argv, "--seed", 2, "--resume")[0] == 0
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("kind", [MemoryError, torch.OutOfMemoryError])
def test_too_little_memory_is_said_in_one_sentence(capsys, kind):
    def fail() -> None:
        raise kind("Unable to allocate 8 TiB\nand more that nobody needs")

    assert script.guarded(fail) == 2
    err = capsys.readouterr().err
    assert "There is not enough memory (Unable to allocate 8 TiB); use a larger" in err and err.count("\n") == 1


def test_what_is_no_bad_input_keeps_its_traceback():
    """A fault in the software itself must not look like one in the data."""

    def fail() -> None:
        raise RuntimeError("a fault")

    with pytest.raises(RuntimeError, match="a fault"):
        script.guarded(fail)


def test_the_collector_is_on_again_after_loading(monkeypatch):
    """Also after an import that fails; what was there before is frozen only where something was loaded."""
    before = gc.get_freeze_count()
    with script.loading():
        assert not gc.isenabled()
    assert gc.isenabled() and gc.get_freeze_count() == before
    with pytest.raises(ModuleNotFoundError), script.loading():
        monkeypatch.setitem(sys.modules, "something_large", sys)
        import no_such_module  # noqa: F401
    assert gc.isenabled() and gc.get_freeze_count() > before
    gc.unfreeze()
