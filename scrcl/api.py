"""What a notebook calls: functions in scanpy's manner, which write everything they find into the caller's AnnData."""

from __future__ import annotations

import dataclasses
import inspect
import numbers
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd

from scrcl import again
from scrcl.again import Look
from scrcl.analysis import analyse
from scrcl.annotate import annotate, write_labels
from scrcl.cluster.trust import JOIN
from scrcl.contents.features import Features
from scrcl.contents.gene_names import gene_names
from scrcl.contents.labels import as_text
from scrcl.contents.values import Values, find_expression
from scrcl.genes import naming, ranking
from scrcl.genes.ranking import Markers
from scrcl.genes.settings import MarkerSettings
from scrcl.keys import OURS, Keys
from scrcl.messages import UserError, did_you_mean, log, natural_order, show_messages
from scrcl.plot import style
from scrcl.plot.layout import add_umap
from scrcl.prepare import genes
from scrcl.readers.marker_genes import BUILTIN
from scrcl.readers.marker_genes import marker_genes as known_genes
from scrcl.recipes import FIRST_SEED, RECIPES, RUN_ONLY, CellSettings, TissueSettings, first_seeds
from scrcl.result import summary

# Settings of the scripts that have a parameter of another name here, or none
ELSEWHERE = (*RUN_ONLY, "seeds", "n_clusters")


def with_settings(settings_class: type[CellSettings] | type[TissueSettings]) -> Callable[[Any], Any]:
    """Name every setting of a recipe in a function's signature and docstring, where **settings stands."""

    def named(function: Any) -> Any:
        defaults = settings_class()
        names = [f.name for f in dataclasses.fields(settings_class) if f.name not in ELSEWHERE]
        own = inspect.signature(function)
        kept = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
        further = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=getattr(defaults, name)) for name in names
        ]
        function.__signature__ = own.replace(parameters=[*kept, *further])
        texts = [f"{name}\n{textwrap.indent(_wrapped(settings_class.help_of(name)), '    ')}" for name in names]
        function.__doc__ = inspect.cleandoc(function.__doc__).replace("**settings", "\n".join(texts), 1)
        return function

    return named


def _wrapped(text: str) -> str:
    return textwrap.fill(f"{text[0].upper()}{_without_flags(text[1:])}.", 100)


def _without_flags(text: str) -> str:
    """Name parameters where a text names flags."""
    text = re.sub(r"--seeds (\d+)", r"n_seeds=\1", text)
    return re.sub(r"--(?:no-)?([a-z][a-z0-9-]*)", lambda flag: flag[1].replace("-", "_"), text)


@with_settings(CellSettings)
def find_cell_types(
    adata: ad.AnnData,
    n_clusters: int | None = None,
    *,
    key_added: str = OURS.name,
    random_state: int = FIRST_SEED,
    n_seeds: int | None = None,
    umap: bool = True,
    copy: bool = False,
    **settings: Any,
) -> ad.AnnData | None:
    """Find cell types in scRNA-seq data, without labels.

    Known labels, where obs has any, give the number of clusters if you do not, and score the finished result; nothing
    else. `label_key="none"` takes even that away.

    Parameters
    ----------
    adata
        Cells x genes; counts, TPM or log-normalised values, sparse or dense, in X, a layer or .raw. May be backed.
    n_clusters
        The number of clusters; None for that of the known labels if there are any, else an estimate.
    key_added
        The name under which everything is written.
    random_state
        The first seed; the others follow in steps of 10.
    n_seeds
        How many trainings the labels are the consensus of; None for 5, and for 1 beyond 50,000 cells.
    umap
        Whether to lay the cells out, for sc.pl.umap.
    copy
        Whether to return an annotated copy in place of writing to adata.
    **settings

    Returns
    -------
    None, or the copy. Written are, with 'scrcl' standing for `key_added`:

    obs['scrcl']
        The labels, a categorical of strings, '0' the largest cluster; missing for cells without any count.
    obs['scrcl_confidence']
        Agreement: the share of the seeds that put the cell there, 0 to 1; missing with one seed. Of spots, the share of
        the partitions of all views and seeds. No probability of being right.
    obs['scrcl_seed_5'], ...
        The labels of every seed.
    obsm['X_scrcl']
        What was clustered, [cells, d]; NaN for cells without any count.
    obsp['scrcl_graph']
        The cell graph.
    obsm['X_umap']
        The UMAP of the embedding; obsm['X_umap_scrcl'] where the data have a UMAP already.
    uns['scrcl_neighbors']
        scanpy's neighbours of the embedding, for its `neighbors_key`.
    uns['scrcl_colors']
        A colour per label.
    uns['scrcl']
        Settings, versions, the number of clusters and where it comes from, scores, losses; and in 'clusters' a table of
        the clusters: size, agreement, support by the graph, and whether each is clear or doubtful; in 'tree' which
        become one first.

    Raises
    ------
    UserError
        For input that cannot be used.
    TypeError
        For a name that is no setting, with the nearest one that is.

    References
    ----------
    Peng et al., Refinement Contrastive Learning of Cell-Gene Associations for Unsupervised Cell Type Identification,
    AAAI 2026, arXiv 2512.10640.
    """
    with in_words_of_functions():
        recipe = _recipe(CellSettings, n_clusters, random_state, n_seeds, adata.n_obs, settings)
        return _find(adata, recipe, Keys(key_added), umap, copy)


