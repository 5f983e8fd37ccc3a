"""What is left in a folder of results, whenever its process dies, and whoever else wants it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from scrcl.commands import results
from scrcl.disk import folders
from scrcl.disk.folders import FINISHED, LOCK, locked, staged
from scrcl.messages import UserError


def shown(folder: Path) -> dict[str, str]:
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
        seen.append(shown(folder))
        assert seen[-1] in (OLD, NEW), n
        write(folder, OLD)  # whatever was left is no obstacle, and is cleaned up
        assert shown(folder) == OLD and not [path for path in folder.iterdir() if path.name.startswith(".")]
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


HOLD = """
import sys, time
from pathlib import Path
from scrcl.disk.folders import locked
with locked(Path(sys.argv[1])):
    print("ready", flush=True)
    time.sleep(600)
"""


def test_a_lock_keeps_others_out_and_dies_with_its_owner(tmp_path):
    words = [sys.executable, "-c", HOLD, str(tmp_path / "out")]
    owner = subprocess.Popen(words, stdout=subprocess.PIPE, cwd=ROOT)
    assert owner.stdout.readline() == b"ready\n"
    with pytest.raises(UserError, match="Another run is writing to .*out"), locked(tmp_path / "out"):
        pass
    owner.kill()
    owner.communicate()
    with locked(tmp_path / "out"), locked(tmp_path / "out"):
        assert (tmp_path / "out" / LOCK).exists()
    assert not (tmp_path / "out" / LOCK).exists()


def test_a_new_folder_without_a_file_is_removed(tmp_path):
    with pytest.raises(ValueError), staged(tmp_path / "new", ("labels.csv",)):
        raise ValueError
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("move", ["../victim", "/etc/victim", "a/b", "..", "", "c:\\victim", 3])
def test_moves_that_lead_elsewhere_are_refused(tmp_path, move):
    """A folder of results from somebody else must not remove or replace files when it is read."""
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "out" / FINISHED).mkdir(parents=True)
    for moves in ({"move": [], "remove": [move]}, {"move": [move], "remove": []}):
        (tmp_path / "out" / FINISHED / folders.MOVES).write_text(json.dumps(moves))
        with pytest.raises(UserError, match="moves.json .* a run .*; remove .*out/.finished"):
            results.read_run(tmp_path / "out")
    assert (tmp_path / "victim").exists()
