"""What runSC.py and runST.py have in common: read, analyse, write, draw and report."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata as ad

import checkpoints
import degs
import labelled
import pipeline
import results
from checkpoints import Checkpoints
from config import Config, DEGConfig
from folders import locked, refuse_to_overwrite, staged
from utils import Stopwatch, UserError, find_device, limited_threads, log, sha256


@dataclass(frozen=True)
class Source:
    """Where a data set is. name: what its results are filed under; path: file or folder, None where it is made or
    comes with a package; read: reads it; files: those of path that identify it, whose hashes are recorded."""

    name: str
    path: Path | None
    read: Callable[[], ad.AnnData]
    files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Task:
    """What differs between the entry scripts.

    find: the Source that the settings mean; analyse: a function of pipeline; draw: makes
    the figures of a Result in a folder; figures: all names that draw may use.
    """

    config: type[Config]
    find: Callable[[Any], Source]
    analyse: Callable[..., pipeline.Result]
    draw: Callable[[pipeline.Result, Path], None]
    figures: tuple[str, ...]


def run(task: Task, settings: Config) -> None:
    """Read, analyse, write and draw; labels are in place before anything is drawn."""
    find_device(settings.device)  # before anything takes time
    with limited_threads(settings.threads):
        _run(task, settings, Stopwatch())


def output_folder(task: Task, settings: Config, source: Source) -> Path:
    """Where the results go. Raises UserError where they would overwrite the input."""
    folder = results.RESULTS / task.config.task / source.name if settings.output == "auto" else Path(settings.output)
    refuse_to_overwrite(source.files, folder, (*results.FILES, *task.figures, *degs.FILES))
    return folder


def _run(task: Task, settings: Config, watch: Stopwatch) -> None:
    source = task.find(settings)
    folder = output_folder(task, settings, source)
    with locked(folder):
        with watch("read"):
            adata = source.read()
            hashes = {path.name: sha256(path) for path in source.files}
        log.info("%s: %d %s x %d genes.", source.name, adata.n_obs, settings.unit, adata.n_vars)
        result = _analyse(task, settings, source, hashes, adata, folder, watch)
        if settings.figures:
            with staged(folder, task.figures) as stage, watch("draw"):
                task.draw(result, stage)
        print(f"\n{results.summary(result)}\nResults: {folder}")
        if settings.report:
            written = results.read_run(folder)
            assert written is not None
            finished = labelled.of_result(result, written)
            degs.describe(finished, DEGConfig(task=written.task, dataset=str(folder)), folder)


def _analyse(
    task: Task,
    settings: Config,
    source: Source,
    hashes: dict[str, str],
    adata: ad.AnnData,
    folder: Path,
    watch: Stopwatch,
) -> pipeline.Result:
    """Analyse and write. What is left of a run that ends early: checkpoint and log; of one that ends well, neither."""
    unfinished = folder / "log.unfinished.jsonl"
    kept = Checkpoints(folder / checkpoints.NAME, settings.checkpoint_every, settings.resume)

    def log_epoch(losses: dict[str, float]) -> None:
        with unfinished.open("a") as lines:
            print(json.dumps(losses), file=lines)

    try:
        with staged(folder, (*results.FILES, *task.figures, *degs.FILES)) as stage:
            unfinished.unlink(missing_ok=True)
            result = task.analyse(adata, settings, watch=watch, on_epoch=log_epoch, checkpoints=kept)
            if settings.figures:
                with watch("umap"):
                    pipeline.add_umap(result.cells)
            with watch("write"):
                results.write(result, stage, source.path, hashes)
    except BaseException as error:
        # A loss that was not finite, or a refused setting, would come again; Ctrl-C, SIGTERM and a full disk need not.
        if kept.is_ours and not (isinstance(error, UserError) and not isinstance(error.__cause__, OSError)):
            log.info("What was trained is in %s; the same command with --resume goes on from it.", kept.folder)
        raise
    unfinished.unlink(missing_ok=True)
    kept.remove()
    return result
