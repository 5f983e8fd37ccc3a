"""What registry.yaml holds, and what is said of files that are there."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import run, simulate

from scrcl.published import conversions, registry
from scrcl.settings import PAPER


def test_every_set_with_published_settings_can_be_fetched():
    for task in ("SC", "ST"):
        of_task = {name for name, its_task in registry.known().items() if its_task == task}
        assert {path.stem for path in (PAPER / task).glob("*.yaml")} - {"any"} <= of_task
    for entry in registry.registry().values():
        assert entry.how and all(entry.required()) and (not entry.make or entry.make in conversions.CONVERSIONS)
        assert all("{" not in text for text in (*entry.products(), entry.origin, entry.by_hand(Path())))
    assert registry.command("Zeisel") == "python -m scrcl fetch Zeisel"


@pytest.mark.parametrize(
    ("content", "status"),
    [(b"", "damaged"), (b"<html>", "damaged"), (bytes(300_000), "damaged"), (None, "missing")],
)
def test_status_of_files_put_there_by_hand(tmp_path, content, status):
    path = tmp_path / "scdata" / "Zeisel.h5ad"
    path.parent.mkdir()
    if content is not None:
        path.write_bytes(content)
    assert registry.status("Zeisel", tmp_path) == status
    simulate(20, 10).write_h5ad(path)
    assert registry.status("Zeisel", tmp_path) == "present"
    path.write_bytes(path.read_bytes()[:-100])
    assert registry.status("Zeisel", tmp_path) == "damaged"  # cut off


@pytest.mark.parametrize("place", ["DLPFC/151673/counts.h5ad", "151673/spatial/tissue_positions.csv", "151673.h5ad"])
def test_status_of_other_files_under_the_name(tmp_path, place):
    path = tmp_path / "stdata" / place
    path.parent.mkdir(parents=True)
    path.write_bytes(b"something")
    assert registry.status("151673", tmp_path) == "by hand"
    assert registry.status("151674", tmp_path) == "missing"


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("x.png", b"\x89PNG...", None),
        ("x.png", b"not found", "is no png file"),
        ("x.csv", b" <!DOCTYPE html>", "is a web page"),
        ("x.csv", b"a,b", None),
    ],
)
def test_faults_of_other_files(tmp_path, name, content, fault):
    (tmp_path / name).write_bytes(content)
    assert registry.fault(tmp_path / name) == fault


def test_checksums_that_cannot_be_read(tmp_path, capsys):
    (tmp_path / "checksums.json").write_text("[]")
    code, _, err = run("fetch", capsys, "Zeisel", "--folder", tmp_path)
    assert code == 2 and "checksums.json cannot be read" in err
