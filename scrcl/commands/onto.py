"""Place new cells among the clusters of a finished run, from the command line and in notebooks."""

from __future__ import annotations

import json
from pathlib import Path

import anndata as ad
import pandas as pd
import torch
import yaml

from scrcl import mapping, processes
from scrcl.annotate import rows_among
from scrcl.api import in_words_of_functions
from scrcl.cluster import scores
from scrcl.commands import results
from scrcl.commands.again import recipe_of
from scrcl.commands.results import Run
from scrcl.commands.script import command_line
from scrcl.contents.blocks import is_lazy
from scrcl.contents.features import Features
from scrcl.contents.labels import find_labels
from scrcl.contents.values import Values
from scrcl.disk import home
from scrcl.disk.folders import locked, refuse_to_overwrite, staged
from scrcl.keys import OURS, PCS
from scrcl.mapping import Mapped
from scrcl.messages import UserError, format_table, show_messages, whole_path, without_home
from scrcl.plot import style
from scrcl.plot.cells import mapped
from scrcl.readers import Source
from scrcl.recipes import CellSettings
from scrcl.runtime import limited_threads, versions

WRITTEN = ("labels.csv", "result.h5ad", "metrics.json", "config.yaml", "umap.png")


def run(settings: CellSettings, source: Source) -> None:
    """Read new cells, place them in a run, and write where they belong.

    Parameters
    ----------
    settings
        With map_onto, the folder of the run; layer, values, features, label_key and those of the group 'run' count.
    source
        The new cells.

    Raises
    ------
    UserError
        When there is no such run, or the new cells cannot be placed in it.
    """
    processes.require_one("--map-onto")
    if settings.report or settings.marker_genes:
        raise UserError(
            "--map-onto gives new cells the clusters of a run, which draw_DEGs.py describes; leave out --report and "
            "--marker-genes."
        )
    style.to_files()
    before = find(Path(settings.map_onto))
    auto = home.results("SC") / f"{source.name}_on_{before.folder.name}"
    folder = auto if settings.output == "auto" else Path(settings.output)
    if results.is_finished(folder):
        raise UserError(f"{folder} holds a run; choose another folder with --output.")
    refuse_to_overwrite([*source.files, before.cells_at, before.folder / "labels.csv"], folder, WRITTEN)
    with limited_threads(settings.threads), locked(folder):
        hashes = source.hashes()
        results.refuse_other_data(folder, settings, source, hashes)
        adata, reference = source.read(), before.cells()
        found = onto(adata, before, reference, settings)
        known = find_labels(adata.obs, settings.label_key, settings.usual_labels)
        own = None if known is None else scores.score(found.labels.astype(str), known[found.labels.index])
        with staged(folder, WRITTEN) as stage:
            _write(found, adata, own, before, settings, source, hashes, stage)
        if settings.figures:
            figure = mapped(found.cells, reference)
            if figure is not None:
                with staged(folder, WRITTEN[-1:]) as stage:
                    style.save(figure, stage / WRITTEN[-1])
    print(f"\n{in_words(found, own)}\nResults: {folder}")


def map_cells(
    adata: ad.AnnData,
    reference: str | Path,
    *,
    key_added: str = OURS.name,
    layer: str = "auto",
    values: Values = "auto",
    features: Features = "genes",
) -> None:
    """Place new cells among the clusters of a finished run of runSC.py, without training.

    Each cell is joined with the cells of the run that are nearest in its PCs, and encoded by the run's network; the 15
    cells of the run with the most similar code vote.

    Parameters
    ----------
    adata
        New cells x genes; values as for `find_cell_types`. Genes are matched by name; one that is missing has no part.
    reference
        The folder of the run, such as 'results/SC/Zeisel'.
    key_added
        The name under which everything is written.
    layer, values, features
        As for `rank_markers`.

    Returns
    -------
    None. Written are obs['scrcl'], a categorical of the run's clusters; obs['scrcl_confidence'], the share of the 15
    cells that are of that cluster; obs['scrcl_unlike'], whether the cell is unlike any of the run (about 3 of 100 are
    by chance); and obsm['X_pca_scrcl'], its PCs in the run's space. They are missing for cells without any count, and
    obs['scrcl_unlike'] for all cells where the run has batches.

    Raises
    ------
    UserError
        When there is no such run, and when the cells cannot be used or have few of its genes.
    """
    show_messages()
    with in_words_of_functions():
        before = find(Path(reference))
        settings = CellSettings(layer=layer, values=values, features=features)
        found = onto(adata, before, before.cells(), settings)
    mapping.annotate(adata, found, key_added)
    where = adata.obs_names.get_indexer(found.cells.obs_names)
    adata.obsm[f"{PCS}_{key_added}"] = rows_among(found.cells.obsm[PCS], where, adata.n_obs)
    if OURS.colours in found.cells.uns:
        adata.uns[f"{key_added}_colors"] = found.cells.uns[OURS.colours]


