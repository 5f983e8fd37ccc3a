"""What doctor.py finds wrong, and that it finds nothing wrong here."""

from __future__ import annotations

import json

import pytest
from conftest import run, simulate

import doctor
import results
import sources


@pytest.fixture
def place(monkeypatch, tmp_path):
    """A folder of data sets, and one of results, that are this test's own."""
    for name in ("scdata", "stdata", "results"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(sources, "FOLDER", tmp_path)
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    return tmp_path


def test_nothing_is_wrong(monkeypatch, capsys, place):
    simulate(20, 10).write_h5ad(place / "scdata" / "Zeisel.h5ad")
    code, out, err = run(doctor, monkeypatch, capsys)
    assert code == 0 and err == "" and out.strip().endswith("Nothing is wrong.")
    shown = {line.split("  ")[0]: line.split()[-1] for line in out.splitlines() if line[:3] in ("SC ", "ST ")}
    assert shown["SC Zeisel"] == "present" and shown["SC li_tumor"] == "missing" and shown["ST 151673"] == "missing"


def test_damaged_data_sets(monkeypatch, capsys, place):
    path = place / "scdata" / "Zeisel.h5ad"
    simulate(20, 10).write_h5ad(path)
    record = sources.Checksums(place)
    record.add_file(path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    (place / "scdata" / "li_tumor.h5ad").write_bytes(b"not found")
    code, out, err = run(doctor, monkeypatch, capsys)
    assert code == 2 and err == "Error: 1 of these need attention: SC li_tumor.\n"
    code, out, err = run(doctor, monkeypatch, capsys, "--checksums")
    assert code == 2 and "2 of these need attention: SC li_tumor, SC Zeisel." in err
    assert "fetch.py Zeisel replaces it" in out and json.loads((place / "checksums.json").read_text())


def test_packages(tmp_path):
    path = tmp_path / "requirements.txt"
    path.write_text("# a comment\nnumpy<1  # too new\nno-such-package\nscipy\n")
    numpy, absent, scipy = doctor.requirements(path)
    assert "<1 is needed" in numpy.wrong and absent.found == "not installed" and absent.wrong and not scipy.wrong


def test_folders_that_cannot_be_written(monkeypatch, capsys, place):
    monkeypatch.setattr(results, "RESULTS", place / "nowhere")
    code, out, err = run(doctor, monkeypatch, capsys)
    assert code == 2 and "No such file or directory" in out and "nowhere" in err
