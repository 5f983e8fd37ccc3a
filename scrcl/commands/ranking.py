"""Rank the genes of labelled cells, name clusters, draw figures and write the report, for the command `markers`."""

from __future__ import annotations

import dataclasses
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from scrcl import plot
from scrcl.cluster.scores import largest_overlaps
from scrcl.commands import files, labelled, report, results
from scrcl.commands.results import Run
from scrcl.commands.script import command_line
from scrcl.disk import home
from scrcl.disk.folders import locked, refuse_to_overwrite, staged
from scrcl.genes import further, naming, ranking
from scrcl.genes.labelled import Labelled
from scrcl.genes.ranking import GROUP, Markers
from scrcl.genes.settings import MarkerSettings
from scrcl.keys import OURS, PCS, SPATIAL, UMAP
from scrcl.messages import UserError, format_table, log, progress, whole_path
from scrcl.plot import style
from scrcl.plot.genes import GeneScene
from scrcl.prepare.graphs import nearest_spots
from scrcl.readers.marker_genes import marker_genes as known_genes
from scrcl.result import Result
from scrcl.runtime import limited_threads, sha256, versions

BEYOND = ("enrichment", "spatial_genes", "pseudotime", "conditions")
RING = 6  # nearest spots, over which a gene varies in space
REPORT_DPI = 100  # of the figures in the report


def run(settings: MarkerSettings) -> None:
    """Find cells and labels, rank genes, and write tables, figures and the report.

    Parameters
    ----------
    settings
        The settings of the ranking.

    Raises
    ------
    UserError
        When cells, labels or settings cannot be used, and when the run was replaced meanwhile.
    """
    style.to_files()
    with limited_threads(settings.threads):
        cells, of_run = labelled.find(settings)
        folder = output_folder(cells, of_run, settings)
        with locked(folder):
            if of_run is not None and results.read_run(of_run.folder) != of_run:
                raise UserError(f"The run in {of_run.folder} was replaced by another run meanwhile; start again.")
            describe(cells, of_run, settings, folder)


def output_folder(cells: Labelled, of_run: Run | None, settings: MarkerSettings) -> Path:
    """Return the folder where the results go.

    For the run's own labels it is the run's folder; otherwise it is a folder next to it, named after the labels.

    Parameters
    ----------
    cells
        The cells with their labels.
    of_run
        The finished run they are from, or None.
    settings
        The settings of the ranking, with output.
    """
    if settings.output != "auto":
        return Path(settings.output)
    place = of_run.folder if of_run else home.results(cells.task) / cells.name
    name = "".join(sign if sign.isprintable() and sign not in "/\\" else "_" for sign in cells.label_name)
    return place if cells.own else place.with_name(f"{place.name}_by_{name}")


def describe_result(result: Result, folder: Path, marker_genes: str) -> None:
    """Describe a run or a look that has just been written, as --report does.

    Parameters
    ----------
    result
        What was found.
    folder
        Where it was written, and where the tables, figures and the report go.
    marker_genes
        Known markers to name the clusters by; '' for none.
    """
    written = results.read_run(folder)
    assert written is not None
    settings = MarkerSettings(task=result.settings.task, dataset=str(folder), marker_genes=marker_genes)
    describe(labelled.of_result(result, written), written, settings, folder)


