"""Find and read spatial data, their coordinates, sections and annotation."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd

import data
import sources
import tables
import visium
from simulate import layered_tissue
from utils import SPACE_RANGER, UserError, log, one_line, sample_folder

ST_FOLDER = Path(__file__).parent / "datasets" / "stdata"
DEMO = "demo"  # a simulated tissue, made by simulate.py
DLPFC = tuple(str(number) for first in (151507, 151669, 151673) for number in range(first, first + 4))
LABEL_KEYS = ("layer_guess", "ground_truth", "annotation")
ANNOTATIONS = ("metadata.tsv", "metadata.csv")
COORDINATE_KEYS = ("spatial", "X_spatial", "spatial_fov")  # of obsm
COORDINATE_COLUMNS = (  # of obs, in the habits of Stereo-seq, Xenium, MERFISH, CosMx, stLearn and Visium
    ("x", "y"),
    ("X", "Y"),
    ("x_centroid", "y_centroid"),
    ("center_x", "center_y"),
    ("CenterX_global_px", "CenterY_global_px"),
    ("imagecol", "imagerow"),
    ("pxl_col_in_fullres", "pxl_row_in_fullres"),
    ("array_col", "array_row"),
    ("col", "row"),
)

HEXAGONAL = np.array([1 / 2, np.sqrt(3) / 2])  # distances between Visium's columns and rows, in those between spots
FARTHEST = 1e100  # a coordinate whose square, and a sum of those, is still a number

HOW_TO = f"""No data set was named. Put one of these in place and name it with --dataset:
  a Visium folder   {ST_FOLDER}/NAME/ with filtered_feature_bc_matrix.h5 (or the folder of that name) and
                    spatial/ (tissue_positions.csv or tissue_positions_list.csv, scalefactors_json.json, images)
  the 12 DLPFC      {ST_FOLDER}/DLPFC/151673/ and so on; known layers in metadata.tsv (barcode, layer_guess);
                    `{sources.command("151673")}` fetches one
  an h5ad file      {ST_FOLDER}/NAME.h5ad with obsm['spatial'], or x and y in obs
Both can also be given as a path: python runST.py --dataset PATH. Without any data: python runST.py --demo"""


def find(dataset: str, folder: Path = ST_FOLDER) -> Path | None:
    """Path of the Visium folder or h5ad file that dataset means; None for the simulated tissue.

    dataset: a path; or a name in folder or folder/DLPFC. A folder that is not Visium
    may hold one h5ad file.
    Raises UserError where there is no such thing, saying what was looked for.
    """
    if dataset == DEMO:
        return None
    if not dataset:
        raise UserError(f"{HOW_TO}\n{in_words(folder)}")
    places = [Path(dataset), folder / dataset, folder / f"{dataset}.h5ad", folder / "DLPFC" / dataset]
    path = next((place for place in places if data.readable(place)), None)
    if path is None:
        where = " or ".join(map(str, places if dataset not in DLPFC else places[-1:]))
        published = sources.known().get(dataset) == "ST"
        advice = f"; `{sources.command(dataset)}` fetches it, or says how" if published else ""
        raise UserError(f"There is no data set {dataset!r}: nothing at {where}{advice}. {in_words(folder)}")
    if path.is_file():
        return path
    root = visium.visium_root(path)
    files = sorted(path.glob("*.h5ad"))
    if root is None and len(files) != 1:
        raise UserError(
            f"{path} is not a Visium folder: looked for spatial/ in it, in outs/ and in binned_outputs/square_008um/ "
            f"(also 016um, 002um); and it holds {len(files)} h5ad files where one would do."
        )
    return root or files[0]


def in_words(folder: Path) -> str:
    """In words, what data sets are in folder."""
    names = sorted(
        path.name
        for place in (folder, folder / "DLPFC")
        for path in place.glob("*")
        if path.suffix == ".h5ad" or (path.is_dir() and path.name != "DLPFC")
    )
    return f"{folder} holds {', '.join(names)}." if names else f"{folder} holds no data yet."


def dataset_name(dataset: str) -> str:
    """The name that results are filed under: that of the file or folder, without Space Ranger's own outs/ and the like."""
    return data.dataset_name(str(sample_folder(Path(dataset))))


def demo() -> ad.AnnData:
    """The simulated tissue."""
    log.info("These data are simulated: seven layers of a tissue that does not exist.")
    return layered_tissue()


