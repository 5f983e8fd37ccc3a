"""Read a data set that a user names, from a file or folder, or one of the two that need no file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scrcl.messages import UserError, log, show_messages
from scrcl.readers.formats import Task

if TYPE_CHECKING:
    import anndata as ad


@dataclass(frozen=True)
class Source:
    """A data set that was found, and how to read it.

    Attributes
    ----------
    name
        The name its results are filed under.
    path
        Its file or folder; None for a data set that needs no file.
    files
        The files of `path` that decide what is read.
    read
        A function that reads it.
    """

    name: str
    path: Path | None
    files: tuple[Path, ...]
    read: Callable[[], ad.AnnData]


def read(dataset: str | Path, *, annotation: str | Path = "auto") -> ad.AnnData:
    """Read any data set that the scripts can read.

    Parameters
    ----------
    dataset
        A path (a file or folder of any format that docs/INPUT.md lists), a name in `datasets/scdata` or
        `datasets/stdata` of the working folder, 'pbmc68k_reduced' (700 real cells that come with scanpy) or 'demo' (a
        simulated tissue).
    annotation
        For spots: a table of known labels, joined by barcode; 'auto' is metadata.tsv or metadata.csv in a Visium
        folder, 'none' is no table.

    Returns
    -------
    Cells or spots x genes. A Visium folder gives squidpy's keys: obsm['spatial'], uns['spatial'], obs['in_tissue'].

    Raises
    ------
    UserError
        When there is no such data set, or it cannot be read.
    """
    show_messages()
    try:  # tissue first, since that task reads every format
        found = source(str(dataset), "ST", str(annotation))
    except UserError:
        found = source(str(dataset), "SC")
    return found.read()


def source(dataset: str, task: Task, annotation: str = "auto", max_memory: float | None = None) -> Source:
    """Find a data set, and how to read it.

    Parameters
    ----------
    dataset
        A path or a name, as a user gives it.
    task
        SC for cells, ST for spots.
    annotation
        For spots, as for `read`.
    max_memory
        As for `scrcl.readers.h5ad.read`.

    Raises
    ------
    UserError
        When there is no such data set.
    """
    from scrcl.readers.find import dataset_name, find

    found, name = find(dataset, task), dataset_name(dataset)
    if found is None:
        if annotation not in ("auto", "none"):
            raise UserError("The simulated tissue has its own annotation; leave --annotation out.")
        return Source(name, None, (), _bundled if task == "SC" else _demo)
    path, reader = found
    if task == "SC":
        return Source(name, path, tuple(reader.files(path)), lambda: reader.read(path, name, max_memory))
    from scrcl.readers.annotation import annotate, annotation_table

    table = annotation_table(path, annotation)
    files = tuple(file for file in [*reader.files(path), table] if file is not None and file.exists())

    def read_spots() -> ad.AnnData:
        adata = reader.read(path, name, max_memory)
        annotate(adata, path, annotation)
        return adata

    return Source(name, path, files, read_spots)


def _bundled() -> ad.AnnData:
    """Return the cells that come with scanpy, with their known types in obs['cell_type']."""
    import scanpy as sc

    adata = sc.datasets.pbmc68k_reduced()
    adata.obs["cell_type"] = adata.obs["bulk_labels"]
    return adata


def _demo() -> ad.AnnData:
    """Return the simulated tissue, and log that it is simulated."""
    from scrcl.readers.simulated import layered_tissue

    log.info("These data are simulated: seven layers of a tissue that does not exist.")
    return layered_tissue()
