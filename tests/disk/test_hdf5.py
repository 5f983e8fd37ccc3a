"""Damage that crashes the HDF5 library is found out in a child, and said in a sentence."""

from __future__ import annotations

import h5py
import pytest
from conftest import simulate

from scrcl.disk import hdf5
from scrcl.messages import UserError
from scrcl.readers import h5ad


def test_damage_that_only_a_child_survives(tmp_path, monkeypatch, caplog):
    """Stands for HDF5: a child that crashes, never ends, or cannot be started."""
    path = tmp_path / "in.h5ad"
    simulate(20, 5).write_h5ad(path)
    assert hdf5.damage(path) is None
    hdf5._damage.cache_clear()
    script = tmp_path / "child.py"
    monkeypatch.setattr(hdf5, "__file__", str(script))
    script.write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    with pytest.raises(UserError, match="is damaged: reading it crashes the HDF5 library, code -11"):
        h5ad.read(path)
    monkeypatch.setattr(hdf5, "PATIENCE", 1)
    script.write_text("while True: pass")
    hdf5._damage.cache_clear()
    assert hdf5.damage(path) == "reading it never comes to an end"
    script.write_text("import no_such_module")
    hdf5._damage.cache_clear()
    assert hdf5.damage(path) is None and "could not be found out" in caplog.text


def test_names_at_the_top(tmp_path):
    path = tmp_path / "in.h5"
    with h5py.File(path, "w") as file:
        file.create_group("obs")
        file.create_group(b"\xff")  # no UTF-8
    assert hdf5.names(path) == {"obs", "\N{REPLACEMENT CHARACTER}"}
    path.write_bytes(path.read_bytes()[:200])
    (tmp_path / "text").write_text("no HDF5")
    assert hdf5.names(path) == hdf5.names(tmp_path / "text") == hdf5.names(tmp_path) == frozenset()