@with_settings(TissueSettings)
def find_domains(
    adata: ad.AnnData,
    n_clusters: int | None = None,
    *,
    key_added: str = OURS.name,
    random_state: int = FIRST_SEED,
    n_seeds: int | None = None,
    umap: bool = True,
    copy: bool = False,
    **settings: Any,
) -> ad.AnnData | None:
    """Find spatial domains in tissue, without labels.

    Known domains, where obs has any, give the number of clusters if you do not, and score the finished result; nothing
    else. `label_key="none"` takes even that away.

    Parameters
    ----------
    adata
        Spots x genes, values as for `find_cell_types`; positions in obsm['spatial'], or in x and y (or the like) of
        obs.
    n_clusters
        The number of domains; None for that of the known ones if there are any, else an estimate.
    key_added
        The name under which everything is written.
    random_state
        The first seed; the others follow in steps of 10.
    n_seeds
        How many trainings the labels are the consensus of; None for 5, and for 1 beyond 50,000 spots.
    umap
        Whether to lay the spots out, for sc.pl.umap.
    copy
        Whether to return an annotated copy in place of writing to adata.
    **settings

    Returns
    -------
    None, or the copy. Written are the keys of `find_cell_types`, and

    obs['scrcl_unsmoothed']
        The labels before they are smoothed in space.

    Raises
    ------
    UserError
        For input that cannot be used.
    TypeError
        For a name that is no setting, with the nearest one that is.
    """
    with in_words_of_functions():
        recipe = _recipe(TissueSettings, n_clusters, random_state, n_seeds, adata.n_obs, settings)
        return _find(adata, recipe, Keys(key_added), umap, copy)


def _recipe(
    settings_class: type[CellSettings] | type[TissueSettings],
    n_clusters: int | None,
    random_state: int,
    n_seeds: int | None,
    n_cells: int,
    settings: dict[str, Any],
) -> CellSettings | TissueSettings:
    """The settings of a call, with errors in the words of a function."""
    usual = {f.name for f in dataclasses.fields(settings_class)} - {*ELSEWHERE}
    for name in settings:
        if name not in usual:
            near = did_you_mean(name, {*usual, "n_clusters", "key_added", "random_state", "n_seeds", "umap", "copy"})
            raise TypeError(f"there is no parameter {name!r}{near}")
    given = dict(settings)
    if n_clusters is not None:
        given["n_clusters"] = n_clusters
    if n_seeds is not None and (not isinstance(n_seeds, numbers.Integral) or n_seeds < 1):
        raise UserError(f"n_seeds must be a whole number of at least 1, not {n_seeds!r}.")
    if n_seeds is None and random_state != FIRST_SEED:
        n_seeds = len(settings_class().with_seeds(n_cells).seeds)
    if n_seeds is not None:
        given["seeds"] = first_seeds(int(n_seeds), random_state)
    return settings_class(**given)


