"""Read the folder that 10x Genomics' Space Ranger writes: Visium (1.x, 2.x and later) and binned Visium HD."""

from __future__ import annotations

import json
from pathlib import Path

import anndata as ad
import matplotlib.image
import numpy as np
import pandas as pd

from scrcl.keys import SPATIAL, SPOT_GRID
from scrcl.messages import UserError, log, one_line
from scrcl.readers.tenx_matrix import read_matrix
from scrcl.settings import HD_BINS

MATRIX = "filtered_feature_bc_matrix"  # a folder, or a file with .h5; downloads put a sample's name before it
POSITIONS = (
    "tissue_positions.parquet",
    "tissue_positions.csv",
    "tissue_positions_list.csv",
    "tissue_positions_list.txt",
)
POSITION_COLUMNS = (
    "barcode",
    "in_tissue",
    "array_row",
    "array_col",
    "pxl_row_in_fullres",
    "pxl_col_in_fullres",
)
IMAGES = {"hires": "tissue_hires_image.png", "lowres": "tissue_lowres_image.png"}
INNER = ("", "outs", *(f"{outs}binned_outputs/{bins}" for outs in ("", "outs/") for bins in HD_BINS))


def locate(folder: Path) -> Path | None:
    """Return the folder that holds a matrix and spatial/, at `folder` or below it, or None.

    The places are `folder` itself, outs/, and the bins of binned_outputs/: 8 um before 16 um before 2 um.
    """
    roots = [folder / inner for inner in INNER if (folder / inner / "spatial").is_dir()]
    # Visium HD also has a folder outs/spatial with images only, so a folder with a matrix or positions goes first.
    return next((root for root in roots if files(root)), next(iter(roots), None))


def read(root: Path, name: str, max_memory: float | None = None) -> ad.AnnData:
    """Read the counts, positions and images of one section.

    Spots outside the tissue and spots without a position are left out. A missing or damaged image is only reported.

    Parameters
    ----------
    root
        The folder with filtered_feature_bc_matrix(.h5) and spatial/.
    name
        The library_id in uns['spatial'].
    max_memory
        Not used: the counts of one section fit in memory.

    Returns
    -------
    Spots x genes, counts in X, with squidpy's keys: obs in_tissue, array_row and array_col; obsm['spatial'], x and y in
    pixels of the full-resolution image; uns['spatial'][library_id] with 'images' (uint8, those found) and
    'scalefactors'.

    Raises
    ------
    UserError
        When files are missing or damaged, or when no spot is left.
    """
    adata = _read_matrix(root)
    if adata.n_obs == 0:
        raise UserError(f"The matrix in {root} has no spots.")
    places = read_positions(root / "spatial")
    shared = adata.obs_names.isin(places.index)
    if not shared.any():
        raise UserError(
            f"None of the {adata.n_obs} barcodes of the matrix in {root} is among the {len(places)} of its positions "
            f"({adata.obs_names[0]!r} and {places.index[0]!r} are the first); they belong to different samples."
        )
    if not shared.all():
        log.info("%d of %d spots have no position: left out.", (~shared).sum(), adata.n_obs)
    places = places.loc[adata.obs_names[shared]]
    inside = (places["in_tissue"] == 1).to_numpy()
    if not inside.all():
        log.info("%d of %d spots are outside the tissue: left out.", (~inside).sum(), len(places))
    if not inside.any():
        raise UserError(f"No spot of the matrix in {root} lies in the tissue: in_tissue is 1 for none of them.")
    places = places[inside]
    adata = adata[places.index].copy()
    adata.obs[list(SPOT_GRID)] = places[list(SPOT_GRID)].astype(int)
    adata.obsm[SPATIAL] = places[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy(dtype=float)
    adata.uns[SPATIAL] = {name: _read_images(root / "spatial")}
    return adata


def files(root: Path) -> list[Path]:
    """Return the files of the matrix and the table of positions, as far as they exist."""
    found = [path for path in (_matrix_path(root), _positions_path(root / "spatial")) if path is not None]
    return [file for path in found for file in (sorted(path.iterdir()) if path.is_dir() else [path])]


def _matrix_path(root: Path) -> Path | None:
    """Return the file or folder of the matrix, or None; several samples in one folder are an error."""
    exact = [path for path in (root / f"{MATRIX}.h5", root / MATRIX) if path.exists()]
    named = sorted(root.glob(f"*{MATRIX}.h5"))
    if not exact and len(named) > 1:
        raise UserError(
            f"{root} holds the matrices of several samples ({', '.join(path.name for path in named)}) but one folder "
            f"spatial; keep the one that belongs to it, or name it {MATRIX}.h5."
        )
    return next(iter([*exact, *named]), None)


def _positions_path(folder: Path) -> Path | None:
    """Return the table of positions in a folder, or None."""
    return next((folder / name for name in POSITIONS if (folder / name).exists()), None)


def _read_matrix(root: Path) -> ad.AnnData:
    """Read the matrix of counts, with unique gene names."""
    path = _matrix_path(root)
    if path is None:
        raise UserError(f"{root} has a folder spatial, but neither {MATRIX}.h5 nor a folder {MATRIX}; add one of them.")
    return read_matrix(path)


def read_positions(folder: Path) -> pd.DataFrame:
    """Read the table of positions in a folder, indexed by barcode, with the columns of Space Ranger 2.

    Space Ranger 1 wrote no header, so the first field decides: it is either 'barcode' or a barcode.

    Raises
    ------
    UserError
        When there is no such table, it has other columns, or a barcode repeats.
    """
    path = _positions_path(folder)
    if path is None:
        raise UserError(f"{folder} has no {' or '.join(POSITIONS[1:3])}, so there are no coordinates; add one of them.")
    try:
        if path.suffix == ".parquet":
            table = pd.read_parquet(path)
        else:
            table = pd.read_csv(path, header=None, dtype={0: str})
            if table.iloc[0, 0] == POSITION_COLUMNS[0]:
                table = table.iloc[1:].set_axis(table.iloc[0], axis=1)
            else:
                table = table.set_axis(POSITION_COLUMNS, axis=1)
        table = table.set_index("barcode")[list(POSITION_COLUMNS[1:])].apply(pd.to_numeric).dropna()
    except Exception as error:  # pandas, pyarrow: many types for damaged tables
        columns = ", ".join(POSITION_COLUMNS)
        raise UserError(
            f"{path} is not a table of positions with the columns {columns} ({one_line(error)})."
        ) from error
    twice = table.index[table.index.duplicated()]
    if len(twice):
        raise UserError(f"{path} has the barcode {twice[0]!r} more than once; keep one line of each.")
    return table


def _read_images(folder: Path) -> dict[str, dict]:
    """Read 'images' and 'scalefactors', as far as they exist and can be read."""
    found: dict[str, dict] = {"images": {}, "scalefactors": {}}
    try:
        found["scalefactors"] = {
            name: float(value) for name, value in json.loads((folder / "scalefactors_json.json").read_text()).items()
        }
    except FileNotFoundError:
        log.info("There is no scalefactors_json.json, so the tissue image cannot be laid under the spots.")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        log.warning("scalefactors_json.json cannot be read (%s): going on without the image.", one_line(error))
    for name, file in IMAGES.items():
        try:
            image = matplotlib.image.imread(folder / file)
        except FileNotFoundError:
            continue
        except Exception as error:  # pillow raises many types for damaged images
            log.warning("The image %s cannot be read (%s): going on without it.", file, one_line(error))
            continue
        found["images"][name] = image if image.dtype == np.uint8 else np.rint(image * 255).astype(np.uint8)
    return found