def describe(cells: Labelled, of_run: Run | None, settings: MarkerSettings, folder: Path) -> None:
    """Write all tables, figures and the report of labelled cells into a folder.

    The tables are in place before anything is drawn.

    Parameters
    ----------
    cells
        The cells with their labels.
    of_run
        The finished run they are from, or None.
    settings
        The settings of the ranking.
    folder
        Where to write.

    Raises
    ------
    UserError
        When the settings cannot be used, or the results would overwrite an input.
    """
    n_clusters = cells.cells.obs[GROUP].nunique()
    log.info("%s: %d clusters of %d %s, %s.", cells.name, n_clusters, cells.cells.n_obs, cells.unit, cells.labels_from)
    asked = (settings.labels, settings.marker_genes, settings.gene_sets)
    given = [Path(name) for name in asked if os.path.isfile(name)]
    refuse_to_overwrite([*given, *cells.files], folder, files.OF_GENES)
    if of_run is None and not settings.overwrite:
        _refuse_other_data(folder, cells, settings)
    known_markers = known_genes(settings.marker_genes, cells.cells.var_names)
    found = ranking.rank(cells.cells, **settings.of_ranking)
    named = naming.name_clusters(cells.cells, known_markers) if known_markers else None
    types = None if cells.known is None else largest_overlaps(cells.cells.obs[GROUP], cells.known)
    overview = summarise(cells, found, types, named)
    facts = provenance(cells, of_run, settings)
    beyond = _beyond_markers(cells, found, settings)
    with staged(folder, files.OF_GENES) as stage:
        _write_tables(stage, found, types, named, settings)
        for name, table in beyond.items():
            if table is not None:
                table.to_csv(stage / f"{name}.csv", float_format="%.6g", index=name in ("spatial_genes", "pseudotime"))
        text = yaml.safe_dump(facts, sort_keys=False, allow_unicode=True)
        (stage / "markers.yaml").write_text(text, encoding="utf-8")
    with staged(folder, (*files.FIGURES_OF_GENES, files.REPORT)) as stage:
        scene = GeneScene(cells, found, _shown_names(cells, named), settings, *beyond.values())
        page = report.page(cells, of_run, overview, found.listed(settings.n_genes), _draw(scene, stage), facts)
        (stage / files.REPORT).write_text(page, encoding="utf-8")
    print(f"\n{_as_text(overview)}\nResults: {folder}")


def _refuse_other_data(folder: Path, cells: Labelled, settings: MarkerSettings) -> None:
    """Raise UserError when a folder has the markers of other data, which these would replace."""
    try:
        before = yaml.safe_load((folder / "markers.yaml").read_text(encoding="utf-8"))
        known, there = set(before["provenance"]["sha256"].values()), before["settings"]["dataset"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError):
        return  # no file of a ranking; whether it may be replaced is decided elsewhere
    if not {sha256(path) for path in cells.files} <= known:
        raise UserError(
            f"{folder} holds the markers of {there}, and these are of {settings.dataset}; add --overwrite to replace "
            "them, or choose another folder with --output."
        )


def _beyond_markers(cells: Labelled, found: Markers, settings: MarkerSettings) -> dict[str, Any]:
    """Return tables of gene sets, of genes that vary in space and of pseudotime, by name; None if not asked for."""
    tables: dict[str, Any] = dict.fromkeys(BEYOND)
    if settings.gene_sets:
        tables["enrichment"] = further.enrichment(found, Path(settings.gene_sets), list(cells.cells.var_names))
    if cells.task == "ST":
        members = None if cells.sections is None else cells.sections.to_numpy()
        nearest = nearest_spots(np.asarray(cells.cells.obsm[SPATIAL]), RING, members)
        tables["spatial_genes"] = further.spatial_genes(cells.cells, nearest.maximum(nearest.T).tocsr(), members)
    if cells.bulk is not None:
        log.info("Comparing conditions.")
        tables["conditions"] = further.conditions(cells.bulk)
    if settings.root != "none":
        use_rep = next(key for key in (OURS.embedding, PCS, UMAP) if key in cells.cells.obsm)
        tables["pseudotime"] = further.pseudotime(cells.cells, settings.root, use_rep)
    return tables


def summarise(cells: Labelled, found: Markers, types: pd.DataFrame | None, named: pd.DataFrame | None) -> pd.DataFrame:
    """Return one row per cluster asked for: its size, name, known type, and first genes before and after the filter.

    Parameters
    ----------
    cells
        The cells with their labels.
    found
        Their ranked genes.
    types
        As `scores.largest_overlaps` returns, or None.
    named
        As `naming.name_clusters` returns, or None.
    """
    sizes = cells.cells.obs[GROUP].value_counts(sort=False)
    sizes = sizes[[name for name in sizes.index if name in found.specific or name in found.untested]]
    table = pd.DataFrame({cells.unit: sizes}).rename_axis("cluster")
    if named is not None:
        table["name"] = named["name"]
        table["margin"] = named["margin"]
    top = {name: ", ".join(genes[:5]) for name, genes in found.top.items()}
    table["top genes"] = pd.Series(top | dict.fromkeys(found.untested, "not tested: one alone"), dtype=object)
    if types is not None and cells.known is not None:
        table[f"mostly ({cells.known.name})"] = types["known_type"]
        table["Jaccard"] = types["jaccard"]
    table["specific genes"] = pd.Series(
        {name: ", ".join(genes[:5]) for name, genes in found.specific.items()}, dtype=object
    )
    table["specific"] = pd.Series({name: len(genes) for name, genes in found.specific.items()}, dtype="Int64")
    return table


