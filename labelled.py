"""Cells with labels, from a finished run or from any data set, as markers and figures need them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import anndata as ad
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
LABEL_COLUMNS = (FINAL, "label", "labels", "cluster", "clusters", *data.LABEL_KEYS, *spatial.LABEL_KEYS)
LABEL_COLUMNS += ("leiden", "louvain", "seurat_clusters")


@dataclass
class Labelled:
    """Cells (or spots) that have a label.

    name: of the data set; task: SC or ST.
    cells: X log-normalised with all genes, var_names as people read them, obs['cluster'] (categorical of strings),
        obsm['X_umap'], for spots obsm['spatial'] and uns['spatial'] as squidpy keeps it.
    known: known types of these cells, or None. sections: of the spots, or None where all are of one.
    labels_from: in words, where the labels are from; source: the name of their column; own: whether they are the
        final labels of run.
    values: in words, what the values were before normalisation.
    run: the finished run that the cells are from, or None.
    """

    name: str
    task: str
    cells: ad.AnnData
    known: pd.Series | None
    sections: pd.Series | None
    labels_from: str
    source: str
    own: bool
    values: str
    run: results.Run | None


def of_result(result: pipeline.Result, run: results.Run) -> Labelled:
    """The cells of a run that has just ended, with its final labels. run: what it has written."""
    known, cells = result.prepared.known, result.cells
    own = ad.AnnData(cells.X, obs=cells.obs, var=cells.var, obsm=cells.obsm)
    own.uns |= {"spatial": cells.uns["spatial"]} if "spatial" in cells.uns else {}
    labels_from = f"the final labels of this run, seed {result.final_seed}"
    own.var_names = markers.gene_names(own.var)
    own = _with_groups(own, own.obs[FINAL])
    name, sections = _name(run.settings["dataset"], run.task), _sections(own, run.task, run)
    return Labelled(name, run.task, own, known, sections, labels_from, FINAL, True, result.prepared.values, run)


def find(settings: DEGConfig) -> Labelled:
    """The cells and labels that the settings mean, joined by barcode; cells without a label are left out.

    Raises UserError where there are no such data, run or labels, and for labels of other cells.
    """
    run = find_run(settings)
    if run is None:
        cells, values = read_cells(settings)
        name, task, label_key = _name(settings.dataset, settings.task), settings.task, settings.label_key
    else:
        log.info("The finished run in %s.", run.folder)
        cells, values = data.read(run.folder / "result.h5ad"), run.provenance["values"]
        name, task = _name(run.settings["dataset"], run.task), run.task
        label_key = run.settings["label_key"] if settings.label_key == "auto" else settings.label_key
    labels, labels_from, own = find_labels(cells.obs, settings, run)
    known = pipeline.known_labels(cells.obs, label_key, USUAL_KEYS[task], cells)
    if known is not None and known.name == labels.name and not own:
        known = None  # to compare labels with themselves says nothing
    if "X_umap" not in cells.obsm:
        log.info("UMAP of %d cells.", cells.n_obs)
        pipeline.add_umap(cells, "X_scrcl" if "X_scrcl" in cells.obsm else "X_pca")
    cells = _with_groups(cells, labels)
    cells.var_names = markers.gene_names(cells.var, settings.gene_key)
    known = None if known is None else known.loc[cells.obs_names]
    sections = _sections(cells, task, run)
    return Labelled(name, task, cells, known, sections, labels_from, str(labels.name), own, values, run)


def _sections(cells: ad.AnnData, task: str, run: results.Run | None) -> pd.Series | None:
    return None if task == "SC" else spatial.sections(cells.obs, run.settings["section_key"] if run else "auto")


def _with_groups(cells: ad.AnnData, labels: pd.Series) -> ad.AnnData:
    """The cells that have a label, with labels in obs['cluster'] and without layers, to keep memory low."""
    there = labels.notna().to_numpy()
    if not there.all():
        log.info("%d of %d cells have no label: left out.", (~there).sum(), len(there))
    cells.layers.clear()
    cells = cells if there.all() else cells[there].copy()
    names = labels[there].astype(str)
    cells.obs[markers.GROUP] = pd.Categorical(names, natural_order(names.unique()))
    return cells


def _name(dataset: str, task: str) -> str:
    return spatial.dataset_name(dataset) if task == "ST" else data.dataset_name(dataset)


def find_run(settings: DEGConfig) -> results.Run | None:
    """The finished run that the settings mean: the latest, that in a folder, or that of a data set; None for none.

    A run of that name on another file does not count.
    Raises UserError for settings that have no effect on a run.
    """
    folder = Path(settings.dataset)
    if not settings.dataset:
        run = results.latest_run(settings.task)
    elif results.read_run(folder):
        run = results.read_run(folder.resolve())
    else:
        run = results.read_run(results.RESULTS / settings.task / _name(settings.dataset, settings.task))
        if run is not None and folder.exists() and _path(settings).resolve() != Path(run.settings["dataset"]):
            run = None
    if run is not None and settings.layer != "auto":
        raise UserError("--layer has no effect on a finished run, whose values are in its result.h5ad; leave it out.")
    return run


def _path(settings: DEGConfig) -> Path | None:
    return spatial.find(settings.dataset) if settings.task == "ST" else data.find_h5ad(settings.dataset)


def read_cells(settings: DEGConfig) -> tuple[ad.AnnData, str]:
    """Any data set without a run: its cells, log-normalised, with a UMAP (its own where it has one); in words, its values."""
    path = _path(settings)
    if settings.task == "SC":
        adata = data.read(path)
    else:
        adata = spatial.demo() if path is None else spatial.read(path, _name(settings.dataset, "ST"))
    expression = data.find_expression(spatial.placed(adata) if settings.task == "ST" else adata, settings.layer)
    config = CONFIGS[settings.task]()
    cells = preprocess.preprocess(expression, config.n_top_genes)
    if "spatial" in adata.uns:
        cells.uns["spatial"] = adata.uns["spatial"]
    if "X_umap" in adata.obsm:
        cells.obsm["X_umap"] = adata[cells.obs_names].obsm["X_umap"]
    else:
        pipeline.pcs_and_inputs(cells, config)
    return cells, expression.in_words()


def find_labels(obs: pd.DataFrame, settings: DEGConfig, run: results.Run | None) -> tuple[pd.Series, str, bool]:
    """Labels of the cells in obs, missing where they have none; in words, where they are from; whether they are the run's own."""
    given = settings.labels
    own_table = None if run is None else run.folder / "labels.csv"
    if given == "auto" and run is not None:
        labels, origin = read_labels(own_table, FINAL, obs.index), "the final labels of the run"
    elif given == "auto" and FINAL in obs:
        labels, origin = data.as_text(obs[FINAL]), f"obs[{FINAL!r}]"
    elif given == "auto":
        raise UserError(
            f"There is no finished run of {settings.dataset}; run `python run{settings.task}.py --dataset "
            f"{settings.dataset}` first, or name labels by --labels (a table with barcodes, or an obs column)."
        )
    elif Path(given).is_file():
        labels, origin = read_labels(Path(given), settings.label_column, obs.index), given
    elif given in obs:
        labels, origin = data.as_text(obs[given]), f"obs[{given!r}]"
    else:
        there = ", ".join(map(str, obs.columns)) or "none"
        raise UserError(f"--labels {given} is neither a file nor an obs column; the columns are {there}.")
    if labels.isna().all():
        raise UserError(f"None of the {len(obs)} cells has a label in {origin}.")
    is_own = run is not None and (given == "auto" or Path(given).resolve() == own_table.resolve())
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
