"""Another look at a finished run, from the command line: the run stays, and the look is written beside it."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import torch

from scrcl import again, processes
from scrcl.again import Look
from scrcl.annotate import write_cells
from scrcl.cluster import scores
from scrcl.cluster.trust import JOIN
from scrcl.commands import files, labelled, ranking, results
from scrcl.commands.results import Run
from scrcl.commands.run import draw
from scrcl.contents.labels import find_labels
from scrcl.disk import home
from scrcl.disk.folders import locked, refuse_to_overwrite, staged
from scrcl.keys import COUNTS, HIGHLY_VARIABLE, OURS, PCS, UMAP
from scrcl.messages import UserError, format_table, log, natural_order, without_home
from scrcl.plot import style
from scrcl.plot.layout import add_umap
from scrcl.plot.trust import compared
from scrcl.prepare.prepared import Prepared
from scrcl.readers.find import dataset_name
from scrcl.readers.marker_genes import require_marker_table
from scrcl.recipes import RECIPES, CellSettings, TissueSettings
from scrcl.result import Result, cluster_lines
from scrcl.runtime import Stopwatch, limited_threads, sha256

OF_THIS_COMMAND = (
    *("n_clusters", "merge", "split", "device", "tf32", "compile", "threads", "max_memory"),
    *("output", "format", "overwrite", "figures", "report", "marker_genes"),
)


def run(settings: CellSettings | TissueSettings) -> None:
    """Look at a finished run again, and write the usual files of a run into a folder beside it.

    Parameters
    ----------
    settings
        dataset is a finished run, by its folder or by the name of its data. The recipe is that of the run; of these
        settings count n_clusters, merge, split, and how to run.

    Raises
    ------
    UserError
        When there is no such run, or the look cannot be taken.
    """
    processes.require_one("Another look at a run")
    style.to_files()
    if settings.merge and (settings.split != "none" or settings.n_clusters != "auto"):
        raise UserError("--merge is a look of its own; leave out --split and --n-clusters.")
    several = len(settings.numbers_of_clusters()) > 1
    if several and settings.split != "none":
        raise UserError(f"--split takes one number of parts, not --n-clusters {settings.n_clusters}.")
    if several and (settings.output != "auto" or settings.report or settings.marker_genes):
        raise UserError(
            "Numbers of clusters are compared in the folder of the run; leave out --output, --report and "
            "--marker-genes."
        )
    require_marker_table(settings.marker_genes)
    before, watch = find(settings), Stopwatch()
    with limited_threads(settings.threads):
        with watch("read"):
            cells, recipe = before.cells(), recipe_of(before, settings)
        labelled.require_markers_in_data(settings.marker_genes, cells)
        if several:
            _compare(cells, recipe, before)
            return
        with watch("look"):
            look, name = take(cells, recipe)
        beside = before.folder.with_name(f"{before.folder.name}_{name}")
        folder = beside if settings.output == "auto" else Path(settings.output)
        if folder.resolve() == before.folder.resolve():
            raise UserError(f"This would replace the run in {folder} that is looked at; choose another --output.")
        refuse_other_run(folder, before, settings)
        if os.path.isfile(settings.marker_genes):
            refuse_to_overwrite([Path(settings.marker_genes)], folder, files.of_run(settings.task))
        with locked(folder):
            _write(as_result(cells, before, recipe, look, watch), before, folder)


def _compare(cells: ad.AnnData, recipe: CellSettings | TissueSettings, before: Run) -> None:
    """Compare numbers of clusters, write and draw that into the folder of the run, and print the table."""
    found = again.compared(cells, recipe.numbers_of_clusters(), recipe)
    rows = [[str(row.n_clusters), f"{row.agreement:.2f}", f"{row.least:.2f}", str(row.doubtful), row.first_joined]
            for row in found.itertuples()]  # fmt: skip
    titles = ["clusters", "agreement", "lowest of any cluster", "doubtful", "first to join"]
    print(f"\n{format_table(titles, rows)}\n")
    table, figure = files.COMPARED
    with staged(before.folder, files.COMPARED) as stage:
        found.round(4).to_csv(stage / table, index=False)
        if recipe.figures:
            style.save(compared(found), stage / figure)
    print(f"Results: {before.folder / table}")


def refuse_other_run(folder: Path, before: Run, settings: CellSettings | TissueSettings) -> None:
    """Raise UserError when a folder holds a run other than an earlier look at the same run."""
    if settings.overwrite or not files.is_finished(folder):
        return
    there = results.read_run(folder)
    if there is None or there.provenance["input"]["file"] != without_home(str(before.folder)):
        raise UserError(f"{folder} holds another run; add --overwrite to replace it, or choose another --output.")


def find(settings: CellSettings | TissueSettings) -> Run:
    """Return the finished run that the settings name, or raise UserError."""
    given = Path(settings.dataset).resolve()
    by_name = home.results(settings.task) / dataset_name(settings.dataset)
    found = results.read_run(given if files.is_finished(given) else by_name)
    if found is None:
        raise UserError(f"There is no finished run in {by_name} to look at again; name its folder, or run it first.")
    if found.folder != given and not labelled.is_of(found, settings.dataset):
        data = found.settings["dataset"]
        raise UserError(
            f"The run in {found.folder} is of {data}, not of {settings.dataset}; name the folder of the run."
        )
    if found.task != settings.task:
        other, own = RECIPES[found.task].unit, settings.unit
        raise UserError(f"The run in {found.folder} is of {other}, and this command is for {own}; use the other one.")
    return found


def recipe_of(before: Run, settings: CellSettings | TissueSettings) -> CellSettings | TissueSettings:
    """Return the recipe of a run, with what this command says."""
    fields = {f.name for f in dataclasses.fields(settings)}
    known = {name: value for name, value in before.settings.items() if name in fields}
    own = {name: getattr(settings, name) for name in OF_THIS_COMMAND}
    return type(settings)(**known | own | ({"seeds": settings.seeds} if settings.seeds else {}))


def take(cells: ad.AnnData, recipe: CellSettings | TissueSettings) -> tuple[Look, str]:
    """Return the look that a recipe asks for, and what is added to the name of the run's folder."""
    if recipe.merge:
        return again.merged(cells, recipe.merge), JOIN.join(natural_order(dict.fromkeys(recipe.merge)))
    if recipe.split != "none":
        return again.split(cells, recipe.split, of_kept(recipe, cells), recipe.n_clusters), f"{recipe.split}_divided"
    if recipe.n_clusters == "auto":
        raise UserError(
            "The data set is a finished run: add --n-clusters, --split or --merge for another look at it, or name the "
            "data to train anew."
        )
    return again.recluster(cells, recipe), f"{recipe.n_clusters}_clusters"