def _find(
    adata: ad.AnnData, settings: CellSettings | TissueSettings, keys: Keys, umap: bool, copy: bool
) -> ad.AnnData | None:
    show_messages()
    adata = adata.copy() if copy else adata
    result = analyse(adata, settings)
    if umap:
        log.info("UMAP of %d %s.", result.cells.n_obs, settings.unit)
        add_umap(result.cells)
    annotate(adata, result, keys)
    style.add_colours(style.Scene(adata, keys.name))
    log.info("\n%s\n", summary(result))
    return adata if copy else None


def recluster(
    adata: ad.AnnData,
    n_clusters: int,
    *,
    key: str = OURS.name,
    key_added: str | None = None,
) -> None:
    """Cluster what a run has trained into another number of clusters, in seconds, once per seed of the run.

    Parameters
    ----------
    adata
        With a run of `find_cell_types` or `find_domains`.
    n_clusters
        The number of clusters.
    key
        The run's `key_added`.
    key_added
        The name to write under; None for 'scrcl_12_clusters' and the like.

    Returns
    -------
    None. Written are obs['scrcl_12_clusters'], a categorical of strings, obs['scrcl_12_clusters_confidence'], and
    uns['scrcl_12_clusters'] with 'clusters', the table of the clusters, and 'tree', which of them become one first.

    Raises
    ------
    UserError
        When there is no run under this key, and when there are fewer cells than clusters.
    """
    with in_words_of_functions():
        settings = dataclasses.replace(_recipe_of(adata, key), n_clusters=str(n_clusters))
        _keep(adata, again.recluster(adata, settings, Keys(key)), key, key_added or f"{key}_{n_clusters}_clusters")


def compare_numbers(
    adata: ad.AnnData, numbers: Iterable[int], *, n_seeds: int | None = None, key: str = OURS.name
) -> pd.DataFrame:
    """Cluster what a run has trained into several numbers of clusters, and return how well partitions agree on each.

    Parameters
    ----------
    adata
        With a run of `find_cell_types` or `find_domains`; it stays as it is.
    numbers
        The numbers of clusters, as `range(5, 13)`.
    n_seeds
        How often to cluster; None for the number of seeds of the run.
    key
        The run's `key_added`.

    Returns
    -------
    One row per number: n_clusters, agreement (the mean of the cells), least (that of the cluster with the least),
    doubtful (how many clusters are) and first_joined (the two that would become one first).

    Raises
    ------
    UserError
        When there is no run under this key, when nothing can agree since there is a single seed, and when there are
        fewer cells than clusters.
    """
    show_messages()
    with in_words_of_functions():
        settings = _recipe_of(adata, key)
        if n_seeds is not None:
            settings = dataclasses.replace(settings, seeds=first_seeds(n_seeds))
        return again.compared(adata, numbers, settings, Keys(key))


def merge_clusters(
    adata: ad.AnnData, clusters: Sequence[str], *, key: str = OURS.name, key_added: str | None = None
) -> None:
    """Join clusters of a run: '2' and '5' become '2+5'.

    Parameters
    ----------
    adata
        With a run of `find_cell_types` or `find_domains`.
    clusters
        The labels of two clusters or more.
    key
        The run's `key_added`.
    key_added
        The name to write under; None for 'scrcl_2+5' and the like.

    Returns
    -------
    None. Written is what `recluster` writes.

    Raises
    ------
    UserError
        When there is no run under this key, or no such cluster.
    """
    with in_words_of_functions():
        _recipe_of(adata, key)
        names = JOIN.join(natural_order(map(str, clusters)))
        _keep(adata, again.merged(adata, list(clusters), Keys(key)), key, key_added or f"{key}_{names}")


def split_cluster(
    adata: ad.AnnData,
    cluster: str,
    n_clusters: int | None = None,
    *,
    key: str = OURS.name,
    key_added: str | None = None,
) -> None:
    """Divide one cluster of a run, by a training on its cells alone: '3' becomes '3,0', '3,1' and so on.

    Parameters
    ----------
    adata
        With a run of `find_cell_types` or `find_domains`.
    cluster
        The label of the cluster.
    n_clusters
        How many parts; None for an estimate.
    key
        The run's `key_added`.
    key_added
        The name to write under; None for 'scrcl_3_divided' and the like.

    Returns
    -------
    None. Written is what `recluster` writes.

    Raises
    ------
    UserError
        When there is no run under this key, no such cluster, or when it has too few cells.
    """
    show_messages()
    with in_words_of_functions():
        parts = "auto" if n_clusters is None else str(n_clusters)
        look = again.split(adata, str(cluster), _recipe_of(adata, key), parts, Keys(key))
        _keep(adata, look, key, key_added or f"{key}_{cluster}_divided")