def find(folder: Path) -> Run:
    """Return the finished run of cells in a folder, or raise UserError."""
    before = results.read_run(folder) or results.read_run(home.results("SC") / folder)
    if before is None or before.task != "SC":
        raise UserError(f"There is no finished run of cells in {folder}; --map-onto takes its folder, as results/SC/X.")
    return before


def onto(adata: ad.AnnData, before: Run, reference: ad.AnnData, settings: CellSettings) -> Mapped:
    """Place cells in a run, read back from its files, and write what was found to them."""
    recipe = recipe_of(before, settings)
    assert isinstance(recipe, CellSettings)
    recipe.layer, recipe.values, recipe.features = settings.layer, settings.values, settings.features
    model = torch.load(before.folder / "model.pt", weights_only=True)
    adata = adata.to_memory() if is_lazy(adata) else adata
    found = mapping.place(adata, reference, model, recipe, "normalised to the median" in before.provenance["values"])
    mapping.annotate(found.cells, found, OURS.name)
    colours = reference.uns.get(OURS.colours)
    if colours is not None:
        found.cells.uns[OURS.colours] = list(colours)
    return found


def _write(
    found: Mapped,
    adata: ad.AnnData,
    own: dict | None,
    before: Run,
    settings: CellSettings,
    source: Source,
    hashes: dict[str, str],
    folder: Path,
) -> None:
    """Write labels.csv, result.h5ad, metrics.json and config.yaml."""
    columns = {OURS.confidence: found.agreement.round(4), "unlike": found.unlike, OURS.labels: found.labels}
    pd.DataFrame(columns).reindex(adata.obs_names).to_csv(folder / "labels.csv", index_label="barcode")
    found.cells.write_h5ad(folder / "result.h5ad", compression="gzip")
    n_unlike = None if found.unlike.isna().all() else int(found.unlike.sum())
    told = {"n_cells": adata.n_obs, "n_placed": len(found.labels), "n_unlike": n_unlike, "scores": own}
    (folder / "metrics.json").write_text(json.dumps(told, indent=2) + "\n")
    run_of = {"file": without_home(str(source.path)), "sha256": dict(hashes)} if source.path else {"file": source.name}
    content = {
        "settings": {"dataset": whole_path(Path(settings.dataset)), "map_onto": whole_path(before.folder)},
        "provenance": {"command": command_line(), "input": run_of, "values": found.values, "versions": versions()},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")


def in_words(found: Mapped, own: dict | None) -> str:
    """Return the table that ends the command."""
    table = pd.DataFrame({"cells": found.labels.value_counts(sort=False)})
    table["agreement"] = found.agreement.groupby(found.labels, observed=False).mean()
    rows = [
        [str(name), f"{row['cells']:.0f}", f"{row['agreement']:.2f}" if row["cells"] else "-"]
        for name, row in table.iterrows()
    ]
    titles, placed = ["cluster", "cells", "agreement"], "were placed by the cells of the run that are most like them"
    if found.unlike.isna().all():
        ending = f"{placed}. The run has batches, so it is not told which of them are unlike any."
    else:
        titles.append("unlike any")
        unlike = found.unlike.groupby(found.labels, observed=False).sum()
        rows = [[*row, str(number)] for row, number in zip(rows, unlike)]
        ending = f"{placed}; {found.unlike.sum()} are unlike any, where about 3 in 100 are by chance."
    lines = [format_table(titles, rows), "", f"{len(found.labels)} cells {ending}"]
    if own:
        lines.append("Scores: " + ", ".join(f"{name} {own[name]:.3f}" for name in scores.METRICS) + ".")
    return "\n".join(lines)
