"""Find cells with labels, in a finished run or in any data set, as the ranking of genes and its figures need them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import anndata as ad
import numpy as np
import pandas as pd

from scrcl import readers
from scrcl.commands import results
from scrcl.commands.results import Run
from scrcl.contents import places
from scrcl.contents.labels import as_text
from scrcl.contents.labels import find_labels as known_labels
from scrcl.contents.values import find_expression
from scrcl.disk import home
from scrcl.genes.labelled import Labelled
from scrcl.genes.naming import gene_names
from scrcl.genes.ranking import GROUP
from scrcl.genes.settings import MarkerSettings
from scrcl.keys import LABELS_OF_CELLS, LABELS_OF_SPOTS, OURS, PCS, SPATIAL, UMAP
from scrcl.messages import UserError, log, natural_order
from scrcl.plot.layout import add_umap
from scrcl.prepare import genes
from scrcl.prepare.prepared import preprocessing
from scrcl.readers import h5ad, tables
from scrcl.readers.find import dataset_name
from scrcl.recipes import RECIPES
from scrcl.result import Result

LABEL_COLUMNS = (
    *(OURS.labels, "label", "labels", "cluster", "clusters", *LABELS_OF_CELLS, *LABELS_OF_SPOTS),
    *("leiden", "louvain", "seurat_clusters"),
)
EMBEDDING = "the embedding that was clustered"


def of_result(result: Result, run: Run) -> Labelled:
    """The cells of a run that has just ended, with its final labels. run: what it has written."""
    cells = ad.AnnData(result.cells.X, obs=result.cells.obs, var=result.cells.var, obsm=result.cells.obsm)
    cells.uns |= {key: result.cells.uns[key] for key in (SPATIAL,) if key in result.cells.uns}
    labels = (cells.obs[OURS.labels], "the final labels of the run", True)
    return _labelled(cells, labels, MarkerSettings(), run, run.task, run.provenance["values"], EMBEDDING, _files(run))


def find(settings: MarkerSettings) -> tuple[Labelled, Run | None]:
    """The cells and labels that the settings mean, joined by barcode, and the run that they are from, if they are of one.

    Cells without a label are left out.

    Raises
    ------
    UserError
        Where there are no such data, run or labels, and for labels of other cells.
    """
    run = find_run(settings)
    if run is None:
        task, source = settings.task, readers.source(settings.dataset, settings.task)
        cells, values, umap_from = read_cells(settings, source)
        files = source.files
    else:
        log.info("The finished run in %s.", run.folder)
        cells, values, umap_from = h5ad.read(run.folder / "result.h5ad"), run.provenance["values"], EMBEDDING
        task, files = run.task, _files(run)
    labels = find_labels(cells.obs, settings, run)
    if UMAP not in cells.obsm:
        log.info("UMAP of %d %s.", cells.n_obs, RECIPES[task].unit)
        add_umap(cells, PCS if run is None else OURS.embedding)
    return _labelled(cells, labels, settings, run, task, values, umap_from, files), run


def _files(run: Run) -> tuple[Path, ...]:
    return (run.folder / "result.h5ad", run.folder / "labels.csv")


def _labelled(
    cells: ad.AnnData,
    found: tuple[pd.Series, str, bool],
    settings: MarkerSettings,
    run: Run | None,
    task: Literal["SC", "ST"],
    values: str,
    umap_from: str,
    files: tuple[Path, ...],
) -> Labelled:
    """The cells that have a label. found: as find_labels returns it."""
    labels, labels_from, own = found
    label_key = run.settings["label_key"] if run and settings.label_key == "auto" else settings.label_key
    known = known_labels(cells.obs, label_key, RECIPES[task].usual_labels)
    section_key = run.settings.get("section_key", "auto") if run else "auto"
    sections = places.sections(cells.obs, section_key) if task == "ST" else None
    cells.var_names = gene_names(cells.var, settings.gene_key)
    cells = _with_groups(cells, labels)
    known = None if known is None else known.loc[cells.obs_names]
    if known is not None and known.dropna().eq(cells.obs[GROUP].astype(str)[known.notna()]).all():
        known = None  # there are none, or they are the labels themselves, and to compare these says nothing
    sections = None if sections is None else sections.loc[cells.obs_names]
    name = dataset_name(run.settings["dataset"] if run else settings.dataset)
    label_name = str(labels.name)
    return Labelled(name, task, cells, known, sections, labels_from, values, umap_from, label_name, own, files)


def _with_groups(cells: ad.AnnData, labels: pd.Series) -> ad.AnnData:
    """The cells that have a label, with labels in obs['cluster'] and without layers, to keep memory low."""
    there = labels.notna().to_numpy()
    if not there.all():
        log.info("%d of %d cells have no label: left out.", (~there).sum(), len(there))
    cells.layers.clear()
    cells = cells if there.all() else cells[there].copy()
    cells.obs_names.name = None  # it may be called as the column below
    names = labels[there].astype(str)
    cells.obs[GROUP] = pd.Categorical(names, natural_order(names.unique()))
    return cells


def find_run(settings: MarkerSettings) -> Run | None:
    """The finished run that the settings mean: in a folder or of a data set; else that of the labels, or the latest.

    A run of that name on another file does not count; None where there is no run.

    Raises
    ------
    UserError
        For settings that have no effect on a run.
    """
    given = Path(settings.dataset).expanduser()
    beside = Path(settings.labels).resolve().parent  # of a run's own labels.csv: the run
    if not settings.dataset and os.path.isfile(settings.labels) and results.is_finished(beside):
        run = results.read_run(beside)
    elif not settings.dataset:
        run = results.latest_run(settings.task)
    elif results.is_finished(given):
        run = results.read_run(given.resolve())
    else:
        run = results.read_run(home.results(settings.task) / dataset_name(settings.dataset))
        if run is not None and not _is_of(run, settings):
            run = None
    if run is not None and settings.layer != "auto":
        raise UserError("--layer has no effect on a finished run, whose values are in its result.h5ad; leave it out.")
    return run


def _is_of(run: Run, settings: MarkerSettings) -> bool:
    """Whether a run of the data set's name is of the file that the settings mean, where they mean one."""
    given, of_run = Path(settings.dataset).expanduser(), Path(run.settings["dataset"]).expanduser()
    if given.resolve() == of_run or (given.name == settings.dataset and not os.path.exists(given)):
        return True
    path = readers.source(settings.dataset, settings.task).path
    return path is None or path.resolve() == of_run


