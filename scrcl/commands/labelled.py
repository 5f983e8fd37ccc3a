"""Find cells with labels, in a finished run or in any data set, for the ranking of genes and its figures."""

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
from scrcl.commands.script import task_command
from scrcl.contents import places
from scrcl.contents.gene_names import gene_names
from scrcl.contents.labels import as_text
from scrcl.contents.labels import find_labels as known_labels
from scrcl.contents.several import section_key
from scrcl.contents.values import find_expression, has_raw, layers_of
from scrcl.disk import home
from scrcl.genes import further, naming, ranking
from scrcl.genes.labelled import Labelled
from scrcl.genes.ranking import GROUP
from scrcl.genes.settings import MarkerSettings
from scrcl.keys import LABELS_OF_CELLS, LABELS_OF_SPOTS, OURS, PCS, SPATIAL, UMAP
from scrcl.messages import UserError, log, natural_order, nothing_said_twice, without_home
from scrcl.plot.layout import add_umap
from scrcl.prepare import genes
from scrcl.prepare.prepared import preprocessing
from scrcl.readers import tables
from scrcl.readers.find import dataset_name
from scrcl.readers.marker_genes import marker_genes
from scrcl.recipes import RECIPES
from scrcl.result import Result

LABEL_COLUMNS = (
    *(OURS.labels, "label", "labels", "cluster", "clusters", *LABELS_OF_CELLS, *LABELS_OF_SPOTS),
    *("leiden", "louvain", "seurat_clusters"),
)
EMBEDDING = "the embedding that was clustered"


def of_result(result: Result, run: Run) -> Labelled:
    """Return the cells of a run that has just ended, with its final labels.

    Parameters
    ----------
    result
        What the run found.
    run
        What it has written.
    """
    cells = ad.AnnData(result.cells.X, obs=result.cells.obs, var=result.cells.var, obsm=result.cells.obsm)
    cells.uns |= {key: result.cells.uns[key] for key in (SPATIAL, OURS.parameters) if key in result.cells.uns}
    labels = (cells.obs[OURS.labels], "the final labels of the run", True)
    return _labelled(cells, labels, MarkerSettings(), run, run.task, run.provenance["values"], EMBEDDING, _files(run))


def at_a_glance(cells: ad.AnnData, key: str, asked: str = "") -> pd.DataFrame:
    """Return what the clusters of a run that has just ended are, for the table that ends it.

    Parameters
    ----------
    cells
        With log-normalised values in X.
    key
        The obs column of the clusters.
    asked
        Known markers to name the clusters by, see `marker_genes`; some are among the genes.

    Returns
    -------
    A row per cluster of several cells. Columns: 'name' if it was asked for, see `naming.name_clusters`; 'top genes',
    see `ranking.at_a_glance`. Empty where there is nothing to compare.
    """
    with nothing_said_twice():  # draw_DEGs.py says what the names of the genes are, and can be told others
        names = gene_names(cells.var)
        known = marker_genes(asked, names)
    whole = ad.AnnData(cells.X, obs=cells.obs[[key]], var=pd.DataFrame(index=names))
    few = ranking.drawn_for_a_glance(whole[whole.obs[key].notna()])
    top = {name: ", ".join(own) for name, own in ranking.at_a_glance(few, key).items()}
    table = pd.Series(top, name="top genes", dtype=object).to_frame()
    if known and len(table):
        table.insert(0, "name", naming.name_clusters(few, known, key)["name"])
    return table


def require_markers_in_data(asked: str, adata: ad.AnnData) -> None:
    """Say what --marker-genes finds in the data; raise UserError where that is nothing, before hours are spent."""
    with nothing_said_twice():
        names = gene_names(adata.var)
        if has_raw(adata):
            names = names.union(gene_names(adata.raw.var), sort=False)
    marker_genes(asked, names)


def markers_left(asked: str, cells: ad.AnnData) -> str:
    """Return what --marker-genes asks for; '', with a warning, where a run has kept no gene of it."""
    try:
        with nothing_said_twice():
            marker_genes(asked, gene_names(cells.var))
    except UserError:
        log.warning("None of the known markers is among the genes that the run has kept, so clusters get no names.")
        return ""
    return asked


