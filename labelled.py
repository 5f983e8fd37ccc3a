"""Cells with labels, from a finished run or from any data set, as markers and figures need them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import anndata as ad
import numpy as np
import pandas as pd

import data
import markers
import pipeline
import preprocess
import results
import spatial
import tables
from config import Config, DEGConfig, SCConfig, STConfig
from pipeline import FINAL
from utils import UserError, log, natural_order

CONFIGS: dict[str, type[Config]] = {"SC": SCConfig, "ST": STConfig}
USUAL_KEYS = {"SC": data.LABEL_KEYS, "ST": spatial.LABEL_KEYS}
LABEL_COLUMNS = (
    *(FINAL, "label", "labels", "cluster", "clusters", *data.LABEL_KEYS, *spatial.LABEL_KEYS),
    *("leiden", "louvain", "seurat_clusters"),
)


@dataclass
class Labelled:
    """Cells (or spots) that have a label.

    name: of the data set; task: SC or ST.
    cells: X log-normalised with all genes, var_names as people read them, obs['cluster'] (categorical of strings),
        obsm['X_umap'], for spots obsm['spatial'] and uns['spatial'] as squidpy keeps it.
    known: known types of these cells, or None. sections: of the spots, or None where all are of one.
    labels_from, values, umap_from: in words, where the labels are from, what the values were before
        normalisation, and what the UMAP is of.
    source: the name of the labels' column; own: whether they are the final labels of run.
    run: the finished run that the cells are from, or None; files: what was read.
    """

    name: str
    task: Literal["SC", "ST"]
    cells: ad.AnnData
    known: pd.Series | None
    sections: pd.Series | None
    labels_from: str
    values: str
    umap_from: str
    source: str
    own: bool
    run: results.Run | None
    files: tuple[Path, ...]

    @property
    def unit(self) -> str:
        """What a row is, in the plural."""
        return CONFIGS[self.task].unit


EMBEDDING = "the embedding that was clustered"


def of_result(result: pipeline.Result, run: results.Run) -> Labelled:
    """The cells of a run that has just ended, with its final labels. run: what it has written."""
    cells = ad.AnnData(result.cells.X, obs=result.cells.obs, var=result.cells.var, obsm=result.cells.obsm)
    cells.uns |= {key: result.cells.uns[key] for key in ("spatial",) if key in result.cells.uns}
    labels = (cells.obs[FINAL], "the final labels of the run", True)
    return _labelled(cells, labels, DEGConfig(), run, run.task, run.provenance["values"], EMBEDDING, _files(run))


def find(settings: DEGConfig) -> Labelled:
    """The cells and labels that the settings mean, joined by barcode; cells without a label are left out.

    Raises UserError where there are no such data, run or labels, and for labels of other cells.
    """
    run = find_run(settings)
    if run is None:
        task, path = settings.task, _path(settings)
        cells, values, umap_from = read_cells(settings, path)
        files = () if path is None else spatial.input_files(path, "auto") if task == "ST" else (path,)
    else:
        log.info("The finished run in %s.", run.folder)
        cells, values, umap_from = data.read(run.folder / "result.h5ad"), run.provenance["values"], EMBEDDING
        task, files = run.task, _files(run)
    labels = find_labels(cells.obs, settings, run)
    if "X_umap" not in cells.obsm:
        log.info("UMAP of %d %s.", cells.n_obs, CONFIGS[task].unit)
        pipeline.add_umap(cells, "X_pca" if run is None else "X_scrcl")
    return _labelled(cells, labels, settings, run, task, values, umap_from, files)


def _files(run: results.Run) -> tuple[Path, ...]:
    return (run.folder / "result.h5ad", run.folder / "labels.csv")


def _labelled(
    cells: ad.AnnData,
    found: tuple[pd.Series, str, bool],
    settings: DEGConfig,
    run: results.Run | None,
    task: Literal["SC", "ST"],
    values: str,
    umap_from: str,
    files: tuple[Path, ...],
) -> Labelled:
    """The cells that have a label. found: as find_labels returns it."""
    labels, labels_from, own = found
    label_key = run.settings["label_key"] if run and settings.label_key == "auto" else settings.label_key
    known = data.find_labels(cells.obs, label_key, USUAL_KEYS[task])
    section_key = run.settings.get("section_key", "auto") if run else "auto"
    sections = spatial.sections(cells.obs, section_key) if task == "ST" else None
    cells.var_names = markers.gene_names(cells.var, settings.gene_key)
    cells = _with_groups(cells, labels)
    known = None if known is None else known.loc[cells.obs_names]
    if known is not None and known.dropna().eq(cells.obs[markers.GROUP].astype(str)[known.notna()]).all():
        known = None  # there are none, or they are the labels themselves, and to compare these says nothing
    sections = None if sections is None else sections.loc[cells.obs_names]
    name = _name(run.settings["dataset"] if run else settings.dataset, task)
    source = str(labels.name)
    return Labelled(name, task, cells, known, sections, labels_from, values, umap_from, source, own, run, files)


def _with_groups(cells: ad.AnnData, labels: pd.Series) -> ad.AnnData:
    """The cells that have a label, with labels in obs['cluster'] and without layers, to keep memory low."""
    there = labels.notna().to_numpy()
    if not there.all():
        log.info("%d of %d cells have no label: left out.", (~there).sum(), len(there))
    cells.layers.clear()
    cells = cells if there.all() else cells[there].copy()
    cells.obs_names.name = None  # it may be called as the column below
    names = labels[there].astype(str)
    cells.obs[markers.GROUP] = pd.Categorical(names, natural_order(names.unique()))
    return cells


def _name(dataset: str, task: str) -> str:
    return spatial.dataset_name(dataset) if task == "ST" else data.dataset_name(dataset)


def find_run(settings: DEGConfig) -> results.Run | None:
    """The finished run that the settings mean, or None: that in a folder or of a data set; else that of the labels, or the latest.

    A run of that name on another file does not count.
    Raises UserError for settings that have no effect on a run.
    """
    given = Path(settings.dataset)
    beside = Path(settings.labels).resolve().parent  # of a run's own labels.csv: the run
    if not settings.dataset and os.path.isfile(settings.labels) and results.is_finished(beside):
        run = results.read_run(beside)
    elif not settings.dataset:
        run = results.latest_run(settings.task)
    elif results.is_finished(given):
        run = results.read_run(given.resolve())
    else:
        run = results.read_run(results.RESULTS / settings.task / _name(settings.dataset, settings.task))
        if run is not None and not _is_of(run, settings):
            run = None
    if run is not None and settings.layer != "auto":
        raise UserError("--layer has no effect on a finished run, whose values are in its result.h5ad; leave it out.")
    return run


def _is_of(run: results.Run, settings: DEGConfig) -> bool:
    """Whether a run of the data set's name is of the file that the settings mean, where they mean one."""
    given, of_run = Path(settings.dataset), Path(run.settings["dataset"])
    if given.resolve() == of_run or (given.name == settings.dataset and not os.path.exists(given)):
        return True
    path = _path(settings)
    return path is None or path.resolve() == of_run


