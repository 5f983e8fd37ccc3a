"""Write one page that holds everything a run found, and needs no network and no other file."""

from __future__ import annotations

import base64
import struct
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
import pandas as pd

from scrcl import plot
from scrcl.cluster.scores import METRICS
from scrcl.cluster.trust import CLEAR, DOUBTFUL
from scrcl.commands import files
from scrcl.commands.results import Run
from scrcl.genes.labelled import Labelled
from scrcl.genes.ranking import GROUP
from scrcl.keys import OURS, UMAP, UNSMOOTHED
from scrcl.messages import without_home
from scrcl.plot.style import as_categorical, colours

HEADINGS = {
    "group": "cluster",
    "rank": "rank",
    "specific_rank": "specific",
    "top_rank": "top",
    "names": "gene",
    "scores": "score",
    "logfoldchanges": "log2 fold change",
    "pvals_adj": "adjusted p",
    "pct_nz_group": "in cluster",
    "pct_nz_reference": "in others",
}
PNG = b"\x89PNG\r\n\x1a\n"  # how every PNG file begins
SHARES = ("in cluster", "in others")  # columns shown in per cent
PLACES = 4000  # steps of the UMAP on the page
NO_AGREEMENT = 255  # in place of per cent
REDRAWN = ("umap", "domains")  # figures of a run that the report shows in another form


class Picture(NamedTuple):
    """A figure of the page.

    Attributes
    ----------
    title, caption
        The text above and below it.
    png
        The bytes of the image.
    """

    title: str
    caption: str
    png: bytes

    @property
    def data(self) -> str:
        """The image as text, for the page to hold it."""
        return base64.b64encode(self.png).decode("ascii")

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, read from the header of the PNG."""
        return struct.unpack(">II", self.png[16:24])

    @property
    def anchor(self) -> str:
        """The name by which the page links to the figure."""
        return self.title.lower().replace(" ", "-")


class Cell(NamedTuple):
    """A cell of a table.

    Attributes
    ----------
    text
        What is shown.
    value
        What the column is sorted by; '' for nothing.
    number
        Whether the column holds numbers.
    """

    text: str
    value: str
    number: bool


def page(
    cells: Labelled,
    run: Run | None,
    overview: pd.DataFrame,
    genes: pd.DataFrame,
    pictures: list[Picture],
    facts: dict,
) -> str:
    """Return the report as HTML.

    Parameters
    ----------
    cells
        The cells whose genes were ranked.
    run
        The finished run they are from, or None.
    overview
        One row per cluster.
    genes
        The first genes, as `Markers.listed` returns them.
    pictures
        The figures of the genes.
    facts
        Settings and provenance of the ranking, as markers.yaml holds them.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    own = run if cells.own else None  # for other labels, the run's scores and figures do not count
    shown = ["group", "names", *(name for name in genes if name in HEADINGS and name not in ("group", "names"))]
    return environment.get_template("report_template.html").render(
        cells=cells,
        own=own,
        method=facts["settings"]["method"],
        glance=_glance(cells, overview, own),
        points=_points(cells),
        overview=table(overview.reset_index()),
        genes=table(genes[shown].dropna(axis=1, how="all").rename(columns=HEADINGS)),
        clusters=list(overview.index),
        pictures=pictures,
        trust=_trust(own),
        run_pictures=_run_pictures(own),
        scores=_scores(own),
        facts=_facts(run, facts),
    )


def _glance(cells: Labelled, overview: pd.DataFrame, run: Run | None) -> dict[str, Any]:
    """Return what the first screen says: a sentence on the run as a whole, and a row per cluster."""
    trusted = {} if run is None else run.metrics.get("clusters") or {}
    palette, n_cells = _palette(cells), cells.cells.n_obs
    rows = []
    for name, row in overview.iterrows():
        own = trusted.get(str(name), {})
        agreement = own.get("agreement")
        rows.append(
            {
                "cluster": str(name),
                "colour": palette[str(name)],
                "name": "" if "name" not in overview or pd.isna(row["name"]) else str(row["name"]),
                "cells": f"{row[cells.unit]:,}",
                "share": f"{row[cells.unit] / n_cells:.1%}",
                "genes": str(row["top genes"]),
                "sure": _sure(own),
                "agreement": "" if agreement is None else f"{agreement:.0%}",
            }
        )
    doubtful = sum(row["sure"] not in ("", CLEAR) for row in rows)
    return {"rows": rows, "named": any(row["name"] for row in rows), "trusted": bool(trusted), "doubtful": doubtful}


def _sure(trusted: dict[str, Any]) -> str:
    """Return how sure a cluster is, in a word or two."""
    verdict = str(trusted.get("verdict", ""))
    return verdict.replace(f"{DOUBTFUL}: may be part of cluster ", "perhaps a part of ")


def _palette(cells: Labelled) -> dict[str, str]:
    """Return the colour of each cluster, as in the figures."""
    panels = {GROUP: cells.cells.obs[GROUP]}
    if cells.known is not None:
        panels["known"] = as_categorical(cells.known)
    return colours(panels)[GROUP]


