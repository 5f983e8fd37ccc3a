"""Find the files that belong together in the folder that a platform wrote, whatever samples they are named after."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import anndata as ad
import numpy as np
import pandas as pd

from scrcl.keys import LIBRARY, SPATIAL
from scrcl.messages import UserError, log, natural_order
from scrcl.readers.samples import SAMPLE, join_samples
from scrcl.readers.tenx_matrix import entries

Sample = TypeVar("Sample")
SamplesIn = Callable[
    [Path], dict[str, Sample]
]  # a function that returns the complete samples that a folder holds itself, by name


def parts_in(folder: Path, patterns: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Path]]:
    """Return the files and folders in a folder that a platform gives a fixed name, by sample and by part.

    Parameters
    ----------
    folder
        The folder.
    patterns
        For every part the patterns of its name, the best first. The sample's name may stand before it, or in a group of
        the pattern.

    Returns
    -------
    The best file of every part, by the name of the sample; '' where a name has nothing besides the pattern.
    """
    found: list[tuple[int, str, str, Path]] = []
    for path in entries(folder):
        for part, endings in patterns.items():
            matches = (re.fullmatch(rf"(?:(.*?)[_.-])?{ending}", path.name) for ending in endings)
            rank, match = next(((rank, match) for rank, match in enumerate(matches) if match), (0, None))
            if match:
                found.append((rank, "_".join(word.strip("_.-") for word in match.groups() if word), part, path))
                break
    samples: dict[str, dict[str, Path]] = {}
    for _, sample, part, path in sorted(found, key=lambda item: item[0]):
        samples.setdefault(sample, {}).setdefault(part, path)
    return samples


def complete_in(folder: Path, patterns: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Path]]:
    """Return the samples in a folder of which all parts are there, as `parts_in` does."""
    return {name: found for name, found in parts_in(folder, patterns).items() if len(found) == len(patterns)}


def root_of(path: Path, inner: Sequence[str], samples_in: SamplesIn[Sample]) -> Path | None:
    """Return the folder that holds the samples: one that `inner` names, or `path` if two or more folders in it do.

    Parameters
    ----------
    path
        Any path.
    inner
        Where the platform puts its files, relative to the path, '' for the path itself; the best first.
    samples_in
        A function that returns the complete samples that a folder holds itself.
    """
    if not path.is_dir():
        return None
    own = next((path / place for place in inner if samples_in(path / place)), None)
    return path if own is None and len(_in_folders(path, inner, samples_in)) > 1 else own


def samples_at(root: Path, inner: Sequence[str], samples_in: SamplesIn[Sample]) -> dict[str, Sample]:
    """Return the samples in what `root_of` returned, by name and in natural order."""
    found = dict(samples_in(root))
    if not found:
        for child, own in _in_folders(root, inner, samples_in).items():
            found |= {"_".join(filter(None, (child, name if len(own) > 1 else ""))): own[name] for name in own}
    return {name: found[name] for name in natural_order(found)}


def files_at(root: Path, inner: Sequence[str], samples_in: SamplesIn[dict[str, Path]]) -> list[Path]:
    """Return the files of the samples in what `root_of` returned; of a folder, those in it."""
    found = [path for sample in samples_at(root, inner, samples_in).values() for path in sample.values()]
    return [file for path in found for file in (entries(path) if path.is_dir() else [path])]


def _in_folders(path: Path, inner: Sequence[str], samples_in: SamplesIn[Sample]) -> dict[str, dict[str, Sample]]:
    """Return the samples in each folder in a folder, by the name of that folder."""
    children = {child.name: child for child in entries(path) if child.is_dir()}
    found = {
        name: next((own for place in inner if (own := samples_in(child / place))), {})
        for name, child in children.items()
    }
    return {name: own for name, own in found.items() if own}


def join_sections(sections: Mapping[str, ad.AnnData], where: Path) -> ad.AnnData:
    """Put several sections below each other, told apart by obs['library_id'] as squidpy does.

    Genes are joined, and barcodes made unique, as `join_samples` does it. Positions stay as they are. uns['spatial']
    holds the images of all sections.

    Raises
    ------
    UserError
        When they share no gene.
    """
    if len(sections) == 1:
        return next(iter(sections.values()))
    joined = join_samples(sections, where)
    joined.obs[LIBRARY] = joined.obs.pop(SAMPLE)
    images = {name: one for part in sections.values() for name, one in part.uns.get(SPATIAL, {}).items()}
    if images:
        joined.uns[SPATIAL] = images
    return joined


def with_places(adata: ad.AnnData, table: pd.DataFrame, columns: tuple[str, str], where: Path) -> ad.AnnData:
    """Return the cells that a table places, with its columns in obs and their positions in obsm['spatial'].

    Parameters
    ----------
    adata
        Cells x features.
    table
        One row per cell, indexed by the cells' names.
    columns
        Which columns hold x and y.
    where
        The file of the table, as named in messages.

    Raises
    ------
    UserError
        When the table lacks the columns, names a cell twice, or has other cells.
    """
    if missing := [name for name in columns if name not in table]:
        raise UserError(f"{where} has no column {' and '.join(missing)}, so the cells have no positions; add it.")
    if len(twice := table.index[table.index.duplicated()]):
        raise UserError(f"{where} has the cell {twice[0]!r} more than once; keep one line of each.")
    shared = adata.obs_names.isin(table.index)
    if not shared.any():
        first = [repr(names[0]) if len(names) else "none" for names in (adata.obs_names, table.index)]
        raise UserError(
            f"None of the {adata.n_obs} cells of the matrix is among the {len(table)} in {where} ({first[0]} and "
            f"{first[1]} are the first); they belong to different samples."
        )
    if not shared.all():
        log.info("%d of %d cells are not in %s: left out.", (~shared).sum(), adata.n_obs, where.name)
    placed = adata[shared].copy()
    placed.obs = table.loc[placed.obs_names].rename_axis(None)
    placed.obsm[SPATIAL] = placed.obs[list(columns)].to_numpy(dtype=np.float64)
    return placed
