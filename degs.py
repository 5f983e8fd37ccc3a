"""From labels to biology: rank the genes of every cluster, name clusters, draw, and report."""

from __future__ import annotations

import dataclasses
import io
import os
import shlex
import sys
from pathlib import Path

import pandas as pd
import yaml
from tqdm import tqdm

import figures
import labelled
import marker_figures
import markers
import pipeline
import report
import results
import score
from config import DEGConfig
from folders import locked, refuse_to_overwrite, staged
from labelled import Labelled
from markers import GROUP, Markers
from utils import UserError, format_table, limited_threads, log, sha256

TABLES = ("markers.csv", "top_markers.csv", "cluster_types.csv", "cluster_names.csv", "markers.yaml")
FIGURES = tuple(f"{stem}.{format}" for stem in marker_figures.STEMS for format in ("png", "pdf", "svg"))
FILES = (*TABLES, *FIGURES, report.FILE)
REPORT_DPI = 100


def run(settings: DEGConfig) -> None:
    """Find cells and labels, rank, write, draw and report, as the settings say."""
    with limited_threads(settings.threads):
        found = labelled.find(settings)
        folder = output_folder(found, settings)
        with locked(folder):
            if found.run is not None and results.read_run(found.run.folder) != found.run:
                raise UserError(f"The run in {found.run.folder} was replaced by another meanwhile; start again.")
            describe(found, settings, folder)


def output_folder(cells: Labelled, settings: DEGConfig) -> Path:
    """Where the results go: the run's own folder for its own labels; for others a folder beside it, by the labels' name."""
    if settings.output != "auto":
        return Path(settings.output)
    home = cells.run.folder if cells.run else results.RESULTS / cells.task / cells.name
    name = "".join(sign if sign.isprintable() and sign not in "/\\" else "_" for sign in cells.source)
    return home if cells.own else home.with_name(f"{home.name}_by_{name}")


def describe(cells: Labelled, settings: DEGConfig, folder: Path) -> None:
    """Write all tables, figures and the report of labelled cells into folder; tables are in place before anything is drawn."""
    n_clusters = cells.cells.obs[GROUP].nunique()
    log.info("%s: %d clusters of %d %s, %s.", cells.name, n_clusters, cells.cells.n_obs, cells.unit, cells.labels_from)
    given = [Path(name) for name in (settings.labels, settings.marker_genes) if os.path.isfile(name)]
    refuse_to_overwrite([*given, *cells.files], folder, FILES)
    known_markers = _known_markers(cells, settings)
    found = markers.rank(
        cells.cells,
        groups=settings.groups,
        method=settings.method,
        n_genes=settings.n_genes,
        min_in_group_fraction=settings.min_in_group_fraction,
        max_out_group_fraction=settings.max_out_group_fraction,
        min_fold_change=settings.min_fold_change,
    )
    named = markers.name_clusters(cells.cells, known_markers) if known_markers else None
    types = None if cells.known is None else score.largest_overlaps(cells.cells.obs[GROUP], cells.known)
    overview = summarise(cells, found, types, named)
    with staged(folder, FILES) as stage:
        _write_tables(stage, found, types, named, settings)
        facts = provenance(cells, settings)
        text = yaml.safe_dump(facts, sort_keys=False, allow_unicode=True)
        (stage / "markers.yaml").write_text(text, encoding="utf-8")
    with staged(folder, (*FIGURES, report.FILE)) as stage:
        pictures = _draw(cells, found, _shown_names(cells, named), settings, stage)
        page = report.page(cells, overview, found.listed(settings.n_genes), pictures, facts)
        (stage / report.FILE).write_text(page, encoding="utf-8")
    print(f"\n{_as_text(overview)}\nResults: {folder}")


def _known_markers(cells: Labelled, settings: DEGConfig) -> dict[str, list[str]] | None:
    if not settings.marker_genes:
        return None
    if not os.path.isfile(settings.marker_genes):
        raise UserError(f"--marker-genes {settings.marker_genes} is not a file.")
    return markers.read_marker_genes(Path(settings.marker_genes), cells.cells.var_names)


def summarise(cells: Labelled, found: Markers, types: pd.DataFrame | None, named: pd.DataFrame | None) -> pd.DataFrame:
    """One row per cluster that was asked for: cells, name, known type, and its first genes, before and after the filter."""
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
    short = table.drop(columns="specific genes").reset_index()
    cut = short.assign(**{"top genes": short["top genes"].str.split(", ").str[:3].str.join(", ")})
    rows = [[_cell(value) for value in row] for row in cut.itertuples(index=False)]
    return format_table(list(cut), rows)


def _cell(value: object) -> str:
    if pd.isna(value):
        return ""
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _shown_names(cells: Labelled, named: pd.DataFrame | None) -> dict[str, str]:
    """What clusters are called in figures: their own names, and beside them those that their markers give."""
    names = list(cells.cells.obs[GROUP].cat.categories)
    given = {} if named is None else named["name"].to_dict()
    return {name: f"{name} {given[name]}" if name in given else name for name in names}


def _write_tables(
    folder: Path, found: Markers, types: pd.DataFrame | None, named: pd.DataFrame | None, settings: DEGConfig
) -> None:
    found.table.to_csv(folder / "markers.csv", index=False, float_format="%.6g")
    found.listed(settings.n_genes).to_csv(folder / "top_markers.csv", index=False, float_format="%.6g")
    for table, name in ((types, "cluster_types.csv"), (named, "cluster_names.csv")):
        if table is not None:
            table.to_csv(folder / name, float_format="%.6g")


def provenance(cells: Labelled, settings: DEGConfig) -> dict:
    """Everything needed to repeat the ranking: `--config markers.yaml` reads the settings back."""
    asked = dataclasses.asdict(settings) | {"task": cells.task}
    files = [*cells.files, *(Path(asked[name]) for name in ("labels", "marker_genes") if os.path.isfile(asked[name]))]
    asked |= {
        name: str(Path(asked[name]).resolve()) for name in ("labels", "marker_genes") if os.path.isfile(asked[name])
    }
    if cells.run is not None or os.path.exists(asked["dataset"]):
        asked["dataset"] = str((cells.run.folder if cells.run else Path(asked["dataset"])).resolve())
    return {
        "settings": asked,
        "provenance": {
            "command": shlex.join(["python", *sys.argv]),
            "dataset": cells.name,
            "labels": cells.labels_from,
            "values": cells.values,
            "umap": cells.umap_from,
            "sha256": {str(path.resolve()): sha256(path) for path in dict.fromkeys(files)},
            "versions": pipeline.versions(),
        },
    }


def _draw(
    cells: Labelled, found: Markers, names: dict[str, str], settings: DEGConfig, folder: Path
) -> list[report.Picture]:
    """Draw every figure into folder, and as PNG for the report."""
    pictures = []
    drawings = list(marker_figures.drawings(cells, found, names, settings))
    for drawing in tqdm(drawings, desc="figures", unit="figure"):
        figure, png = drawing.make(), io.BytesIO()
        figures.save(figure, folder / f"{drawing.stem}.{settings.format}", settings.format, settings.dpi)
        figures.save(figure, png, "png", REPORT_DPI)
        pictures.append(report.Picture(drawing.title, drawing.caption, png.getvalue()))
    return pictures
