"""Read what 10x Genomics' Cell Ranger writes: one matrix, the folder of a sample, or a folder of several samples."""

from __future__ import annotations

import re
from pathlib import Path

import anndata as ad

from scrcl.messages import log
from scrcl.readers.samples import join_samples
from scrcl.readers.tenx_matrix import Texts, entries, genomes, groups, read_matrix, texts
from scrcl.settings import sample_name

# What Cell Ranger calls every matrix; downloads put the name of the sample before it
KIND = re.compile(
    r"(^|[_.-])(?P<cells>filtered|raw)([_.-](?P<of>feature|gene|probe|peak|tf)_bc)?([_.-]matri(x|ces))?([_.-]h5)?$"
)
# Folders that say nothing about the sample: Cell Ranger's, of which the first holds all samples, and STARsolo's
INNER = ("per_sample_outs", "outs", "count", "Solo.out", "Gene", "GeneFull")
DEPTH = 2  # folders between the one that is named and those that INNER names, or a matrix


def locate(path: Path) -> Path | None:
    """Return a matrix that is named itself, or a folder that holds the matrices of one or more samples."""
    if path.is_dir():
        return path if _samples(path) else None
    return path if groups(path) or _beside(path) else None


def files(path: Path) -> list[Path]:
    """Return the files of all matrices that are read."""
    found: list[Path] = []
    for source in _samples(path).values():
        if isinstance(source, Path) and source.is_dir():
            parts = list(texts(source).values()) or list(genomes(source).values())
            found += [file for part in parts for file in part]
        else:
            found += source if isinstance(source, Texts) else [source]
    return found


def read(path: Path, name: str = "", max_memory: float | None = None) -> ad.AnnData:
    """Read the matrix of one sample, or those of several joined into one.

    All features are read. Where a sample has a filtered and a raw matrix, the filtered one is read.

    Parameters
    ----------
    path
        What `locate` returned.
    name, max_memory
        Not used: there are no images, and the values are read into memory.

    Returns
    -------
    Cells x features as from `read_matrix`. Several samples are told apart by obs['sample'].

    Raises
    ------
    UserError
        When a matrix is damaged, or the samples share no gene.
    """
    sources = _samples(path)
    for source in filter(_is_raw, sources.values()):
        log.warning("%s is a raw matrix, which has empty droplets beside the cells.", _place(source))
    samples = {sample: read_matrix(source) for sample, source in sources.items()}
    return join_samples(samples, path) if len(samples) > 1 else next(iter(samples.values()))


def _samples(path: Path) -> dict[str, Path | Texts]:
    """Return the matrix of every sample at a path, by the name of the sample."""
    if path.is_file():
        return {sample_name(path): _beside(path) or path}
    return {"_".join(names) or sample_name(path): source for names, source in _collect(path, DEPTH).items()}


def _place(source: Path | Texts) -> Path:
    """Return the file or folder of a matrix."""
    return source.matrix if isinstance(source, Texts) else source


def _is_raw(source: Path | Texts) -> bool:
    """Return whether a matrix is called raw, or is in a folder that is."""
    path = _place(source)
    kinds = (KIND.search(name) for name in (path.name.partition(".")[0], path.parent.name))
    return any(kind and kind["cells"] == "raw" for kind in kinds)


def _beside(path: Path) -> Texts | None:
    """Return the three files of the matrix that a text file holds, or None when it has no lists beside it."""
    return next((found for found in texts(path.parent).values() if found.matrix == path), None)


def _collect(folder: Path, depth: int) -> dict[tuple[str, ...], Path | Texts]:
    """Return the matrices in a folder and in the folders in it, by the names that tell them apart."""
    if (folder / "spatial").is_dir():  # a section of a tissue, which has a reader of its own
        return {}
    if set(texts(folder)) == {""} or ("gene_bc_matri" in folder.name and genomes(folder)):
        return {(): folder}
    inner = [folder / name for name in INNER if (folder / name).is_dir()]
    if inner and inner[0].name == INNER[0] and (found := _collect(inner[0], max(depth, 1))):
        return found
    if here := _here(folder, look_inside=depth == DEPTH):
        return {(name,) if name else (): source for name, source in here.items()}
    for place in inner:
        if found := _collect(place, depth):
            return found
    if depth == 0:
        return {}
    return {
        (child.name, *names): source
        for child in entries(folder)
        if child.is_dir() and child.suffix != ".zarr"
        for names, source in _collect(child, depth - 1).items()
    }


def _here(folder: Path, look_inside: bool) -> dict[str, Path | Texts]:
    """Return the best matrix of every sample that a folder holds itself: filtered before raw, HDF5 before texts.

    Parameters
    ----------
    folder
        The folder.
    look_inside
        Whether an HDF5 file that is not called as Cell Ranger calls it is opened to see whether it is a matrix. That
        takes time, so it is done only where Cell Ranger's names are not found.
    """
    found: list[tuple[str, int, Path | Texts]] = []
    h5 = [path for path in entries(folder) if path.suffix == ".h5" and path.is_file()]
    for path in [*h5, *(path for path in entries(folder) if path.is_dir())]:
        kind = KIND.search(path.stem if path.is_file() else path.name)
        named = kind and (kind["of"] or path.name == kind["cells"])  # STARsolo has folders filtered and raw
        if named and (path.is_file() or texts(path) or genomes(path)):
            found.append((*_sample(path.stem if path.is_file() else path.name), path))
    found += [(*_sample(name), source) for name, source in texts(folder).items()]
    if not found and look_inside:
        found = [(*_sample(path.stem), path) for path in h5 if groups(path)]
    best: dict[str, Path | Texts] = {}
    for name, _, source in sorted(found, key=lambda item: item[1]):
        best.setdefault(name, source)
    return dict(sorted(best.items()))


def _sample(name: str) -> tuple[str, int]:
    """Return the sample that a name without its ending means, and how far its matrix stands behind the best kind."""
    kind = KIND.search(name)
    if kind is None:
        return name, 0
    sample = name[: kind.start()]
    other = 0 if kind["of"] in ("feature", "gene", None) else 2  # peaks and probes
    return "" if sample == "sample" else sample, other + (kind["cells"] == "raw")
