"""Find the data set that a user means, by path or by name."""

from __future__ import annotations

import os
from pathlib import Path

from scrcl.disk import home
from scrcl.messages import UserError, did_you_mean
from scrcl.published import registry
from scrcl.readers import foreign, formats
from scrcl.readers.formats import Located, Task
from scrcl.recipes import BUNDLED
from scrcl.settings import sample_name

DEMO = "demo"  # the simulated tissue
WITHOUT_FILE = {"SC": BUNDLED, "ST": DEMO}  # data sets that need no file
DLPFC = "DLPFC"  # the folder of the twelve DLPFC slices


def find(dataset: str, task: Task) -> Located | None:
    """Return what to read for a path or for a name in the task's folder.

    Parameters
    ----------
    dataset
        A path or a name, as a user gives it.
    task
        SC for cells, ST for spots.

    Returns
    -------
    The file or folder and its reader; None for the data set that needs no file.

    Raises
    ------
    UserError
        When there is no such data set. The message says what was looked for and what there is.
    """
    folder = home.data_folder(task)
    if (dataset, task) == (DEMO, "ST"):
        return None  # whatever else has that name
    if not dataset:
        how_to = _how_to(folder) if task == "ST" else f"No data set was named; name a file, or one in {folder}."
        raise UserError(f"{how_to}\n{_in_words(folder)}")
    places = [Path(dataset).expanduser(), folder / dataset, folder / f"{dataset.removesuffix('.h5ad')}.h5ad"]
    places += [path for path in _there(folder) if dataset_name(str(path)) == dataset]
    if task == "ST":
        places.append(folder / DLPFC / dataset)
    there = [place for place in places if readable(place)]
    found = next((found for place in there if (found := formats.locate(place))), None)
    if found is None and dataset == WITHOUT_FILE[task]:
        return None
    if found is None and there:
        raise UserError(foreign.what_it_is(there[0]))
    if found is None:
        raise UserError(_not_there(dataset, task, folder))
    return found


def _there(folder: Path) -> list[Path]:
    """Return the files and folders in a folder, sorted."""
    return sorted(path for path in folder.glob("*") if not path.name.startswith("."))


def _not_there(dataset: str, task: Task, folder: Path) -> str:
    """Return the error message for a data set that was not found."""
    known = registry.known()
    if known.get(dataset.removesuffix(".h5ad")) == task:
        name = dataset.removesuffix(".h5ad")
        return f"The data set {name} is not in {folder}; `{registry.command(name)}` fetches it, or says how."
    near = did_you_mean(dataset, _names(folder)) if "/" not in dataset else ""
    return (
        f"There is no data set {dataset!r}{near}: no file or folder of that path, and none of that name in {folder}. "
        f"{_in_words(folder)} `{registry.command('--list')}` shows the published ones that can be fetched."
    )


def readable(path: Path) -> bool:
    """Return whether a file or folder is there.

    Raises
    ------
    UserError
        When it is there but this user may not read it.
    """
    if not os.path.exists(path):  # unlike Path.exists, no error for an impossible name
        return False
    if not os.access(path, os.R_OK):
        raise UserError(f"{path} may not be read by this user; change its permissions.")
    return True


def _names(folder: Path) -> list[str]:
    """Return the names of the data sets in a task's folder."""
    paths = [path for place in (folder, folder / DLPFC) for path in _there(place)]
    return sorted(dataset_name(str(path)) for path in paths if path.name not in (DLPFC, "README.md"))


def _in_words(folder: Path) -> str:
    """Return a sentence that lists the data sets in a folder."""
    names = _names(folder)
    return f"{folder} holds {', '.join(names)}." if names else f"{folder} holds no data yet."


def _how_to(folder: Path) -> str:
    """Return the message that explains where to put data."""
    return f"""No data set was named. Put one of these in place and name it:
  a Visium folder   {folder}/NAME/ with filtered_feature_bc_matrix.h5 (or the folder of that name) and
                    spatial/ (tissue_positions.csv or tissue_positions_list.csv, scalefactors_json.json, images)
  the 12 DLPFC      {folder}/DLPFC/151673/ and so on; known layers in metadata.tsv (barcode, layer_guess);
                    `{registry.command("151673")}` fetches one
  an h5ad file      {folder}/NAME.h5ad with obsm['spatial'], or x and y in obs
  another platform  the folder that it wrote; docs/INPUT.md lists all formats
All can also be given as a path. Without any data, --demo runs on a simulated tissue."""


def dataset_name(dataset: str) -> str:
    """Return the name that results of a data set are filed under, which never leads to another folder.

    Parameters
    ----------
    dataset
        A path or a name, as a user gives it.

    Returns
    -------
    A file's name without its ending, or a folder's name. Names that say nothing about the sample are ignored, such as
    outs/ and filtered_feature_bc_matrix.h5: then the folder around gives the name.
    """
    name = sample_name(Path(dataset))
    return "dataset" if name in ("", ".", "..") else name