def find(settings: MarkerSettings) -> tuple[Labelled, Run | None]:
    """Find the cells and labels that the settings name, and join them by barcode.

    Cells without a label are left out.

    Parameters
    ----------
    settings
        The settings of the ranking.

    Returns
    -------
    The cells, and the finished run they are from, or None.

    Raises
    ------
    UserError
        When there are no such data, run or labels, and when the labels belong to other cells.
    """
    run = find_run(settings)
    if run is None:
        task, source = settings.task, readers.source(settings.dataset, settings.task)
        cells, values, umap_from = read_cells(settings, source)
        files = source.files
    else:
        log.info("The finished run in %s.", run.folder)
        cells, values, umap_from = run.cells(), run.provenance["values"], EMBEDDING
        task, files = run.task, _files(run)
    labels = find_labels(cells.obs, settings, run)
    if UMAP not in cells.obsm:
        log.info("UMAP of %d %s.", cells.n_obs, RECIPES[task].unit)
        add_umap(cells, PCS if run is None else OURS.embedding)
    return _labelled(cells, labels, settings, run, task, values, umap_from, files), run


def _files(run: Run) -> tuple[Path, ...]:
    """Return the files of a run that are read."""
    return (run.cells_at, run.folder / "labels.csv")


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
    """Return the cells that have a label; `found` is what `find_labels` returns."""
    labels, labels_from, own = found
    label_key = run.settings["label_key"] if run and settings.label_key == "auto" else settings.label_key
    known = known_labels(cells.obs, label_key, RECIPES[task].usual_labels)
    sections = places.sections(cells.obs, _section_key(cells, run)) if task == "ST" else None
    cells.var_names = gene_names(cells.var, settings.gene_key)
    bulk = None
    if settings.condition_key != "none":
        bulk = further.pseudobulk(cells, labels, settings.condition_key, settings.sample_key)
    cells = _with_groups(cells, labels)
    known = None if known is None else known.loc[cells.obs_names]
    if known is not None and known.dropna().eq(cells.obs[GROUP].astype(str)[known.notna()]).all():
        known = None  # there are none, or they are the labels themselves, and comparing these says nothing
    sections = None if sections is None else sections.loc[cells.obs_names]
    name = dataset_name(run.settings["dataset"] if run else settings.dataset)
    label_name = str(labels.name)
    return Labelled(name, task, cells, known, sections, labels_from, values, umap_from, label_name, own, files, bulk)


def _section_key(cells: ad.AnnData, run: Run | None) -> str:
    """Return the obs column that tells sections apart: that of the run, or what the data themselves tell."""
    if run is None:
        return section_key(cells, "auto")
    return str(cells.uns.get(OURS.parameters, {}).get("section_key", run.settings.get("section_key", "auto")))


def _with_groups(cells: ad.AnnData, labels: pd.Series) -> ad.AnnData:
    """Return the cells that have a label, with the labels in obs['cluster'] and without layers, to keep memory low."""
    there = labels.notna().to_numpy()
    if not there.all():
        log.info("%d of %d cells have no label: left out.", (~there).sum(), len(there))
    for name in layers_of(cells):
        del cells.layers[name]
    cells = cells if there.all() else cells[there].copy()
    cells.obs_names.name = None  # it may have the same name as the column below
    names = labels[there].astype(str)
    cells.obs[GROUP] = pd.Categorical(names, natural_order(names.unique()))
    return cells


def find_run(settings: MarkerSettings) -> Run | None:
    """Return the finished run that the settings mean, or None.

    It is the run in a folder, or the run of a data set, where a run of the same name on another file does not count.
    Without a data set, it is the run that the labels belong to, or else the latest.

    Parameters
    ----------
    settings
        The settings of the ranking.

    Raises
    ------
    UserError
        When a setting has no effect on a finished run, and when no data set is named and there is no run.
    """
    given = Path(settings.dataset)
    beside = Path(settings.labels).resolve().parent  # the folder of the run, if the labels are a run's labels.csv
    if not settings.dataset and os.path.isfile(settings.labels) and results.is_finished(beside):
        run = results.read_run(beside)
    elif not settings.dataset:
        run = results.latest_run(settings.task)
    elif results.is_finished(given):
        run = results.read_run(given.resolve())
    else:
        run = results.read_run(home.results(settings.task) / dataset_name(settings.dataset))
        if run is not None and not is_of(run, settings.dataset):
            run = None
    for name in ("layer", "values", "features"):
        if run is not None and getattr(settings, name) != getattr(MarkerSettings, name):
            raise UserError(
                f"--{name} has no effect on a finished run, whose values are in its {run.cells_at.name}; leave it out."
            )
    return run


