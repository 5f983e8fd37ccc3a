"""Run an analysis from a file to labels, scores and figures; the commands for cells and for tissue share this."""

from __future__ import annotations

import json
import os
from pathlib import Path

import anndata as ad

from scrcl import plot, processes
from scrcl.analysis import analyse, require_one_number
from scrcl.commands import files, labelled, ranking, results
from scrcl.disk import checkpoints, home
from scrcl.disk.checkpoints import Checkpoints
from scrcl.disk.folders import locked, refuse_to_overwrite, staged
from scrcl.keys import OURS
from scrcl.messages import UserError, log
from scrcl.method import worker
from scrcl.plot import style
from scrcl.plot.layout import add_umap
from scrcl.readers import Source
from scrcl.readers.marker_genes import require_marker_table
from scrcl.recipes import CellSettings, TissueSettings
from scrcl.result import Result, summary
from scrcl.runtime import Stopwatch, find_device, limited_threads


def run(settings: CellSettings | TissueSettings, source: Source) -> None:
    """Read a data set, analyse it, write the results and draw figures.

    The labels are in place before anything is drawn.

    Parameters
    ----------
    settings
        The recipe.
    source
        The data set.

    Raises
    ------
    UserError
        When input or settings cannot be used, or the results cannot be written.
    """
    style.to_files()
    require_one_number(settings)  # before the data are read
    with processes.joined(settings.device) as rank:
        find_device(settings.device)  # fails early if the device is not there
        if rank:
            worker.work(settings.device, settings.threads, settings.tf32, settings.compile)
            return
        with limited_threads(settings.threads):
            _run(settings, source, Stopwatch())


def output_folder(settings: CellSettings | TissueSettings, source: Source) -> Path:
    """Return the folder where the results go.

    Parameters
    ----------
    settings
        The recipe, with output.
    source
        The data set.

    Raises
    ------
    UserError
        When the results would overwrite the input.
    """
    task, asked = settings.task, settings.output
    folder = home.results(task) / source.name if asked == "auto" else Path(asked)
    given = [Path(settings.marker_genes)] if os.path.isfile(settings.marker_genes) else []
    refuse_to_overwrite([*source.files, *given], folder, files.of_run(task))
    return folder


def _run(settings: CellSettings | TissueSettings, source: Source, watch: Stopwatch) -> None:
    """Lock the folder of results, then read, analyse, write and draw."""
    require_marker_table(settings.marker_genes)
    folder = output_folder(settings, source)
    with locked(folder):
        with watch("read"):
            hashes = source.hashes()
            results.refuse_other_data(folder, settings, source, hashes)
            adata = source.read()
        log.info("%s: %d %s x %d genes.", source.name, adata.n_obs, settings.unit, adata.n_vars)
        labelled.require_markers_in_data(settings.marker_genes, adata)
        result = _analyse(settings, source, hashes, adata, folder, watch)
        if settings.figures:
            with staged(folder, files.figures(settings.task)) as stage, watch("draw"):
                draw(result.cells, settings.task, stage)
        asked = labelled.markers_left(settings.marker_genes, result.cells)
        glance = labelled.at_a_glance(result.cells, OURS.labels, asked)
        print(f"\n{summary(result, glance)}\nResults: {folder}")
        if settings.report:
            ranking.describe_result(result, folder, asked)


def draw(cells: ad.AnnData, task: str, folder: Path) -> None:
    """Draw all figures of a run into a folder.

    Parameters
    ----------
    cells
        With everything that the run found, and a UMAP.
    task
        SC or ST.
    folder
        Where to write.
    """
    for name in plot.names(task):
        figure = getattr(plot, name)(cells)
        if figure is not None:
            style.save(figure, folder / f"{name}.png")


def _analyse(
    settings: CellSettings | TissueSettings,
    source: Source,
    hashes: dict[str, str],
    adata: ad.AnnData,
    folder: Path,
    watch: Stopwatch,
) -> Result:
    """Analyse and write the results.

    A run that ends early leaves its checkpoint and log; a run that ends well leaves neither.
    """
    unfinished, rescued = folder / "log.unfinished.jsonl", folder / "labels.unfinished.csv"
    kept = Checkpoints(folder / checkpoints.NAME, settings.checkpoint_every, settings.resume)

    def log_epoch(losses: dict[str, float]) -> None:
        with unfinished.open("a") as lines:
            print(json.dumps(losses), file=lines)

    result: Result | None = None
    try:
        with staged(folder, files.of_run(settings.task)) as stage:
            unfinished.unlink(missing_ok=True)
            result = analyse(adata, settings, watch=watch, on_epoch=log_epoch, checkpoints=kept)
            style.add_colours(style.Scene(result.cells))
            if settings.figures:
                with watch("umap"):
                    add_umap(result.cells)
            with watch("write"):
                results.write(result, stage, source.path, hashes)
    except BaseException as error:
        if result is not None:  # whatever keeps the rest from being written, hours of training must not be lost
            results.rescue_labels(result, rescued)
        # A repeated run would fail again on a loss that was not finite or on a refused setting, but not after Ctrl-C,
        # SIGTERM or a full disk.
        if kept.is_ours and not (isinstance(error, UserError) and not isinstance(error.__cause__, OSError)):
            log.info("The training so far is saved in %s; repeat the command with --resume to continue.", kept.folder)
        raise
    for left_over in (unfinished, rescued):
        left_over.unlink(missing_ok=True)
    kept.remove()
    return result
