"""Where dask works on blocks of cells: on threads of this process, or on a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from scrcl.messages import UserError, log, one_line

CLUSTER = "dask.distributed"  # what dask's settings say when a client is connected
MOST_THREADS = 8  # each holds a block
PATIENCE = 30  # seconds until a scheduler must have answered


def on_cluster() -> bool:
    """Return whether dask works on a cluster."""
    import dask

    return dask.config.get("scheduler", None) == CLUSTER


def size() -> int:
    """Return how many threads work on blocks, here or on the cluster."""
    import dask

    if on_cluster():
        from distributed import default_client

        return sum(default_client().nthreads().values())
    return int(dask.config.get("num_workers", MOST_THREADS))


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Within the block, let dask work on so many threads, unless it works on a cluster or as its user has said."""
    import dask

    if dask.config.get("scheduler", None) is not None:
        yield
        return
    with dask.config.set(scheduler="threads", num_workers=min(number, MOST_THREADS)):
        yield


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Within the block, let dask work on the cluster whose scheduler has this address; 'none' for no cluster.

    Raises
    ------
    UserError
        When dask.distributed is missing, when no scheduler answers, and when it has no workers.
    """
    if address == "none":
        yield
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise UserError("--dask-scheduler needs dask.distributed; `pip install distributed`.") from error
    try:
        client = Client(address, timeout=PATIENCE)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"No dask scheduler answers at {address} ({one_line(error)}); start one with `dask scheduler`, "
            "or correct --dask-scheduler."
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=PATIENCE)
        except TimeoutError as error:
            raise UserError(
                f"The dask scheduler at {address} has no workers; start some with `dask worker {address}`."
            ) from error
        sizes = client.nthreads()
        log.info("Values are read by %d dask workers with %d threads.", len(sizes), sum(sizes.values()))
        yield
