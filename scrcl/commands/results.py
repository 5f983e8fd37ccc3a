"""Write what a run found, and find finished runs again; the caller moves the files into place."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import anndata as ad
import h5py
import pandas as pd
import torch
import yaml
from anndata.experimental import write_dispatched
from scipy import sparse

from scrcl.commands.files import CELLS, NUMBERS, is_finished
from scrcl.commands.script import command_line, task_command
from scrcl.contents.values import layers_of
from scrcl.disk import home
from scrcl.disk.folders import complete_for_reading
from scrcl.disk.packed_hdf5 import write_packed
from scrcl.keys import HARMONY, HIGHLY_VARIABLE, OURS, PCS, SPATIAL, SPATIAL_PCS, UMAP
from scrcl.messages import UserError, log, one_line, whole_path, without_home
from scrcl.readers import Source, anndata_zarr, h5ad
from scrcl.recipes import CellSettings, TissueSettings
from scrcl.result import Result, facts, metrics

H5AD_UP_TO = 1_000_000  # cells


def write(result: Result, folder: Path, source: Path | None, hashes: Mapping[str, str] | None = None) -> None:
    """Write the tables of the labels and clusters, metrics.json, config.yaml, log.jsonl, model.pt, and the AnnData.

    Parameters
    ----------
    result
        What the run found.
    folder
        The folder to write to.
    source
        The input file or folder; None for data that come with a package or are simulated.
    hashes
        SHA-256 of the input files, by name, as they were read.
    """
    labels_table(result).to_csv(folder / "labels.csv", index_label="barcode")
    result.clusters.round(4).to_csv(folder / "clusters.csv")
    result.tree.round(4).to_csv(folder / "tree.csv", index=False)
    if result.numbers is not None:
        result.numbers.round(4).to_csv(folder / NUMBERS, index=False)
    _write_cells(result.cells, folder, result.settings.format)
    (folder / "metrics.json").write_text(json.dumps(metrics(result), indent=2) + "\n")
    text = yaml.safe_dump(provenance(result, source, hashes), sort_keys=False, allow_unicode=True)
    (folder / "config.yaml").write_text(text, encoding="utf-8")
    (folder / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in result.history))
    model = io.BytesIO()  # as in _write_h5ad: only plain writing turns a full disk into an OSError
    torch.save(result.state_dict, model)
    (folder / "model.pt").write_bytes(model.getvalue())


def labels_table(result: Result) -> pd.DataFrame:
    """Return what labels.csv holds: the labels of every seed, their agreement, and the final labels last."""
    final = OURS.labels
    table = result.labels.drop(columns=final)
    return table.assign(**{OURS.confidence: result.confidence.round(4), final: result.labels[final]})


def rescue_labels(result: Result, path: Path) -> None:
    """Write the labels of a run whose other results cannot be written, if even that can be done."""
    with suppress(OSError):
        labels_table(result).to_csv(path, index_label="barcode")
        log.warning("The labels are kept in %s.", path)


def refuse_other_data(
    folder: Path, settings: CellSettings | TissueSettings, source: Source, hashes: Mapping[str, str]
) -> None:
    """Raise UserError when a folder has the results of other data, which this run would replace.

    Data are the same when the content of all their files is, wherever they lie.

    Parameters
    ----------
    folder
        Where the results go.
    settings
        With overwrite, which allows it.
    source, hashes
        The data of this run, and the SHA-256 of their files.

    Raises
    ------
    UserError
        Naming the data of both.
    """
    if settings.overwrite or not (folder / "config.yaml").is_file():
        return
    try:
        before = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))["provenance"]["input"]
        file, known = str(before["file"]), dict(before.get("sha256", {}))
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return  # no file of a run; whether it may be replaced is decided elsewhere
    here = without_home(str(source.path)) if source.path else settings.dataset
    own = {name: hashes[name] for name in source.names_of_data}
    if own and known and set(own.values()) <= set(known.values()) or not own and not known and file == here:
        return
    what = "that file before it changed" if file == here else file
    raise UserError(
        f"{folder} holds the results of {what}, and this run is on {here}; add --overwrite to replace them, or choose "
        "another folder with --output."
    )


def _write_cells(cells: ad.AnnData, folder: Path, how: str) -> None:
    """Write the AnnData, without the input's own annotations if the format cannot hold them, or not at all.

    A run does not fail for it, since the labels are what matters; only a disk that cannot be written ends it.
    """
    as_zarr = how == "zarr" or how == "auto" and cells.n_obs > H5AD_UP_TO
    name = "result.zarr" if as_zarr else "result.h5ad"
    write = _write_zarr if as_zarr else _write_h5ad
    try:
        try:
            write(cells, folder / name)
        except (MemoryError, OSError):
            raise
        except Exception as error:  # anndata, h5py and zarr raise many types
            log.warning("%s leaves out the input's own annotations, which cannot be stored: %s", name, error)
            shutil.rmtree(folder / name, ignore_errors=True)  # what of a zarr store was written
            write(_bare(cells), folder / name)
    except OSError:
        raise
    except Exception as error:
        log.error("%s cannot be written (%s); labels.csv and all other results are there.", name, one_line(error))
        shutil.rmtree(folder / name, ignore_errors=True)


def _bare(cells: ad.AnnData) -> ad.AnnData:
    """Return what a run has found, without what the input has brought."""
    ours = cells.obs[[name for name in cells.obs if str(name).startswith(OURS.name)]]
    uns = {OURS.parameters: cells.uns[OURS.parameters]}
    bare = ad.AnnData(cells.X, obs=ours, var=cells.var[[HIGHLY_VARIABLE]], layers=layers_of(cells), uns=uns)
    for key in (SPATIAL, PCS, HARMONY, SPATIAL_PCS, OURS.embedding, UMAP):
        if key in cells.obsm:
            bare.obsm[key] = cells.obsm[key]
    bare.obsp[OURS.graph] = cells.obsp[OURS.graph]
    return bare


def _write_h5ad(cells: ad.AnnData, path: Path) -> None:
    """Write an h5ad file. It is made in memory, because HDF5 crashes Python when the disk fills up."""
    cells.strings_to_categoricals()
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        write_dispatched(file, "/", cells, _compressed_where_sparse)
    path.write_bytes(buffer.getvalue())


def _write_zarr(cells: ad.AnnData, path: Path) -> None:
    """Write a zarr store, chunk by chunk."""
    import zarr

    cells.strings_to_categoricals()
    store = zarr.open_group(path, mode="w", zarr_format=2)  # which all readers know
    write_dispatched(store, "/", cells, lambda write, *item, **_: write(*item))


def _compressed_where_sparse(write: Callable[..., None], file: Any, key: str, value: Any, **_: Any) -> None:
    """Write one element, for anndata's `write_dispatched`.

    Embeddings hardly shrink. Of sparse matrices gzip makes the same size at its lowest level as at its usual one once
    bytes of like meaning stand together (shuffle), in half the time.
    """
    if not sparse.issparse(value):
        write(file, key, value, dataset_kwargs={})
        return
    empty = type(value)(value.shape, dtype=value.dtype)  # written by anndata, for what tells readers that it is sparse
    write(file, key, empty, dataset_kwargs={})
    for name in ("data", "indices", "indptr"):
        del file[key][name]
        write_packed(file[key], name, getattr(value, name), torch.get_num_threads())


def provenance(result: Result, source: Path | None, hashes: Mapping[str, str] | None = None) -> dict:
    """Return everything needed to repeat the run, as config.yaml holds it.

    `--config config.yaml` reads the settings back. Paths are absolute, with `~` for the home folder, so that the file
    neither names the user nor depends on where it is read.

    Parameters
    ----------
    result, source, hashes
        As for `write`.
    """
    settings = dataclasses.asdict(result.settings) | {"resume": False, "overwrite": False}
    for name in ("annotation", "output"):
        if settings.get(name, "auto") not in ("auto", "none"):
            settings[name] = whole_path(Path(settings[name]))
    for name in ("exclude_genes", "genes", "marker_genes"):  # files among them
        asked = settings[name] if isinstance(settings[name], list) else [settings[name]]
        whole = [whole_path(Path(own)) if os.path.isfile(os.path.expanduser(own)) else own for own in asked]
        settings[name] = whole if isinstance(settings[name], list) else whole[0]
    origin: dict[str, Any]
    if source is None:
        origin = {"file": result.settings.dataset}
    else:
        asked, found = (Path(os.path.abspath(path)) for path in (result.settings.dataset, source))
        # A folder keeps its own name, not that of the folder found within it.
        settings["dataset"] = whole_path(asked if found.is_relative_to(asked) else found)
        origin = {"file": without_home(str(source)), "sha256": dict(hashes or {})}
    return {"settings": settings, "provenance": {"command": command_line(), "input": origin, **facts(result)}}


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes
    ----------
    folder, task
        Where it is, and SC or ST.
    settings, provenance
        From its config.yaml.
    metrics
        From its metrics.json.
    """

    folder: Path
    task: Literal["SC", "ST"]
    settings: dict
    provenance: dict
    metrics: dict

    @property
    def cells_at(self) -> Path:
        """The AnnData that it has written."""
        return next(path for name in CELLS if os.path.exists(path := self.folder / name))

    def cells(self) -> ad.AnnData:
        """Read the AnnData that it has written."""
        return (anndata_zarr if self.cells_at.is_dir() else h5ad).read(self.cells_at)


