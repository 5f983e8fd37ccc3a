"""The machine that a run is on: time, memory, devices, threads, and versions.

torch is loaded only where it is needed.
"""

from __future__ import annotations

import ctypes
import gc
import hashlib
import platform
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from scrcl.messages import UserError
from scrcl.version import VERSION

if TYPE_CHECKING:
    import numpy as np
    import torch

Array = Any  # a numpy array, or a tensor of torch
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
LIBRARIES = (  # those that decide a result
    *("torch", "torch_geometric", "scanpy", "anndata", "numpy", "scipy", "pandas"),
    *("scikit-learn", "igraph", "pynndescent", "umap-learn"),
)


def has_faiss() -> bool:
    """Return whether faiss can be used, which then finds the neighbours of many cells."""
    try:
        return find_spec("faiss") is not None and hasattr(import_module("faiss"), "IndexIVFFlat")
    except Exception:  # built for other versions of its libraries, it raises many types
        return False


def versions() -> dict[str, str]:
    """Versions of this software, Python and the libraries that decide the result."""
    return {
        "scrcl": VERSION,
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
        **({"faiss": import_module("faiss").__version__} if has_faiss() else {}),
    }


def sha256(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of all files in a folder, in hexadecimal."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        listed = "\n".join(f"{file.relative_to(path).as_posix()} {sha256(file)}" for file in files)
        return hashlib.sha256(listed.encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


def peak_memory_gib(device: str) -> dict[str, float]:
    """Highest memory of this process so far in GiB: 'cpu' (where the system tells) and, on a card, 'cuda'."""
    peak = {}
    try:
        import resource  # not on Windows

        kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak["cpu"] = kib / (2**30 if sys.platform == "darwin" else 2**20)
    except ImportError:
        pass
    if device.startswith("cuda"):
        import torch

        peak["cuda"] = torch.cuda.max_memory_allocated(device) / 2**30
    return peak


def find_device(name: str) -> torch.device:
    """The torch device of that name; 'auto' is CUDA where there is one, else CPU.

    Raises
    ------
    UserError
        For a name that torch does not know, and for a device that is not on this machine.
    """
    import torch

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


def card_or_cpu(name: str) -> str:
    """The device of that name, as `find_device` takes it, where it is a CUDA card; else 'cpu'."""
    device = find_device(name)
    return str(device) if device.type == "cuda" else "cpu"


def to_device(array: np.ndarray, device: str) -> Array:
    """An array as a float64 tensor on a card, where its products need no care for rounding; as it is for 'cpu'."""
    if device == "cpu":
        return array
    import torch

    return torch.as_tensor(array, dtype=torch.float64, device=device)


def to_host(array: Array) -> np.ndarray:
    """What `to_device` returned, or was computed from it, as an array in main memory."""
    return array.cpu().numpy() if hasattr(array, "cpu") else array


def card_memory_gib(name: str) -> float:
    """Memory of the CUDA card of that name in GiB, as `find_device` takes it; 0 for every other device."""
    import torch

    device = find_device(name)
    return torch.cuda.get_device_properties(device).total_memory / 2**30 if device.type == "cuda" else 0.0


def _multiplies_sparse(device: torch.device) -> bool:
    import torch

    try:
        one = torch.ones(1, device=device)
        torch.sparse_csr_tensor([0, 1], [0], one, size=(1, 1), device=device) @ one[:, None]
    except (RuntimeError, NotImplementedError):
        return False
    return True


@contextmanager
def compiled_once(name: str) -> Iterator[ModuleType]:
    """Use umap or pynndescent so that numba keeps on disk what it compiles of them, for later runs.

    They ask for that in a few places only, and compiling takes 7 seconds of every run that draws a UMAP, and more of
    every approximate search, however few the cells.

    Parameters
    ----------
    name
        The library. If it was imported before, nothing changes.

    Yields
    ------
    The library.
    """
    library = _imported_cached(name)
    with warnings.catch_warnings():  # two functions of pynndescent are compiled every time
        warnings.filterwarnings("ignore", message="Cannot cache compiled function")
        yield library


def _imported_cached(name: str) -> ModuleType:
    """Import a library with `cache=True` for all functions that numba compiles of it."""
    import numba

    before, plain = set(sys.modules), numba.njit
    numba.njit = partial(plain, cache=True)  # type: ignore[assignment]  # for this import alone
    try:
        return import_module(name)
    except RuntimeError:  # there is no folder that numba may write to
        for begun in set(sys.modules) - before:
            if begun.partition(".")[0] in (name, "pynndescent"):  # which umap imports
                del sys.modules[begun]
    finally:
        numba.njit = plain
    return import_module(name)


def compiled_by_numba(function: Callable[..., Any]) -> Callable[..., Any]:
    """Have numba compile a function when it is first called, and keep that on disk where it may write."""
    import numba

    compiles = partial(numba.njit, nogil=True, error_model="numpy", fastmath={"contract"})
    try:
        return compiles(cache=True)(function)
    except RuntimeError:  # there is no folder that numba may write to
        return compiles()(function)


def release_memory() -> None:
    """Give freed memory back to the system, where the C library keeps it for later; large searches leave gigabytes."""
    gc.collect()  # pynndescent's index holds on to itself
    with suppress(OSError, AttributeError):  # not Linux with glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def keep_freed_memory() -> None:
    """Let arrays of up to 32 MiB take the place of freed ones.

    The system clears every page that it hands out, which takes longer than filling it.
    """
    with suppress(OSError, AttributeError):  # not Linux with glibc
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(M_MMAP_THRESHOLD, 2**25)  # the most it takes; larger arrays go back to the system at once
        mallopt(M_TRIM_THRESHOLD, 2**30)


@contextmanager
def tf32_products(device: torch.device, wanted: bool) -> Iterator[None]:
    """Whether float32 matrix products are taken in TF32 meanwhile: 10 bits of mantissa in place of 23, sums in float32.

    Raises
    ------
    UserError
        Where it is wanted on a device without it.
    """
    if wanted and device.type != "cuda":
        raise UserError(f"--tf32 is for CUDA cards, and this run is on {device}; leave it out.")
    with products_in("tf32") if wanted else nullcontext():
        yield


@contextmanager
def products_in(precision: str) -> Iterator[None]:
    """Take float32 matrix products of CUDA cards in 'tf32' or in full ('ieee') meanwhile."""
    import torch

    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = precision
    try:
        yield
    finally:
        torch.backends.cuda.matmul.fp32_precision = before


@contextmanager
def sparse_tensors_expected() -> Iterator[None]:
    """Leave out torch's warnings at first use, that CSR is in beta and, on a card, that checks are off."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
        warnings.filterwarnings("ignore", message="Sparse invariant checks are implicitly disabled")
        yield


@contextmanager
def limited_threads(threads: int) -> Iterator[None]:
    """Use that many CPU threads in torch, numba, BLAS and OpenMP; 0 leaves them as they are."""
    if threads == 0:
        yield
        return
    import numba
    import torch
    from threadpoolctl import threadpool_limits

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
