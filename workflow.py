"""What the entry scripts have in common: settings from the command line, then read, analyse, write and draw."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import anndata as ad

import config
import pipeline
import results
from config import Config
from utils import Stopwatch, UserError, find_device, limited_threads, log, staged_folder

RESULTS = Path(__file__).parent / "results"


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
    find: Callable[[Config], Source]
    analyse: Callable[..., pipeline.Result]
    draw: Callable[[pipeline.Result, Path], None]
    figures: tuple[str, ...]


def parse(task: Task, description: str, **flags: str) -> Config:
    """Settings from the command line. flags: further ones, each a short way of writing --dataset, with its help."""
    parser = config.build_parser(task.config, description)
    for name, help in flags.items():
        parser.add_argument(f"--{name}", action="store_true", default=argparse.SUPPRESS, help=help)
    given = vars(parser.parse_args())
    for name in flags:
        if given.pop(name, False):
            if "dataset" in given:
                raise UserError(f"--{name} and --dataset were both given; leave one of them out.")
            given["dataset"] = name
    return config.load(task.config, given.pop("config"), given)


def run(task: Task, settings: Config) -> None:
    """Read, analyse, write and draw; labels are in place before anything is drawn."""
    find_device(settings.device)  # before anything takes time
    with limited_threads(settings.threads):
        _run(task, settings, Stopwatch())


def output_folder(task: Task, settings: Config, source: Source) -> Path:
    """Where the results go. Raises UserError where they would overwrite the input."""
    folder = RESULTS / task.config.task / source.name if settings.output == "auto" else Path(settings.output)
    written = {(folder / file).resolve() for file in (*results.FILES, *task.figures)}
    endangered = [file for file in source.files if file.resolve() in written]
    if endangered:
        raise UserError(f"The results would overwrite the input {endangered[0]}; choose another folder with --output.")
    return folder


def _run(task: Task, settings: Config, watch: Stopwatch) -> None:
    with watch("read"):
        source = task.find(settings)
        adata = source.read()
    log.info("%s: %d %s x %d genes.", source.name, adata.n_obs, settings.unit, adata.n_vars)
    folder = output_folder(task, settings, source)

    with staged_folder(folder, (*results.FILES, *task.figures)) as stage:
        unfinished = folder / "log.unfinished.jsonl"  # stays when a run ends early
        unfinished.unlink(missing_ok=True)

        def log_epoch(losses: dict[str, float]) -> None:
            with unfinished.open("a") as lines:
                print(json.dumps(losses), file=lines)

        result = task.analyse(adata, settings, watch=watch, on_epoch=log_epoch)
        if settings.figures:
            with watch("umap"):
                pipeline.add_umap(result.cells)
        with watch("write"):
            results.write(result, stage, source.path, source.files)
        unfinished.replace(stage / "log.jsonl")
    if settings.figures:
        with staged_folder(folder, task.figures) as stage, watch("draw"):
            task.draw(result, stage)
    print(f"\n{results.summary(result)}\nResults: {folder}")