def _as_text(table: pd.DataFrame) -> str:
    """Return the table as text, with fewer genes per cluster."""
    short = table.drop(columns="specific genes").reset_index()
    cut = short.assign(**{"top genes": short["top genes"].str.split(", ").str[:3].str.join(", ")})
    rows = [[_cell(value) for value in row] for row in cut.itertuples(index=False)]
    return format_table(list(cut), rows)


def _cell(value: object) -> str:
    """Return a value as text, empty where it is missing."""
    if pd.isna(value):
        return ""
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _shown_names(cells: Labelled, named: pd.DataFrame | None) -> dict[str, str]:
    """Return what each cluster is called in figures: its own name, followed by the name its markers give, if any."""
    names = list(cells.cells.obs[GROUP].cat.categories)
    given = {} if named is None else named["name"].to_dict()
    return {name: f"{name} {given[name]}" if name in given else name for name in names}


def _write_tables(
    folder: Path, found: Markers, types: pd.DataFrame | None, named: pd.DataFrame | None, settings: MarkerSettings
) -> None:
    """Write the tables of genes, of known types and of names."""
    found.table.to_csv(folder / "markers.csv", index=False, float_format="%.6g")
    found.listed(settings.n_genes).to_csv(folder / "top_markers.csv", index=False, float_format="%.6g")
    for table, name in ((types, "cluster_types.csv"), (named, "cluster_names.csv")):
        if table is not None:
            table.to_csv(folder / name, float_format="%.6g")


def provenance(cells: Labelled, of_run: Run | None, settings: MarkerSettings) -> dict:
    """Return everything needed to repeat the ranking, as markers.yaml holds it.

    `--config markers.yaml` reads the settings back.

    Parameters
    ----------
    cells
        The cells with their labels.
    of_run
        The finished run they are from, or None.
    settings
        The settings of the ranking.
    """
    asked = dataclasses.asdict(settings) | {"task": cells.task}
    given = [name for name in ("labels", "marker_genes", "gene_sets") if os.path.isfile(asked[name])]
    files = [*cells.files, *(Path(asked[name]) for name in given)]
    asked |= {name: whole_path(Path(asked[name])) for name in given}
    if asked["output"] != "auto":
        asked["output"] = whole_path(Path(asked["output"]))
    if of_run is not None:
        asked["dataset"] = whole_path(of_run.folder)
    elif os.path.exists(asked["dataset"]):
        asked["dataset"] = whole_path(Path(asked["dataset"]))
    return {
        "settings": asked,
        "provenance": {
            "command": command_line(),
            "dataset": cells.name,
            "labels": cells.labels_from,
            "values": cells.values,
            "umap": cells.umap_from,
            "sha256": {whole_path(path): sha256(path) for path in dict.fromkeys(files)},
            "versions": versions(),
        },
    }


def _draw(scene: GeneScene, folder: Path) -> list[report.Picture]:
    """Draw every figure into the folder, and return each as a PNG for the report."""
    pictures, settings = [], scene.settings
    entries = {name: entry for name, entry in plot.GENE_FIGURES.items() if scene.labelled.task in entry.tasks}
    for name, entry in progress(entries.items(), desc="figures", unit="figure"):
        drawing = plot.gene_figure(name)(scene)
        if drawing is None:
            continue
        png = io.BytesIO()
        style.save(drawing.figure, folder / f"{name}.{settings.format}", settings.format, settings.dpi)
        style.save(drawing.figure, png, "png", REPORT_DPI)
        pictures.append(report.Picture(entry.title, drawing.caption, png.getvalue()))
    return pictures
