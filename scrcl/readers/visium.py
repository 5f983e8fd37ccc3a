"""Read what 10x Genomics' Space Ranger 1 to 4 writes: Visium, and Visium HD in squares or in cells; also as GEO has it.

`visium_folders` finds the files; here they are read.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from io import BytesIO
from pathlib import Path
from typing import Any

import anndata as ad
import matplotlib.image
import numpy as np
import pandas as pd
from scipy import sparse

from scrcl.keys import SPATIAL, SPOT_GRID
from scrcl.messages import UserError, log, one_line
from scrcl.readers import parts, visium_folders
from scrcl.readers.packed import DAMAGE, opened
from scrcl.readers.tenx_matrix import Texts, read_matrix
from scrcl.readers.visium_folders import Section

POSITION_COLUMNS = (
    "barcode",
    "in_tissue",
    "array_row",
    "array_col",
    "pxl_row_in_fullres",
    "pxl_col_in_fullres",
)
XY = ["pxl_col_in_fullres", "pxl_row_in_fullres"]

locate = visium_folders.locate
files = visium_folders.files_of


def read(root: Path, name: str, max_memory: float | None = None) -> ad.AnnData:
    """Read the counts, positions and images of one section, or of several.

    Spots outside the tissue and spots without a position are left out. A missing or damaged image is only reported.

    Parameters
    ----------
    root
        What `locate` returned.
    name
        The library_id in uns['spatial'] of the only section; several have names of their own.
    max_memory
        Not used: the counts fit in memory.

    Returns
    -------
    Spots x features, counts in X, with squidpy's keys: obs in_tissue, array_row and array_col (not for cells);
    obsm['spatial'], x and y in pixels of the full-resolution image; uns['spatial'][library_id] with 'images' (uint8,
    those found) and 'scalefactors'. Several sections are told apart by obs['library_id'].

    Raises
    ------
    UserError
        When files are missing or damaged, or when no spot is left.
    """
    sections = visium_folders.sections(root)
    if not sections:
        visium_folders.require(root)
    for sample in visium_folders.unplaced(root):
        log.warning("The sample %s in %s has a matrix but no positions: left out.", sample, root)
    found = {library or name: _read_section(section, library or name) for library, section in sections.items()}
    return parts.join_sections(found, root)


def _read_section(section: Section, name: str) -> ad.AnnData:
    """Read one section."""
    adata = _read_matrix(section.matrix)
    where = section.matrix.matrix if isinstance(section.matrix, Texts) else section.matrix
    if adata.n_obs == 0:
        raise UserError(f"The matrix in {where} has no spots.")
    places = _places(section.places, adata.obs_names)
    shared = adata.obs_names.isin(places.index)
    if not shared.any():
        first = repr(places.index[0]) if len(places) else "none"
        raise UserError(
            f"None of the {adata.n_obs} barcodes of the matrix in {where} is among the {len(places)} of its positions "
            f"({adata.obs_names[0]!r} and {first} are the first); they belong to different samples."
        )
    if not shared.all():
        log.info("%d of %d spots have no position: left out.", (~shared).sum(), adata.n_obs)
    places = places.loc[adata.obs_names[shared]]
    if "in_tissue" in places:
        places = _in_tissue(places, where)
    adata = adata[places.index].copy()
    if "in_tissue" in places:
        adata.obs[list(SPOT_GRID)] = places[list(SPOT_GRID)].astype(int)
    adata.obsm[SPATIAL] = places[XY].to_numpy(dtype=float)
    adata.uns[SPATIAL] = {name: _read_images(section.beside)}
    return adata


def _in_tissue(places: pd.DataFrame, where: Path) -> pd.DataFrame:
    """Return the spots in the tissue."""
    inside = (places["in_tissue"] == 1).to_numpy()
    if not inside.any():
        raise UserError(f"No spot of the matrix in {where} lies in the tissue: in_tissue is 1 for none of them.")
    if not inside.all():
        log.info("%d of %d spots are outside the tissue: left out.", (~inside).sum(), len(places))
    return places[inside]


def _read_matrix(source: Path | Texts) -> ad.AnnData:
    """Read a matrix of counts; that of probes is summed up to genes."""
    if isinstance(source, Path) and source.suffix == ".gz":
        with tempfile.TemporaryDirectory() as folder, opened(source) as packed:
            unpacked = Path(folder) / source.stem
            try:
                with unpacked.open("wb") as file:
                    shutil.copyfileobj(packed, file)
            except DAMAGE as error:
                raise UserError(f"{source} cannot be unpacked ({one_line(error)}); download it again.") from error
            adata = read_matrix(unpacked)
    else:
        adata = read_matrix(source)
    return _genes_of_probes(adata) if "probe_ids" in adata.var else adata


def _genes_of_probes(adata: ad.AnnData) -> ad.AnnData:
    """Return the counts of genes: the sums over their probes, without those that Space Ranger leaves out itself."""
    if "filtered_probes" in adata.var:
        log.info(
            "%d of %d probes are left out, as Space Ranger does.", (~adata.var["filtered_probes"]).sum(), adata.n_vars
        )
        adata = adata[:, adata.var["filtered_probes"]].copy()
    genes, _ = pd.factorize(adata.var["gene_ids"])
    sums = sparse.csr_matrix((np.ones(len(genes), np.float32), (np.arange(len(genes)), genes)))  # probes x genes
    var = adata.var.drop_duplicates("gene_ids").drop(
        columns=["probe_ids", "filtered_probes", "probe_region"], errors="ignore"
    )
    if "gene_name" in var:
        var = var.set_index(var.pop("gene_name").astype(str).rename(None))
    found = ad.AnnData(sparse.csr_matrix(adata.X @ sums, dtype=np.float32), obs=adata.obs, var=var)
    found.var_names_make_unique()
    return found


def _places(path: Path, names: pd.Index) -> pd.DataFrame:
    """Read the positions of spots, or the centres of cells, indexed by the names of the matrix."""
    if "geojson" not in path.name:
        return read_positions(path)
    centres = read_centres(path)
    numbers = pd.to_numeric(names.str.extract(r"cellid_0*(\d+)", expand=False), errors="coerce")
    known = numbers.isin(centres.index)
    return centres.loc[numbers[known].astype(int)].set_axis(names[known])


def read_centres(path: Path) -> pd.DataFrame:
    """Read the outlines of cells that Space Ranger 4 writes, and return their centres by the number of the cell.

    Raises
    ------
    UserError
        When it is no such file.
    """
    try:
        with opened(path) as file:
            outlines = json.load(file)["features"]
        centres = {int(one["properties"]["cell_id"]): _centre(one["geometry"]) for one in outlines}
    except Exception as error:  # json, gzip: many types for damaged files
        raise UserError(
            f"{path} does not hold the outlines of cells ({one_line(error)}); download it again."
        ) from error
    return pd.DataFrame.from_dict(centres, orient="index", columns=XY)


def _centre(outline: dict[str, Any]) -> np.ndarray:
    """Return the centre of mass of a polygon, or of that with most corners of several; holes are not looked at."""
    polygons = outline["coordinates"] if outline["type"] == "MultiPolygon" else [outline["coordinates"]]
    corners = np.array(max((polygon[0] for polygon in polygons), key=len), dtype=float)
    start, moved = corners[0], corners - corners[0]  # small numbers, whose products lose no digits
    x, y = moved.T
    areas = x * np.roll(y, -1) - np.roll(x, -1) * y  # of the triangles that the sides span with the first corner, twice
    if areas.sum() == 0:
        return corners.mean(axis=0)
    return start + (areas[:, None] * (moved + np.roll(moved, -1, axis=0))).sum(axis=0) / (3 * areas.sum())


def read_positions(path: Path) -> pd.DataFrame:
    """Read a table of positions, indexed by barcode, with the columns of Space Ranger 2.

    Space Ranger 1 wrote no header, so the first field decides: it is either 'barcode' or a barcode.

    Raises
    ------
    UserError
        When it has other columns, or a barcode repeats.
    """
    try:
        if ".parquet" in path.suffixes:
            with opened(path) as file:
                table = pd.read_parquet(BytesIO(file.read()))
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


def _read_images(beside: dict[str, Path]) -> dict[str, dict]:
    """Read 'images' and 'scalefactors', as far as they exist and can be read."""
    found: dict[str, dict] = {"images": {}, "scalefactors": {}}
    try:
        with opened(beside["scalefactors"]) as file:
            found["scalefactors"] = {name: float(value) for name, value in json.load(file).items()}
    except KeyError:
        log.info("There is no scalefactors_json.json, so the tissue image cannot be laid under the spots.")
    except (*DAMAGE, ValueError, TypeError, AttributeError) as error:
        log.warning("scalefactors_json.json cannot be read (%s): going on without the image.", one_line(error))
    for name in ("hires", "lowres"):
        if name not in beside:
            continue
        try:
            with opened(beside[name]) as file:
                image = matplotlib.image.imread(file, format="png")
        except Exception as error:  # pillow raises many types for damaged images
            log.warning("The image %s cannot be read (%s): going on without it.", beside[name].name, one_line(error))
            continue
        found["images"][name] = image if image.dtype == np.uint8 else np.rint(image * 255).astype(np.uint8)
    return found