def _points(cells: Labelled) -> dict[str, Any]:
    """Return the UMAP as the page draws it: places as whole numbers, clusters as codes, agreement in per cent."""
    places, groups = np.asarray(cells.cells.obsm[UMAP], dtype=float), cells.cells.obs[GROUP]
    there = np.isfinite(places).all(axis=1)
    places = places[there] - places[there].min(axis=0)
    places = np.rint(places / max(places.max(), np.finfo(float).tiny) * PLACES).astype("<u2")
    agreement = cells.cells.obs[OURS.confidence].to_numpy(dtype=float)[there] if (
        cells.own and OURS.confidence in cells.cells.obs
    ) else np.full(there.sum(), np.nan)  # fmt: skip
    arrays = {
        "x": places[:, 0],
        "y": places[:, 1].max() - places[:, 1],
        "cluster": groups.cat.codes.to_numpy()[there].astype("<u2"),
        "agreement": np.where(np.isnan(agreement), NO_AGREEMENT, np.rint(100 * np.nan_to_num(agreement))).astype("<u2"),
    }
    packed = {name: base64.b64encode(own.tobytes()).decode("ascii") for name, own in arrays.items()}
    palette = _palette(cells)
    return packed | {"names": list(groups.cat.categories), "colours": [palette[name] for name in groups.cat.categories]}


def table(frame: pd.DataFrame) -> dict[str, Any]:
    """Return the column names and the cells of a table, in the form that the page needs."""
    columns = [str(name) for name in frame]
    number = {str(name): pd.api.types.is_numeric_dtype(frame[name]) for name in frame}
    rows = [
        [_cell(value, name, number[name]) for name, value in zip(columns, row)] for row in frame.itertuples(index=False)
    ]
    return {"columns": [(name, number[name]) for name in columns], "rows": rows}


def _cell(value: Any, column: str, number: bool) -> Cell:
    """Return a value as a cell of a table."""
    if pd.isna(value):
        return Cell("", "", number)
    text = f"{value:.1%}" if column in SHARES else f"{value:.3g}" if isinstance(value, float) else str(value)
    return Cell(text, repr(float(value)) if number else text, number)


def _run_pictures(run: Run | None) -> list[Picture]:
    """Return the figures that the run itself has drawn."""
    if run is None:
        return []
    places = {name: run.folder / f"{name}.png" for name in plot.names(run.task) if name not in REDRAWN}
    there = {name: path for name, path in places.items() if path.is_file()}
    pictures = [Picture(plot.FIGURES[name].title, "", path.read_bytes()) for name, path in there.items()]
    if (path := run.folder / files.COMPARED[1]).is_file():
        pictures.append(Picture("Numbers of clusters compared", "", path.read_bytes()))
    return [picture for picture in pictures if picture.png.startswith(PNG)]


def _trust(run: Run | None) -> dict[str, Any] | None:
    """Return how far each cluster of the run can be trusted, or None; runs before version 0.8 do not say."""
    clusters = None if run is None else run.metrics.get("clusters")
    if not clusters:
        return None
    frame = pd.DataFrame.from_dict(clusters, orient="index").astype({"agreement": float, "support": float})
    return table(frame.rename_axis("cluster").reset_index())


def _scores(run: Run | None) -> dict[str, Any] | None:
    """Return the run's scores against known labels, or None.

    There is one row per seed, then the final labels, and for several seeds their mean and sd.
    """
    if run is None or not run.metrics["scores"]:
        return None
    rows = {
        name.replace(OURS.labels, "final labels").replace(UNSMOOTHED, ", not smoothed").replace("_", " "): own
        for name, own in run.metrics["scores"].items()
    }
    if run.metrics.get("sd"):  # of several seeds
        rows |= {name: run.metrics[name] for name in ("mean", "sd")}
    frame = pd.DataFrame(rows).T.reindex(columns=list(METRICS)).astype(float)
    return table(frame.rename_axis("labels").reset_index())


def _facts(run: Run | None, facts: dict) -> dict[str, dict[str, str]]:
    """Return the settings and versions of the ranking and of the run, by heading."""
    shown = {"Ranking": facts["settings"], "Files of the ranking (SHA-256)": facts["provenance"]["sha256"]}
    if run is not None:
        of_run = dict(run.provenance)
        shown |= {"Run": run.settings, "Versions in the run": of_run.pop("versions")}
        shown["Provenance of the run"] = of_run.pop("input") | of_run
    shown["Versions in the ranking"] = facts["provenance"]["versions"]
    return {title: {key: _in_words(value) for key, value in own.items()} for title, own in shown.items() if own}


def _in_words(value: Any) -> str:
    """Return any value as text, with `~` for the home folder."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_in_words(own)}" for key, own in value.items())
    return without_home(" ".join(map(str, value)) if isinstance(value, list) else str(value))