def of_kept(recipe: CellSettings | TissueSettings, cells: ad.AnnData) -> CellSettings | TissueSettings:
    """Return a recipe for the values that a run has kept: counts of all genes, or else what it has log-normalised."""
    plain = type(recipe)()
    if COUNTS in cells.layers and not cells.var[HIGHLY_VARIABLE].all():
        return dataclasses.replace(recipe, layer=COUNTS, values="auto")
    kept = dataclasses.replace(recipe, layer="X", values="lognorm", target_sum=plain.target_sum, hvg_flavor="seurat")
    if cells.var[HIGHLY_VARIABLE].all():
        log.warning("The run has kept its highly variable genes alone, so the cluster is divided by these.")
        kept = dataclasses.replace(kept, exclude_genes=[], genes="all")
    return kept


def as_result(
    cells: ad.AnnData, before: Run, recipe: CellSettings | TissueSettings, look: Look, watch: Stopwatch
) -> Result:
    """Return a look as the result of a run, with the model and the losses of the run that was looked at."""
    known = find_labels(cells.obs, recipe.label_key, recipe.usual_labels)
    values = f"{before.provenance['values']} of the run in {before.folder.name}"
    prepared = Prepared(cells, np.empty((0, 0)), cells.obsm[PCS], known, values)
    prepared.section_key = cells.uns[OURS.parameters].get("section_key", "none")
    lines = before.folder / "log.jsonl"
    history = [json.loads(line) for line in lines.read_text().splitlines()] if lines.is_file() else []
    result = Result(
        settings=recipe,
        prepared=prepared,
        n_clusters=len(look.clusters),
        n_clusters_from=look.how,
        numbers=None,
        labels=look.labels,
        confidence=look.confidence,
        clusters=look.clusters,
        tree=look.tree,
        scores={} if known is None else {name: scores.score(look.labels[name], known) for name in look.labels},
        chosen_seed=before.provenance["chosen_seed"],
        clustered=before.provenance["clustered"],
        state_dict=torch.load(before.folder / "model.pt", weights_only=True),
        history=history,
        device=before.provenance["device"],
        threads=torch.get_num_threads(),
        seconds=watch.seconds,
    )
    write_cells(result, cells.obsm[OURS.embedding])
    if UMAP in cells.obsm:
        cells.uns[OURS.parameters]["umap"] = UMAP
    return result


def _write(result: Result, before: Run, folder: Path) -> None:
    """Write a look as the files of a run, draw it, and say what it is."""
    recipe = result.settings
    hashes = {"labels.csv": sha256(before.folder / "labels.csv")}
    style.add_colours(style.Scene(result.cells))
    if recipe.figures and UMAP not in result.cells.obsm:
        add_umap(result.cells)
    # Cells that the run could not use stay in the table, without a label.
    rows = pd.read_csv(before.folder / "labels.csv", index_col=0, dtype={0: str}, usecols=[0]).index
    result.labels, result.confidence = result.labels.reindex(rows), result.confidence.reindex(rows)
    with staged(folder, files.of_run(recipe.task)) as stage:
        results.write(result, stage, before.folder, hashes)
    if recipe.figures:
        with staged(folder, files.figures(recipe.task)) as stage:
            draw(result.cells, recipe.task, stage)
    print(f"\n{in_words(result, before)}\nResults: {folder}")
    if recipe.report:
        ranking.describe_result(result, folder, recipe.marker_genes)
    else:
        log.info("Genes of these clusters: draw_DEGs.py --dataset %s", folder)


def in_words(result: Result, before: Run) -> str:
    """Return the table that ends a look."""
    unit, own = result.settings.unit, result.scores.get(OURS.labels)
    glance = labelled.at_a_glance(result.cells, OURS.labels, result.settings.marker_genes)
    lines = [*cluster_lines(result.clusters, unit, glance), ""]
    lines.append(f"{result.n_clusters} clusters, {result.n_clusters_from}.")
    if own:
        earlier = before.metrics["scores"].get(OURS.labels, {})
        rows = [[name, *(f"{found[metric]:.3f}" for metric in scores.METRICS)] for name, found in (
            ("this look", own), ("the run", earlier)) if found]  # fmt: skip
        lines += ["", format_table(["", *scores.METRICS], rows)]
    return "\n".join(lines)
