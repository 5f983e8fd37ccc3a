"""What doctor finds wrong, and that it finds nothing wrong here."""

from __future__ import annotations

import tempfile
from importlib import metadata

import pytest
from conftest import run, simulate

from scrcl.commands import doctor
from scrcl.published.registry import Checksums


def test_nothing_is_wrong(capsys, tmp_path):
    (tmp_path / "datasets" / "scdata").mkdir(parents=True)
    simulate(20, 10).write_h5ad(tmp_path / "datasets" / "scdata" / "Zeisel.h5ad")
    code, out, err = run("doctor", capsys, at=tmp_path)
    assert code == 0 and err == "" and out.strip().endswith("Nothing is wrong.")
    shown = {line.split("  ")[0]: line.split()[-1] for line in out.splitlines() if line[:3] in ("SC ", "ST ")}
    assert shown["SC Zeisel"] == "present" and shown["SC li_tumor"] == "missing" and shown["ST 151673"] == "missing"
    assert list(tmp_path.iterdir()) == [tmp_path / "datasets"]  # nothing was made


def test_damaged_data_sets(capsys, tmp_path):
    folder = tmp_path / "datasets"
    path = folder / "scdata" / "Zeisel.h5ad"
    path.parent.mkdir(parents=True)
    simulate(20, 10).write_h5ad(path)
    Checksums(folder).add_file(path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    (folder / "scdata" / "li_tumor.h5ad").write_bytes(b"not found")
    code, out, err = run("doctor", capsys, at=tmp_path)
    assert code == 2 and err == "Error: 1 of these need attention: SC li_tumor.\n"
    code, out, err = run("doctor", capsys, "--checksums", at=tmp_path)
    assert code == 2 and "2 of these need attention: SC li_tumor, SC Zeisel." in err
    assert "python -m scrcl fetch Zeisel replaces it" in out


def test_packages_of_a_checkout(tmp_path, monkeypatch):
    path = tmp_path / "pyproject.toml"
    path.write_text('[project]\ndependencies = ["numpy<1", "no-such-package", "scipy"]\n')
    monkeypatch.setattr(doctor, "PROJECT", path)
    numpy, absent, scipy = doctor.packages()
    assert numpy.wrong == "<1 is needed: pip install -r requirements.txt" and not scipy.wrong
    assert absent.found == "not installed" and absent.wrong == "pip install -r requirements.txt"


def test_packages_of_an_installed_copy(tmp_path, monkeypatch):
    needs = ["numpy<1", "scipy", "no-such-package; extra == 'report'", "no-such-package; sys_platform == 'another'"]
    monkeypatch.setattr(doctor, "PROJECT", tmp_path / "pyproject.toml")
    monkeypatch.setattr(metadata, "requires", lambda name: {"scrcl": needs}[name])
    numpy, scipy = doctor.packages()
    assert numpy.wrong == "<1 is needed: pip install --upgrade scrcl" and not scipy.wrong


def test_folders_that_cannot_be_written(capsys, tmp_path):
    (tmp_path / "results").write_text("a file where a folder should be")
    code, out, err = run("doctor", capsys, at=tmp_path)
    assert code == 2 and "Not a directory" in out and f"attention: {tmp_path / 'results'}." in err


@pytest.mark.parametrize("there", [True, False])
def test_folders_are_shown_without_the_users_name(monkeypatch, tmp_path, there):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(doctor.home, "home", lambda: tmp_path / "cells")
    if there:
        (tmp_path / "cells" / "results").mkdir(parents=True)
    results, *_, temporary = doctor.folders()
    assert results.what == "~/cells/results" and not results.wrong
    assert results.found.startswith("writable, " if there else "not there yet, can be made, ")
    assert temporary.what == doctor.without_home(tempfile.gettempdir())