def _path(settings: DEGConfig) -> Path | None:
    return spatial.find(settings.dataset) if settings.task == "ST" else data.find_h5ad(settings.dataset)


def read_cells(settings: DEGConfig, path: Path | None) -> tuple[ad.AnnData, str, str]:
    """Any data set without a run: its cells, log-normalised; in words, its values, and what its UMAP is of.

    The UMAP is the file's own; where it has none, obsm['X_pca'] is there to make one of.
    """
    if settings.task == "SC":
        adata = data.read(path)
    else:
        adata = spatial.demo() if path is None else spatial.read(path, _name(settings.dataset, "ST"))
    expression = data.find_expression(spatial.placed(adata) if settings.task == "ST" else adata, settings.layer)
    config = CONFIGS[settings.task]()
    cells = preprocess.preprocess(expression, **config.preprocessing)
    if "spatial" in adata.uns:
        cells.uns["spatial"] = adata.uns["spatial"]
    places = adata.obs_names.get_indexer(cells.obs_names)
    umap = np.asarray(adata.obsm["X_umap"])[places] if "X_umap" in adata.obsm else np.empty(0)
    if umap.ndim == 2 and umap.shape[-1] > 1 and np.isfinite(umap[:, :2]).all():
        cells.obsm["X_umap"] = umap[:, :2]
        return cells, expression.in_words(), "the data set's own obsm['X_umap']"
    scaled = preprocess.encoder_values(cells, "scaled")
    cells.obsm["X_pca"] = preprocess.principal_components(scaled, config.n_pcs)
    return cells, expression.in_words(), f"{cells.obsm['X_pca'].shape[1]} principal components"


def _in_obs(key: str) -> str:
    return f"obs[{key!r}]"


def find_labels(obs: pd.DataFrame, settings: DEGConfig, run: results.Run | None) -> tuple[pd.Series, str, bool]:
    """Labels of the cells in obs, missing where they have none; in words, where they are from; whether they are the run's own."""
    given = settings.labels
    is_file = os.path.isfile(given)  # unlike Path.is_file, no error for an impossible name
    own_table = None if run is None else run.folder / "labels.csv"
    if given == "auto" and own_table is not None:
        labels, origin = read_labels(own_table, FINAL, obs.index), "the final labels of the run"
    elif given == "auto" and FINAL in obs:
        labels, origin = data.as_text(obs[FINAL]), _in_obs(FINAL)
    elif given == "auto":
        raise UserError(
            f"There is no finished run of {settings.dataset}; run `python run{settings.task}.py --dataset "
            f"{settings.dataset}` first, or name labels by --labels (a table with barcodes, or an obs column)."
        )
    elif is_file:
        labels, origin = read_labels(Path(given), settings.label_column, obs.index), given
    elif given in obs:
        labels, origin = data.as_text(obs[given]), _in_obs(given)
    else:
        there = ", ".join(map(str, obs.columns)) or "none"
        raise UserError(f"--labels {given} is neither a file nor an obs column; the columns are {there}.")
    if settings.label_column != "auto" and not is_file:
        raise UserError(f"--label-column names a column of a table, but the labels are {origin}; leave it out.")
    if labels.isna().all():
        raise UserError(f"None of the {len(obs)} cells has a label in {origin}.")
    is_own = own_table is not None and (given == "auto" or (is_file and Path(given).resolve() == own_table.resolve()))
    return labels, origin, is_own and labels.name == FINAL


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
    return data.as_text(table[_label_column(table, label_column, path)].reindex(barcodes))


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