def read(path: Path, name: str, annotation: str = "auto") -> ad.AnnData:
    """Read the Visium folder or h5ad file at path, and join its annotation, whose columns go to obs.

    name: goes to uns['spatial'] as library id; annotation: path of a table, 'none', or
    'auto' for metadata.tsv or metadata.csv in the Visium folder.
    """
    adata = visium.read_visium(path, name) if path.is_dir() else data.read(path)
    table = annotation_table(path, annotation)
    if table is not None:
        join_annotation(adata, table)
        if not set(LABEL_KEYS) & set(adata.obs):
            names = ", ".join(map(str, adata.obs))
            log.info(
                "No known domains: none of %s in obs (%s); name a column by --label-key.", ", ".join(LABEL_KEYS), names
            )
    return adata


def annotation_table(path: Path, annotation: str) -> Path | None:
    """The table of known domains that belongs to the Visium folder or h5ad file at path, or None."""
    if annotation not in ("auto", "none"):
        return Path(annotation)
    if annotation == "none" or path.is_file():
        return None
    outside = [folder.parent for folder in (path, *path.parents) if folder.name in SPACE_RANGER]
    tables = [folder / name for folder in (path, *outside) for name in ANNOTATIONS]
    return next((table for table in tables if table.is_file()), None)


def input_files(path: Path, annotation: str) -> tuple[Path, ...]:
    """The files that decide the result: matrix, positions and annotation."""
    own = visium.input_files(path) if path.is_dir() else [path]
    table = annotation_table(path, annotation)
    return tuple(file for file in [*own, table] if file is not None and file.is_file())


def join_annotation(adata: ad.AnnData, path: Path) -> None:
    """Write the columns of a table to obs, joined by barcode; spots that it does not name keep what they have.

    The barcodes are the column, or the row names, that have most in common with the spots'
    names. A table without any such column, but with a row per spot, is taken row by row,
    which is said.
    Raises UserError for a table that cannot be read, that names a spot twice, or whose
    barcodes are those of other spots.
    """
    table = tables.read_table(path, "annotation")
    if set(table) & set(adata.obs_names):
        raise UserError(f"The annotation {path} starts with a spot, not with the names of its columns; add that line.")
    column = tables.barcode_column(table, adata.obs_names)
    if column is None:
        _require_row_order(table, adata, path)
        table = table.set_axis(adata.obs_names)
    else:
        table = tables.by_barcode(table, column, path)
        met = table.index.isin(adata.obs_names).sum()
        log.info("%s: %d of its %d barcodes are among the %d spots.", path.name, met, len(table), adata.n_obs)
    for name, values in table.reindex(adata.obs_names).items():
        if name in adata.obs:
            values = values.astype(object).where(values.notna(), adata.obs[name].astype(object)).infer_objects()
        adata.obs[name] = _storable(values)


def _storable(values: pd.Series) -> pd.Series:
    """Truth values with gaps in pandas' own type for them, since h5ad cannot hold an object column of them."""
    mixed = values.dtype == object and values.notna().any() and values.dropna().map(type).eq(bool).all()
    return values.astype("boolean") if mixed else values


def _require_row_order(table: pd.DataFrame, adata: ad.AnnData, path: Path) -> None:
    """Raise UserError unless the table has no barcodes and a row per spot."""
    barcodes = [name for name in table if _like_barcodes(table[name])]
    if barcodes or len(table) != adata.n_obs:
        example = f" ({table[barcodes[0]].iloc[0]!r} there, {adata.obs_names[0]!r} here)" if barcodes else ""
        raise UserError(
            f"None of the {len(table)} rows of {path} has the barcode of one of the {adata.n_obs} spots, or too few do"
            f"{example}; its first column must hold the spots' barcodes."
        )
    log.warning("%s has no barcodes: its rows are taken to be in the order of the matrix.", path)


def _like_barcodes(column: pd.Series) -> bool:
    """Text that differs in every row; the row numbers that to_csv writes are no barcodes."""
    counter = column.astype(str).equals(pd.Series(range(len(column)), index=column.index).astype(str))
    return not pd.api.types.is_numeric_dtype(column) and column.is_unique and not counter


