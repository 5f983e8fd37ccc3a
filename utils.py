"""Small helpers that every module may use: errors, logging, time and memory, devices, tables."""

from __future__ import annotations

import ctypes
import gc
import hashlib
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

# Matrix products of the same bits for any number of threads, as far as MKL can. It reads this when it is first used; it costs no time.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
# Threads that wait for others give up their core after some microseconds instead of some hundred: no slower alone, and where
# other programs want the cores, several times faster. Read by GNU's OpenMP when torch loads it.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import numba
import torch
from threadpoolctl import threadpool_limits

import interrupts

VERSION = "0.5.0"
HD_BINS = ("square_008um", "square_016um", "square_002um")  # in the order of 10x's own advice
SPACE_RANGER = ("outs", "binned_outputs", *HD_BINS)  # names of folders that say nothing about the sample
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h

log = logging.getLogger("scrcl")


class UserError(Exception):
    """Bad input, in one sentence: what is wrong, where, and what to do. Scripts exit with code 2."""


def one_line(error: Exception) -> str:
    """The first line of what an exception says, or its type where it says nothing."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def run_script(main: Callable[[], None]) -> int:
    """Run an entry script's main; its exit code: 0, 2 after one sentence on bad input, 130 after Ctrl-C, 143 after SIGTERM."""
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    log.setLevel(logging.INFO)
    try:
        with interrupts.handled():
            main()
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    except (MemoryError, torch.OutOfMemoryError) as error:
        print(
            f"Error: There is not enough memory ({one_line(error)}); use a larger machine or fewer cells.",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted. No half-written file is left.", file=sys.stderr)
        return 130
    except interrupts.Terminated:
        print("\nTerminated. No half-written file is left.", file=sys.stderr)
        return 143
    return 0


def natural_order(names: list[str]) -> list[str]:
    """Sorted with numbers as numbers: L2 before L10."""
    return sorted(
        names,
        key=lambda name: [(not p.isdecimal(), int(p) if p.isdecimal() else 0, p) for p in re.split(r"(\d+)", name)],
    )


class Stopwatch:
    """Wall-clock seconds per named stage; the same name adds up."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start


def peak_memory_gib(device: torch.device) -> dict[str, float]:
    """Highest memory of this process so far in GiB: 'cpu' (where the system tells) and 'cuda'."""
    peak = {}
    try:
        import resource  # not on Windows

        kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak["cpu"] = kib / (2**30 if sys.platform == "darwin" else 2**20)
    except ImportError:
        pass
    if device.type == "cuda":
        peak["cuda"] = torch.cuda.max_memory_allocated(device) / 2**30
    return peak


def find_device(name: str) -> torch.device:
    """The torch device of that name; 'auto' is CUDA where there is one, else CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"--device takes auto, cpu, cuda, cuda:1 or mps, not {name!r}.") from None
    present: dict[str, Callable[[], bool]] = {
        "cpu": lambda: device.index in (None, 0),
        "cuda": lambda: torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available,
    }
    if device.type not in present or not present[device.type]():
        raise UserError(f"The device {name!r} is not on this machine; use --device auto.")
    if device.type == "mps" and not _multiplies_sparse(device):
        raise UserError("This torch cannot multiply sparse matrices on mps yet; use --device cpu.")
    return device


def _multiplies_sparse(device: torch.device) -> bool:
    try:
        one = torch.ones(1, device=device)
        torch.sparse_csr_tensor([0, 1], [0], one, size=(1, 1), device=device) @ one[:, None]
    except (RuntimeError, NotImplementedError):
        return False
    return True


def release_memory() -> None:
    """Give freed memory back to the system, where the C library keeps it for later; large searches leave gigabytes."""
    gc.collect()  # pynndescent's index holds on to itself
    with suppress(OSError, AttributeError):  # not Linux with glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def keep_freed_memory() -> None:
    """Let arrays of up to 32 MiB take the place of freed ones: the system clears every page it hands out, which takes longer than filling it."""
    with suppress(OSError, AttributeError):  # not Linux with glibc
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(M_MMAP_THRESHOLD, 2**25)  # the most it takes; larger arrays go back to the system at once
        mallopt(M_TRIM_THRESHOLD, 2**30)


@contextmanager
def matrix_products(device: torch.device, tf32: bool) -> Iterator[None]:
    """Whether float32 matrix products are taken in TF32 meanwhile: 10 bits of mantissa in place of 23, sums in float32.

    Raises UserError for tf32 on a device without it.
    """
    if tf32 and device.type != "cuda":
        raise UserError(f"--tf32 is for CUDA cards, and this run is on {device}; leave it out.")
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = "tf32" if tf32 else before
    try:
        yield
    finally:
        torch.backends.cuda.matmul.fp32_precision = before


@contextmanager
def limited_threads(threads: int) -> Iterator[None]:
    """Use that many CPU threads in torch, numba, BLAS and OpenMP; 0 leaves them as they are."""
    if threads == 0:
        yield
        return
    before, before_numba = torch.get_num_threads(), numba.get_num_threads()
    torch.set_num_threads(threads)
    most: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]  # made when numba is imported
    numba.set_num_threads(min(threads, most))
    try:
        with threadpool_limits(threads):
            yield
    finally:
        torch.set_num_threads(before)
        numba.set_num_threads(before_numba)


def sample_folder(path: Path) -> Path:
    """The file or folder that is named after the sample: path, or what Space Ranger's own outs/ and the like are in."""
    if path.exists():
        path = path.resolve()
    while path.name in SPACE_RANGER:
        path = path.parent
    return path


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A plain-text table: first column left-aligned, the others right-aligned."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        return "  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths)))

    return "\n".join([line(header), "  ".join("-" * w for w in widths), *map(line, rows)])
