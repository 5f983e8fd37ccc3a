"""Datasets packed in threads: what HDF5 packs and unpacks itself."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from scrcl.disk import packed_hdf5


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.int64])
@pytest.mark.parametrize("n", [0, 1, 9, 10, 95])
def test_packed_values_are_read_back_and_take_what_hdf5_takes(dtype, n, tmp_path, monkeypatch):
    monkeypatch.setattr(packed_hdf5, "CHUNK", 10)
    values = np.random.default_rng(0).integers(0, 9, n).astype(dtype)
    with h5py.File(tmp_path / "in.h5", "w") as file:
        packed_hdf5.write_packed(file, "ours", values, 3)
        how = {"compression": "gzip", "compression_opts": 1, "shuffle": True, "chunks": (10,), "maxshape": (None,)}
        file.create_dataset("theirs", data=values, **how)
    with h5py.File(tmp_path / "in.h5") as file:
        ours, theirs = file["ours"], file["theirs"]
        assert ours.dtype == dtype and np.array_equal(ours[:], values)
        assert ours.maxshape == theirs.maxshape and ours.id.get_storage_size() == theirs.id.get_storage_size()
        if n:
            assert (ours.compression, ours.compression_opts, ours.shuffle) == ("gzip", 1, True)