def is_of(run: Run, dataset: str) -> bool:
    """Return whether a run is of the file that `dataset` means, if it means one, and not only of the same name."""
    given, of_run = Path(dataset), Path(run.settings["dataset"]).expanduser()
    if given.resolve() == of_run.resolve() or (given.name == dataset and not os.path.exists(given)):
        return True
    path = readers.source(dataset, run.task).path
    return path is None or path.resolve() == of_run.resolve()


def read_cells(settings: MarkerSettings, source: readers.Source) -> tuple[ad.AnnData, str, str]:
    """Read any data set without a run.

    Parameters
    ----------
    settings
        The settings of the ranking.
    source
        The data set.

    Returns
    -------
    The cells, log-normalised; and, for people to read, what their values are and what their UMAP is based on. The UMAP,
    obsm['X_umap'], is the file's own; where it has none, there is obsm['X_pca'] to make one from.

    Raises
    ------
    UserError
        When the data cannot be read or used.
    """
    adata = source.read()
    spots = places.placed(adata) if settings.task == "ST" else adata
    expression = find_expression(spots, settings.layer, settings.values, settings.features)
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
    """Return the name of an obs column, as messages show it."""
    return f"obs[{key!r}]"


def find_labels(obs: pd.DataFrame, settings: MarkerSettings, run: Run | None) -> tuple[pd.Series, str, bool]:
    """Return the labels of the cells in obs, and where they are from.

    Parameters
    ----------
    obs
        The table of the cells.
    settings
        The settings of the ranking.
    run
        The finished run, or None.

    Returns
    -------
    The labels, missing where a cell has none; where they are from, for people to read; and whether they are the run's
    own.

    Raises
    ------
    UserError
        When there are no such labels, or no cell has one.
    """
    given = settings.labels
    is_file = os.path.isfile(given)  # unlike Path.is_file, no error for an impossible name
    own_table = None if run is None else run.folder / "labels.csv"
    if given == "auto" and own_table is not None:
        labels, origin = read_labels(own_table, OURS.labels, obs.index), "the final labels of the run"
    elif given == "auto" and OURS.labels in obs:
        labels, origin = as_text(obs[OURS.labels]), _in_obs(OURS.labels)
    elif given == "auto":
        raise UserError(
            f"There is no finished run of {settings.dataset}; run `{task_command(settings.task)} --dataset "
            f"{settings.dataset}` first, or name labels by --labels (a table with barcodes, or an obs column)."
        )
    elif is_file:
        labels, origin = read_labels(Path(given), settings.label_column, obs.index), without_home(given)
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
    """Read the labels in a table, joined by barcode.

    Parameters
    ----------
    path
        The table.
    label_column
        The column with the labels, or 'auto' for the first usual name.
    barcodes
        The names of the cells.

    Returns
    -------
    One label per cell, missing where the table has none.

    Raises
    ------
    UserError
        When the table is of other cells (with counts), and when it is not clear which column holds the labels.
    """
    table = tables.read_table(path, "table of labels")
    by_barcode = tables.joined(table, barcodes, path)
    if by_barcode is None:
        raise UserError(
            f"Labels and data do not match: too few of the {len(table)} rows of {path} have the barcode of one "
            f"of the {len(barcodes)} cells ({table.iloc[0, 0]!r} there, {barcodes[0]!r} here)."
        )
    return as_text(by_barcode[_label_column(by_barcode, label_column, path)].reindex(barcodes))


def _label_column(table: pd.DataFrame, asked: str, path: Path) -> str:
    """Return the name of the column that holds the labels."""
    names = list(map(str, table.columns))
    if asked != "auto":
        usual = [asked] if asked in names else []
    else:
        usual = [name for name in LABEL_COLUMNS if name in names] or (names if len(names) == 1 else [])
    if not usual:
        problem = f"has no column {asked!r}" if asked != "auto" else "does not say which column holds the labels"
        raise UserError(f"{path} {problem}; name one of {', '.join(names) or 'none'} by --label-column.")
    return usual[0]
