"""Find the sections in a folder of Space Ranger, or in a flat folder of files as GEO has them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from scrcl.messages import UserError
from scrcl.readers import parts
from scrcl.readers.tenx_matrix import Texts, entries, texts
from scrcl.settings import HD_BINS

MATRIX = "filtered_feature_bc_matrix"  # a folder, or a file with .h5; downloads put a sample's name before it
KINDS = ("", r"\.h5\.gz")  # of matrices, besides .h5
MATRICES = {
    "filtered": (*(rf"{MATRIX}{kind}" for kind in (r"\.h5", *KINDS)),),
    "raw": (*(rf"raw_{what}_bc_matrix{kind}" for what in ("feature", "probe") for kind in (r"\.h5", *KINDS)),),
    "of cells": (
        *(rf"{what}_feature_cell_matrix{kind}" for what in ("filtered", "raw") for kind in (r"\.h5", *KINDS)),
    ),
}
BESIDE = {  # what lies in the folder spatial, but for the outlines of cells
    "positions": (
        *(rf"tissue_positions\.{ending}" for ending in ("parquet", r"parquet\.gz", "csv", r"csv\.gz")),
        *(rf"tissue_positions_list\.{ending}" for ending in ("csv", r"csv\.gz", "txt", r"txt\.gz")),
    ),
    "cells": (r"cell_segmentations\.geojson", r"cell_segmentations\.geojson\.gz"),
    "scalefactors": (r"scalefactors_json\.json", r"scalefactors_json\.json\.gz"),
    "hires": (r"tissue_hires_image\.png", r"tissue_hires_image\.png\.gz"),
    "lowres": (r"tissue_lowres_image\.png", r"tissue_lowres_image\.png\.gz"),
}
ARCHIVES = {
    "packed bins": (r"(?:binned|segmented)_outputs\.tar(?:\.gz)?",),
    "packed spatial": (r"spatial\.tar(?:\.gz)?",),
    "packed matrix": (rf"{MATRIX}\.tar(?:\.gz)?",),
}
PATTERNS = {
    **{part: tuple(rf"(?:spatial[_.-])?{name}" for name in names) for part, names in {**MATRICES, **BESIDE}.items()},
    **ARCHIVES,
}
IMAGES = ("scalefactors", "hires", "lowres")
BINS = tuple(f"{outs}binned_outputs/{bins}" for outs in ("", "outs/") for bins in HD_BINS)
INNER = ("", "outs", *BINS, "segmented_outputs", "outs/segmented_outputs")
Parts = dict[str, Path | Texts]


class Section(NamedTuple):
    """The files of one section of a tissue.

    Attributes
    ----------
    matrix
        The counts: an HDF5 file, a folder, or three text files.
    places
        The table of positions, or the outlines of cells.
    beside
        The images and their scale factors, as far as they are there.
    """

    matrix: Path | Texts
    places: Path
    beside: dict[str, Path]


def locate(path: Path) -> Path | None:
    """Return the folder that holds one or several sections, at `path` or below it, or None.

    The places are `path` itself, outs/, the bins of binned_outputs/ (8 um before 16 um before 2 um), segmented_outputs/
    and all folders in `path`, where two or more of them are sections. A folder that has only a part of what is needed
    counts if nothing better is found, so that `require` can say what is missing.
    """
    if not path.is_dir():
        return None
    whole = parts.root_of(path, INNER, sections_in)
    best = max((path / place for place in INNER), key=_how_much)
    return whole or (best if _how_much(best) else None)


def _how_much(root: Path) -> int:
    """Return how much of a section is in a folder: 2 for counts and a hint to a tissue, 1 for such a hint, or else 0.

    Counts alone are no section: they may be of cells.
    """
    found = _parts(root)
    counted = any(_counts(own) for own in found.values())
    spatial = any(path.name == "spatial" and path.is_dir() for path in entries(root))
    hint = spatial or any(_placed(own) or "packed bins" in own for own in found.values())
    if counted and any("packed spatial" in own for own in found.values()):
        return 2
    return hint + (hint and counted)


def sections(root: Path) -> dict[str, Section]:
    """Return the sections in what `locate` returned, by name; '' is the name of the only one."""
    return parts.samples_at(root, INNER, sections_in)


def sections_in(root: Path) -> dict[str, Section]:
    """Return the sections of which both the counts and the positions are in a folder.

    Names are those of the samples that stand before the names of the files. Where there is only one section, files
    without a name belong to it too.
    """
    found = _parts(root)
    shared = found.get("", {})
    complete = {name: section for name, own in found.items() if (section := _section(own))}
    if "" in complete:
        return {"": complete[""]}
    if len(complete) == 1:
        name, section = complete.popitem()
        return {"": section._replace(beside=_beside({**shared, **found[name]}))}
    counted, placed = ([name for name, own in found.items() if has(own)] for has in (_counts, _placed))
    if not complete and len(counted) == len(placed) == 1 and "" in (*counted, *placed):
        section = _section({**shared, **found[counted[0]], **found[placed[0]]})
        return {"": section} if section else {}
    return complete


def unplaced(root: Path) -> list[str]:
    """Return the samples in a folder that have counts but no positions, beside others that have both."""
    whole = sections_in(root)
    return [name for name, own in _parts(root).items() if name and _counts(own) and not _placed(own) and len(whole) > 1]


def require(root: Path) -> None:
    """Raise UserError that says what a folder without a whole section lacks."""
    found = _parts(root)
    counted = {name: own for name, own in found.items() if _counts(own)}
    needed = [part for part in ARCHIVES if not (counted and part == "packed matrix")]
    packed = [own[part] for own in found.values() for part in needed if part in own]
    if packed:
        raise UserError(f"{packed[0]} is still packed; unpack it where it lies (tar -xf) and run again.")
    if not counted:
        raise UserError(
            f"{root} has a folder spatial or positions of spots, but neither {MATRIX}.h5 nor a folder {MATRIX}; add "
            "one of them."
        )
    if len(counted) > 1 and any(map(_placed, found.values())):
        names = ", ".join(_file(_counts(own)).name for own in counted.values())
        raise UserError(
            f"{root} holds the matrices of several samples ({names}) but one folder spatial; keep the one that belongs "
            f"to it, or name it {MATRIX}.h5."
        )
    raise UserError(
        f"{root} has no tissue_positions.csv or tissue_positions_list.csv, in it or in its folder spatial, so there "
        "are no coordinates; add one of them."
    )


def files_of(root: Path) -> list[Path]:
    """Return the files of counts and positions in what `locate` returned, as far as they exist."""
    whole = [item for section in sections(root).values() for item in (section.matrix, section.places)]
    some = [item for own in _parts(root).values() for item in (_counts(own), _placed(own)) if item]
    found = [path for item in whole or some for path in (item if isinstance(item, Texts) else [item])]
    return [file for path in found for file in (entries(path) if path.is_dir() else [path])]


def _parts(root: Path) -> dict[str, Parts]:
    """Return the files in a folder, and in its folders called spatial, by the name of the sample and by part."""
    found: dict[str, Parts] = {name: dict(own) for name, own in parts.parts_in(root, PATTERNS).items()}
    for name, matrix in texts(root).items():
        sample = re.sub(rf"(^|[_.-])({MATRIX}|raw_feature_bc_matrix)$", "", name)
        found.setdefault(sample, {}).setdefault("texts", matrix)
    for folder in (path for path in entries(root) if path.name.endswith("spatial") and path.is_dir()):
        before = folder.name.removesuffix("spatial").rstrip("_.-")
        for name, own in parts.parts_in(folder, PATTERNS).items():
            found[name or before] = {**found.get(name or before, {}), **own}
    return found


def _counts(own: Parts) -> Path | Texts | None:
    """Return the best matrix of a sample: filtered before raw, squares or spots before cells."""
    return next((own[part] for part in ("filtered", "texts", "raw", "of cells") if part in own), None)


def _placed(own: Parts) -> Path | Texts | None:
    """Return the table of positions of a sample, or else the outlines of its cells."""
    return own.get("positions", own.get("cells"))


def _section(own: Parts) -> Section | None:
    """Return the files of a sample as a section, or None when there are no counts with places that belong to them."""
    spots = {part: item for part, item in own.items() if part not in ("of cells", "cells")}
    cells: Parts = {part: own[part] for part in ("of cells", "cells") if part in own}
    for kind in (spots, cells):
        matrix, places = _counts(kind), _placed(kind)
        if matrix is not None and isinstance(places, Path):
            return Section(matrix, places, _beside(own))
    return None


def _beside(own: Parts) -> dict[str, Path]:
    """Return the images of a sample and their scale factors."""
    return {part: item for part, item in own.items() if part in IMAGES and isinstance(item, Path)}


def _file(matrix: Path | Texts | None) -> Path:
    """Return the file, or the folder, that names a matrix in messages."""
    return matrix.matrix if isinstance(matrix, Texts) else Path(matrix or "")