def _recipe_of(adata: ad.AnnData, key: str) -> CellSettings | TissueSettings:
    """The recipe of a run that is in an AnnData."""
    facts = style.Scene(adata, key).facts
    fields = {f.name for f in dataclasses.fields(RECIPES[facts["task"]])}
    kept = {name: value for name, value in facts["params"].items() if name in fields}
    # This machine may be another.
    kept |= {"device": "auto", "tf32": False, "compile": False, "threads": 0, "max_memory": 0}
    return RECIPES[facts["task"]](**{n: v.tolist() if isinstance(v, np.ndarray) else v for n, v in kept.items()})


def _keep(adata: ad.AnnData, look: Look, key: str, key_added: str) -> None:
    """Write another look at a run beside it, so that figures and markers take it as they take a run."""
    write_labels(adata, look.labels[[OURS.labels]], look.confidence, Keys(key_added))
    told = {"clusters": look.clusters, "tree": look.tree, "n_clusters": len(look.clusters), "n_clusters_from": look.how}
    kept = {name: value for name, value in adata.uns[key].items() if name != "numbers"}  # those of the run's estimate
    adata.uns[key_added] = {again.LOOKED_AT: key} | kept | told | {"scores": {}}  # a look at a look is at the same run
    style.add_colours(style.Scene(adata, key_added))
    log.info("%d clusters, %s: obs[%r].", len(look.clusters), look.how, key_added)


def rank_markers(
    adata: ad.AnnData,
    groupby: str = OURS.labels,
    *,
    key_added: str = "rank_genes_groups",
    layer: str = "auto",
    values: Values = "auto",
    features: Features = "genes",
    groups: str | Sequence[str] = "all",
    method: str = "wilcoxon",
    n_genes: int = 20,
    min_in_group_fraction: float = 0.5,
    max_out_group_fraction: float = 0.25,
    min_fold_change: float = 1.0,
) -> Markers:
    """Rank the genes of every cluster against all other cells, and filter them as published.

    Parameters
    ----------
    adata
        Cells x genes, as for `find_cell_types`; counts are log-normalised for the ranking, adata keeps its values.
    groupby
        The obs column of the clusters; cells without a label are left out.
    key_added
        The uns key of scanpy's own table of the ranking, for sc.pl.rank_genes_groups_dotplot and the like.
    layer
        Where the values are: 'X', 'raw', a layer's name, or 'auto'.
    values
        What they are: 'counts', 'lognorm' (natural logarithms), 'log2', 'log10', or 'auto' for what they look like.
    features
        'genes', or 'all' for antibodies, hashtags, guides and controls too.
    groups
        Clusters to test, or 'all' (as in scanpy).
    method
        scanpy's test: 'wilcoxon', 't-test' or 'logreg'.
    n_genes
        Top genes per cluster.
    min_in_group_fraction, max_out_group_fraction
        The filter: in more than this share of the cluster's cells, in less than that of all others.
    min_fold_change
        The filter: log2 of the fold change is above this.

    Returns
    -------
    The ranking: `table` (scanpy's statistics and passes_filter), `top` and `specific` (genes per cluster), `untested`.

    Raises
    ------
    UserError
        Where there is no such column, no values, or nothing to compare.
    """
    show_messages()
    with in_words_of_functions():
        cells, slot = _cells_by(adata, groupby, layer, values, features)
        how = MarkerSettings(
            groups=[groups] if isinstance(groups, str) else [str(name) for name in groups],
            method=method,  # type: ignore[arg-type]  # what it takes is checked there
            n_genes=n_genes,
            min_in_group_fraction=min_in_group_fraction,
            max_out_group_fraction=max_out_group_fraction,
            min_fold_change=min_fold_change,
        )
        found = ranking.rank(cells, groupby, **how.of_ranking)
    adata.uns[key_added] = _as_scanpy_keeps_it(found, groupby, method, use_raw=slot == ".raw")
    return found