def read_cells(settings: MarkerSettings, source: readers.Source) -> tuple[ad.AnnData, str, str]:
    """Any data set without a run: its cells, log-normalised; in words, its values, and what its UMAP is of.

    The UMAP is the file's own; where it has none, obsm['X_pca'] is there to make one of.
    """
    adata = source.read()
    expression = find_expression(places.placed(adata) if settings.task == "ST" else adata, settings.layer)
    recipe = RECIPES[settings.task]()
    cells = genes.preprocess(expression, **preprocessing(recipe))
    if SPATIAL in adata.uns:
        cells.uns[SPATIAL] = adata.uns[SPATIAL]
    where = adata.obs_names.get_indexer(cells.obs_names)
    umap = np.asarray(adata.obsm[UMAP])[where] if UMAP in adata.obsm else np.empty(0)
    if umap.ndim == 2 and umap.shape[-1] > 1 and np.isfinite(umap[:, :2]).all():
        cells.obsm[UMAP] = umap[:, :2]
        return cells, expression.in_words(), "the data set's own obsm['X_umap']"
    scaled = genes.encoder_values(cells, "scaled")
    cells.obsm[PCS] = genes.principal_components(scaled, recipe.n_pcs)
    return cells, expression.in_words(), f"{cells.obsm[PCS].shape[1]} principal components"


def _in_obs(key: str) -> str:
    return f"obs[{key!r}]"


def find_labels(obs: pd.DataFrame, settings: MarkerSettings, run: Run | None) -> tuple[pd.Series, str, bool]:
    """Labels of the cells in obs, missing where they have none; in words, where they are from; whether they are the run's own."""
    given = settings.labels
    is_file = os.path.isfile(given)  # unlike Path.is_file, no error for an impossible name
    own_table = None if run is None else run.folder / "labels.csv"
    if given == "auto" and own_table is not None:
        labels, origin = read_labels(own_table, OURS.labels, obs.index), "the final labels of the run"
    elif given == "auto" and OURS.labels in obs:
        labels, origin = as_text(obs[OURS.labels]), _in_obs(OURS.labels)
    elif given == "auto":
        raise UserError(
            f"There is no finished run of {settings.dataset}; run `{results.COMMANDS[settings.task]} --dataset "
            f"{settings.dataset}` first, or name labels by --labels (a table with barcodes, or an obs column)."
        )
    elif is_file:
        labels, origin = read_labels(Path(given), settings.label_column, obs.index), given
    elif given in obs:
        labels, origin = as_text(obs[given]), _in_obs(given)
    else:
        there = ", ".join(map(str, obs.columns)) or "none"
        raise UserError(f"--labels {given} is neither a file nor an obs column; the columns are {there}.")
    if settings.label_column != "auto" and not is_file:
        raise UserError(f"--label-column names a column of a table, but the labels are {origin}; leave it out.")
    if labels.isna().all():
        raise UserError(f"None of the {len(obs)} cells has a label in {origin}.")
    is_own = own_table is not None and (given == "auto" or (is_file and Path(given).resolve() == own_table.resolve()))
    return labels, origin, is_own and labels.name == OURS.labels


def read_labels(path: Path, label_column: str, barcodes: pd.Index) -> pd.Series:
    """The labels in a table, by barcode, missing for cells that are not in it.

    Raises UserError, with counts, for a table of other cells, and where the column of labels is not clear.
    """
    table = tables.read_table(path, "table of labels")
    column = tables.barcode_column(table, barcodes)
    if column is None:
        raise UserError(
            f"Labels and data do not meet: of the {len(table)} rows of {path}, none or too few have the barcode of one "
            f"of the {len(barcodes)} cells ({table.iloc[0, 0]!r} there, {barcodes[0]!r} here)."
        )
    table = tables.by_barcode(table, column, path)
    met = int(table.index.isin(barcodes).sum())
    log.info("%s: %d of its %d barcodes are among the %d cells.", path.name, met, len(table), len(barcodes))
    return as_text(table[_label_column(table, label_column, path)].reindex(barcodes))


def _label_column(table: pd.DataFrame, asked: str, path: Path) -> str:
    names = list(map(str, table.columns))
    if asked != "auto":
        usual = [asked] if asked in names else []
    else:
        usual = [name for name in LABEL_COLUMNS if name in names] or (names if len(names) == 1 else [])
    if not usual:
        problem = f"has no column {asked!r}" if asked != "auto" else "does not say which column holds the labels"
        raise UserError(f"{path} {problem}; name one of {', '.join(names) or 'none'} by --label-column.")
    return usual[0]