def _is_hexagonal(points: np.ndarray) -> bool:
    """Whether columns and rows are those of Visium's hexagonal grid: in every other row only the even columns have a spot."""
    parity = points[np.isfinite(points).all(axis=1)].sum(axis=1) % 2
    return len(parity) > 1 and bool((parity == parity[0]).all())


def coordinates(adata: ad.AnnData) -> np.ndarray:
    """Positions of the spots, [N, 2 or 3] float64, NaN where missing, in the data's own unit.

    From obsm['spatial'], or from x and y (or the like) in obs. Raises UserError where there are none.
    """
    pair = next((pair for pair in COORDINATE_COLUMNS if set(pair) <= set(adata.obs)), None)
    try:
        places: dict[str, np.ndarray] = {
            key: np.asarray(adata.obsm[key], dtype=np.float64) for key in COORDINATE_KEYS if key in adata.obsm
        }
        if places:
            # CosMx readers keep places within a field of view beside places on the slide, which reach further.
            rivals: list[str] = [key for key in ("spatial", "spatial_fov") if key in places] or list(places)
            key = max(rivals, key=lambda key: _extent(places[key]))
            points = places[key]
        elif pair is not None:
            key = f"{pair[0]}, {pair[1]}"
            points = np.column_stack([adata.obs[name].to_numpy(dtype=np.float64, na_value=np.nan) for name in pair])
            if pair == ("array_col", "array_row"):
                points = points * HEXAGONAL if _is_hexagonal(points) else points
        else:
            raise UserError(
                "The data have no coordinates: no obsm['spatial'], and no columns x and y (or the like) in obs; "
                "add adata.obsm['spatial'], or use runSC.py for data without positions."
            )
    except (TypeError, ValueError) as error:
        raise UserError(f"The coordinates are not numbers ({one_line(error)}).") from error
    if points.ndim != 2 or points.shape[1] not in (2, 3):
        raise UserError(f"The coordinates in {key} have the shape {points.shape}; two or three columns are needed.")
    points = np.where(np.isfinite(points), points, np.nan)
    if (np.abs(points) > FARTHEST).any():
        raise UserError(
            f"The coordinates in {key} are beyond {FARTHEST:g}, so that no distance can be computed; mend them."
        )
    return points


def _extent(points: np.ndarray) -> float:
    known = points[np.isfinite(points)]
    return float(np.ptp(known)) if known.size else 0.0


def placed(adata: ad.AnnData) -> ad.AnnData:
    """A view of the spots that have a position, with it in obsm['spatial'] (of a shallow copy; adata stays as it is).

    Raises UserError where fewer than 3 spots have one.
    """
    data.require_names(adata.obs_names, "spot barcode", "obs_names_make_unique")
    data.require_sound_indices(adata)
    points = coordinates(adata)
    there = ~np.isnan(points).any(axis=1)
    if not there.all():
        log.info("%d of %d spots have no position: left out, without a label.", (~there).sum(), adata.n_obs)
    if there.sum() < 3:
        raise UserError(f"Only {there.sum()} of {adata.n_obs} spots have a position; at least 3 are needed.")
    shallow = ad.AnnData(adata.X, obs=adata.obs, var=adata.var, layers=adata.layers, raw=adata.raw, obsm=adata.obsm)
    shallow.obsm["spatial"] = points
    return shallow[there]


def section_members(sections: np.ndarray | None, n_spots: int) -> list[np.ndarray]:
    """Indices of the spots of every section; of all spots where sections is None."""
    if sections is None:
        return [np.arange(n_spots)]
    return [np.flatnonzero(sections == name) for name in np.unique(sections)]


def sections(obs: pd.DataFrame, section_key: str) -> pd.Series | None:
    """The section of every spot as strings; None where all are of one.

    section_key: a column of obs, 'none', or 'auto' for library_id (squidpy's name).
    Raises UserError for a column that is not there or has gaps.
    """
    if section_key == "none" or (section_key == "auto" and "library_id" not in obs):
        return None
    key = "library_id" if section_key == "auto" else section_key
    if key not in obs:
        raise UserError(
            f"There is no obs column {key!r} to tell sections apart; the columns are {', '.join(map(str, obs))}."
        )
    if obs[key].isna().any():
        raise UserError(f"The section of {obs[key].isna().sum()} spots is missing in obs[{key!r}]; fill it in.")
    found = obs[key].astype(str)
    return found if found.nunique() > 1 else None
