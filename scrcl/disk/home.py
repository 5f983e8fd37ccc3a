"""Say where data sets and results are: the folder that holds `datasets/` and `results/`.

For `python runSC.py` it is the folder of the scripts. For the console command and in a notebook it is the working
folder. It is never the place where the package is installed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

TASK_FOLDERS = {"SC": "scdata", "ST": "stdata"}
_home = Path()


def set_home(folder: Path) -> None:
    """Set the folder that holds `datasets/` and `results/`."""
    global _home
    _home = folder


def home() -> Path:
    """Return the folder that holds `datasets/` and `results/`, as a relative path if it is below the working folder."""
    here = Path.cwd()
    return _home.relative_to(here) if _home.is_absolute() and _home.is_relative_to(here) else _home


def datasets() -> Path:
    """Return the folder of all data sets."""
    return home() / "datasets"


def data_folder(task: Literal["SC", "ST"]) -> Path:
    """Return the folder of the data sets of cells, or of tissues."""
    return datasets() / TASK_FOLDERS[task]


def results(task: Literal["SC", "ST"] | None = None) -> Path:
    """Return the folder of all results, or of the results of one task."""
    return home() / "results" if task is None else home() / "results" / task