def name_clusters(
    adata: ad.AnnData,
    groupby: str = OURS.labels,
    marker_genes: str | Path | Mapping[str, Sequence[str]] = BUILTIN,
    *,
    key_added: str | None = None,
    gene_key: str = "auto",
    layer: str = "auto",
    values: Values = "auto",
    features: Features = "genes",
) -> pd.DataFrame:
    """Name every cluster by the known type whose markers are highest in it, with a question mark where in doubt.

    Parameters
    ----------
    adata
        As for `rank_markers`.
    groupby
        The obs column of the clusters; cells without a label, or alone in their cluster, get no name.
    marker_genes
        Markers by type, `{"B cell": ["MS4A1", "CD79A"]}`; a csv with columns type and gene; or 'builtin' for common
        types of human and mouse.
    key_added
        The obs column to write; None for 'scrcl_name' and the like.
    gene_key
        The var column with the names of genes, 'none' for var_names, 'auto' for symbols beside ids.
    layer, values, features
        As for `rank_markers`.

    Returns
    -------
    One row per cluster of more than one cell: name, score (from -1 to 1), runner_up, margin between the two, and the
    score of every type; see `genes.naming.name_clusters`. Written is obs['scrcl_name'], a categorical of strings.

    Raises
    ------
    UserError
        Where there is no such column or table, no marker in the data, or nothing to compare.
    """
    show_messages()
    asked = str(marker_genes) if isinstance(marker_genes, Path) else marker_genes
    if not isinstance(asked, (str, Mapping)) or not asked:
        raise UserError("marker_genes takes genes by type, a csv, or 'builtin'.")
    with in_words_of_functions():
        cells, _ = _cells_by(adata, groupby, layer, values, features)
        sizes = cells.obs[groupby].value_counts(sort=False)
        ranking.require_groups(sizes.index, sizes)
        cells.var_names = gene_names(cells.var, gene_key)
        named = naming.name_clusters(cells, known_genes(asked, cells.var_names), groupby)
    names = as_text(adata.obs[groupby]).map(named["name"])
    adata.obs[key_added or f"{groupby}_name"] = style.as_categorical(names)
    return named


def _cells_by(
    adata: ad.AnnData, groupby: str, layer: str, values: Values, features: Features
) -> tuple[ad.AnnData, str]:
    """Return the labelled cells, log-normalised and with a categorical of labels, and the slot of the values."""
    if groupby not in adata.obs:
        near = did_you_mean(groupby, map(str, adata.obs))
        raise UserError(f"There is no obs column {groupby!r}{near}.")
    labels = as_text(adata.obs[groupby])
    if labels.isna().all():
        raise UserError(f"None of the {adata.n_obs} cells has a label in obs[{groupby!r}].")
    expression = find_expression(adata[labels.notna().to_numpy()], layer, values, features)
    cells = genes.log_normalised(expression)
    cells.obs[groupby] = style.as_categorical(labels[cells.obs_names])
    return cells, expression.slot


@contextmanager
def in_words_of_functions() -> Iterator[None]:
    """Name parameters, not flags, in the errors of the block."""
    try:
        yield
    except UserError as error:
        raise UserError(_without_flags(str(error))) from error


def _as_scanpy_keeps_it(found: Markers, groupby: str, method: str, use_raw: bool) -> dict[str, Any]:
    """The ranking in the form of sc.tl.rank_genes_groups."""
    parts = {str(name): part for name, part in found.table.groupby("group", observed=True)}
    kept: dict[str, Any] = {"params": {"groupby": groupby, "reference": "rest", "method": method, "use_raw": use_raw}}
    for name in ("names", "scores", "logfoldchanges", "pvals", "pvals_adj"):
        columns = {group: part[name].to_numpy() for group, part in parts.items()}
        types = [(group, object if name == "names" else np.float64) for group in columns]
        kept[name] = np.rec.fromarrays(list(columns.values()), dtype=types)
    return kept
