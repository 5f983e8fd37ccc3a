"""Write packed datasets of HDF5 files in several threads."""

from __future__ import annotations

import zlib
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np

CHUNK = 2**16  # numbers that are packed together; HDF5 keeps so many unpacked ones for reading
LEVEL = 1  # of gzip


def write_packed(group: h5py.Group, name: str, values: np.ndarray, threads: int) -> None:
    """Write a dataset that is packed as by `compression="gzip", compression_opts=1, shuffle=True`, in several threads.

    HDF5 packs one chunk after the other.

    Parameters
    ----------
    group, name
        Where to write.
    values
        [n] numbers.
    threads
        How many pack at a time.
    """
    if not len(values):
        group.create_dataset(name, data=values, maxshape=(None,))
        return
    how = {"compression": "gzip", "compression_opts": LEVEL, "shuffle": True, "chunks": (CHUNK,)}
    dataset = group.create_dataset(name, len(values), values.dtype, maxshape=(None,), **how)
    starts = range(0, len(values), CHUNK)

    def packed(start: int) -> bytes:
        chunk = np.zeros(CHUNK, dtype=values.dtype)  # the last one is filled up, as HDF5 does
        part = values[start : start + CHUNK]
        chunk[: len(part)] = part
        # Shuffled: the first bytes of all numbers, then the second ones, and so on.
        return zlib.compress(chunk.view(np.uint8).reshape(CHUNK, -1).T.tobytes(), LEVEL)

    with ThreadPoolExecutor(threads) as pool:
        for start, bytes_of_chunk in zip(starts, pool.map(packed, starts)):
            dataset.id.write_direct_chunk((start,), bytes_of_chunk)