def read_run(folder: Path) -> Run | None:
    """Return the finished run in a folder, or None.

    Parameters
    ----------
    folder
        The folder of results.

    Raises
    ------
    UserError
        When the run is damaged.
    """
    complete_for_reading(folder)
    if not is_finished(folder):
        return None
    try:
        content = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        run = Run(folder, content["provenance"]["task"], content["settings"], content["provenance"], metrics)
        for part, names in NEEDED.items():
            for name in names:
                getattr(run, part)[name]
        if run.task not in ("SC", "ST"):
            raise KeyError(f"task {run.task}")
        return run
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise UserError(f"The run in {folder} cannot be read back ({one_line(error)}); run it again.") from error


NEEDED = {  # what the code that reads a run relies on
    "settings": ("dataset", "label_key"),
    "provenance": ("values", "input", "versions"),
    "metrics": ("scores", "n_clusters", "n_clusters_from"),
}


def latest_run(task: Literal["SC", "ST"]) -> Run:
    """Return the run of a task that finished last.

    Raises
    ------
    UserError
        When there is none.
    """
    folder = home.results(task)
    for place in folder.glob("*"):
        complete_for_reading(place)
    finished = [path.parent for path in folder.glob("*/labels.csv") if is_finished(path.parent)]
    if not finished:
        raise UserError(
            f"There is no finished run in {folder}; run `{task_command(task)}` first, "
            "or name data by --dataset and labels by --labels."
        )
    run = read_run(max(finished, key=lambda place: (place / "labels.csv").stat().st_mtime))
    assert run is not None  # since is_finished was true
    return run
