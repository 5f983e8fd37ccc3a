"""The tables of docs/RESULTS.md and its figures, from the rows that `benchmarks.accuracy` has written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import binomtest

DOCS = Path(__file__).resolve().parent.parent / "docs"
METRICS = ("ARI", "NMI", "ACC", "F1")
RECIPE, RARE = "scRCL", 0.02
TASKS = {"SC": "Cell types", "ST": "Spatial domains, labels smoothed over 6 neighbours"}


def document(rows: pd.DataFrame) -> str:
    """All sections for which there are rows, as Markdown; figures go to docs/."""
    parts = []
    rows = rows.assign(dataset=rows["dataset"].astype(str))  # a file that holds slices alone has numbers
    for task, title in TASKS.items():
        of_task = rows[rows["task"] == task]
        plain = of_task[of_task["input"] == "as it is"]
        whole = plain[plain["method"].str.contains(r" \+ |^scRCL|^published")]
        scored = whole[whole["ARI"].notna()]
        if not scored.empty:
            parts += [f"# {title}", *(table(scored, metric) for metric in METRICS), overview(scored)]
        parts += [text for text in (stability(whole), rare(task, scored), numbers(plain), ablation(plain)) if text]
        harder = of_task[of_task["input"] != "as it is"]
        if not harder.empty:
            parts += [text for text in (harder_input(of_task), numbers_of_parts(harder)) if text]
    return "\n\n".join(parts)


def markdown(header: list[str], lines: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, ["---"] * len(header), *lines])


def in_order(values: pd.Series) -> list[str]:
    return list(dict.fromkeys(values))


def means(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Mean over seeds: methods x data sets."""
    return rows.pivot_table(index="method", columns="dataset", values=metric, sort=False)


def table(rows: pd.DataFrame, metric: str) -> str:
    """A row per method, a column per data set: mean ± sd over seeds, the best in bold.

    The last columns are the mean over the sets and the mean rank.
    """
    mean, sd = means(rows, metric), rows.groupby(["method", "dataset"])[metric].std(ddof=1).unstack()
    results = mean[~mean.index.str.contains("oracle")]
    best = results.max()
    rank = results.rank(ascending=False).mean(axis=1).reindex(mean.index)

    def cell(method: str, name: str) -> str:
        value, spread = mean.loc[method, name], sd.loc[method, name]
        if np.isnan(value):
            return ""
        bold = "**" if method in results.index and value == best[name] else ""
        return f"{bold}{value:.3f}{bold}" + ("" if np.isnan(spread) else f" ± {spread:.3f}")

    lines = []
    for method, values in mean.iterrows():
        cells = [cell(method, name) for name in values.index]
        whole = values.notna().all()
        lines.append([method, *cells, f"{values.mean():.3f}" if whole else "", f"{rank[method]:.1f}" if whole else ""])
    return markdown([metric, *mean.columns, "mean", "mean rank"], lines)


def overview(rows: pd.DataFrame) -> str:
    """The recipe against every other method, in pairs over sets and seeds."""
    ours = rows[rows["method"] == RECIPE].set_index(["dataset", "seed"])["ARI"]
    lines = []
    for method in in_order(rows["method"]):
        if method.startswith(RECIPE) or "oracle" in method:
            continue
        theirs = rows[rows["method"] == method].set_index(["dataset", "seed"])["ARI"]
        gain = (ours - theirs).dropna()
        if gain.empty:
            continue
        wins, losses = int((gain > 0).sum()), int((gain < 0).sum())
        p = binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
        lines.append([method, f"{gain.mean():+.3f}", f"{wins} : {losses}", f"{p:.3f}", f"{gain.min():+.3f}"])
    if not lines:
        return ""
    header = ["scRCL against", "mean gain in ARI", "better : worse", "sign test, p", "worst"]
    return "Pairs of the same set and seed:\n\n" + markdown(header, lines)


def stability(rows: pd.DataFrame) -> str:
    """Sd over disjoint groups of seeds of the consensus, beside that of its single seeds."""
    if RECIPE not in set(rows["method"]):
        return ""
    lines = []
    for name in in_order(rows["dataset"]):
        of_set = rows[rows["dataset"] == name]
        single, agreed = (of_set[of_set["method"] == method]["ARI"] for method in ("scRCL, one seed", RECIPE))
        lines.append(
            [
                name,
                *(cell for runs in (single, agreed) for cell in (_spread(runs), f"{runs.min():.3f}", str(len(runs)))),
            ]
        )
    header = ["ARI", "one seed", "worst", "seeds", "consensus of five", "worst", "disjoint groups"]
    return "Stability:\n\n" + markdown(header, lines)


def _spread(values: pd.Series) -> str:
    return f"{values.mean():.3f}" + (f" ± {values.std():.3f}" if len(values) > 1 else "")


def recalls(rows: pd.DataFrame) -> pd.DataFrame:
    """A row per run and known type: its share of the cells and its recall."""
    found = []
    for row in rows.itertuples():
        types = json.loads(row.recall)
        n = sum(size for size, _ in types.values())
        found += [(row.method, row.dataset, name, size / n, value) for name, (size, value) in types.items()]
    frame = pd.DataFrame(found, columns=["method", "dataset", "type", "share", "recall"])
    return frame.groupby(["method", "dataset", "type"], sort=False, as_index=False).mean()


def rare(task: str, rows: pd.DataFrame) -> str:
    """Recall of types below and above 2 % of the cells; draws the figure of recall against frequency."""
    if rows.empty:
        return ""
    of_type = recalls(rows[~rows["method"].str.contains("oracle|published")])
    few = of_type["share"] < RARE
    if not few.any():
        return ""
    lines = []
    for method in in_order(of_type["method"]):
        ours = of_type["method"] == method
        seldom, common = of_type[ours & few]["recall"], of_type[ours & ~few]["recall"]
        lines.append(
            [method, f"{seldom.mean():.3f}", f"{(seldom < 0.5).sum()} of {len(seldom)}", f"{common.mean():.3f}"]
        )
    draw_recall(of_type, DOCS / f"recall_{task}.png")
    header = ["recall", "types under 2 %", "of them lost (below .5)", "other types"]
    return "Rare types:\n\n" + markdown(header, lines) + f"\n\n![Recall against frequency](recall_{task}.png)"


def draw_recall(of_type: pd.DataFrame, path: Path) -> None:
    shown = [name for name in (RECIPE, "PCA + Leiden", "PCA + tied GMM (20)") if name in set(of_type["method"])]
    figure = Figure(figsize=(4 * len(shown), 3.6), layout="constrained")
    for axes, method in zip(np.atleast_1d(figure.subplots(1, len(shown), sharey=True)), shown):
        ours = of_type[of_type["method"] == method]
        axes.scatter(100 * ours["share"], ours["recall"], s=22, color="#0072B2", alpha=0.8, linewidths=0)
        axes.axvline(100 * RARE, color="grey", lw=0.8, ls=":")
        axes.set(xscale="log", title=method, xlabel="share of the cells, per cent", ylim=(-0.03, 1.03))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    figure.axes[0].set_ylabel("recall of the type")
    figure.savefig(path, dpi=130)


def numbers(rows: pd.DataFrame) -> str:
    """Numbers of clusters found without labels, beside those annotated."""
    rows = rows[rows["method"].str.startswith("number: ")]
    if rows.empty:
        return ""
    annotated = rows.groupby("dataset", sort=False)["n_types"].first()
    found = rows.pivot_table(index="method", columns="dataset", values="n_clusters", sort=False)[annotated.index]
    error = np.log2(found / annotated).abs().mean(axis=1)
    lines = [["annotated", *map(str, annotated), ""]] + [
        [method.removeprefix("number: "), *(f"{value:.0f}" for value in values), f"{error[method]:.2f}"]
        for method, values in found.iterrows()
    ]
    header = ["number of clusters", *annotated.index, "mean error, log2"]
    return "Number of clusters without labels:\n\n" + markdown(header, lines)


def numbers_of_parts(rows: pd.DataFrame) -> str:
    """How far numbers of clusters found without labels are from those annotated, per kind of input."""
    rows = rows[rows["method"].str.startswith("number: ")]
    if rows.empty:
        return ""
    log2 = np.log2(rows["n_clusters"] / rows["n_types"])
    rows = rows.assign(error=log2.abs(), bias=log2)
    wide = rows.pivot_table(index="method", columns="input", values=["error", "bias"], sort=False)
    lines = [
        [
            method.removeprefix("number: "),
            *(f"{row['error', name]:.2f} ({row['bias', name]:+.2f})" for name in wide["error"]),
        ]
        for method, row in wide.iterrows()
    ]
    note = "Number of clusters of such parts, mean error in log2 over the sets (and its mean with the sign)"
    return f"{note}:\n\n" + markdown(["input", *wide["error"]], lines)


def ablation(rows: pd.DataFrame) -> str:
    """The recipe with one thing changed: ARI per set, means over the sets, and the gain over the recipe as it is.

    The gain is taken in pairs of the same set and seed.
    """
    variants = rows[~rows["method"].str.contains(r" \+ |^scRCL|^published|^number")]
    if variants.empty:
        return ""
    scores = variants.set_index(["method", "dataset", "seed"])[["ARI", "NMI", "F1"]]
    as_it_is = scores.loc["as it is"]
    names, lines = in_order(variants["dataset"]), []
    for method in in_order(variants["method"]):
        own = scores.loc[method]
        ari, (mean, *others) = own["ARI"].groupby("dataset").mean().reindex(names), own.groupby("dataset").mean().mean()
        gain = (own["ARI"] - as_it_is["ARI"]).dropna().groupby("dataset").mean()
        spread = f" ± {gain.sem():.3f}" if len(gain) > 1 and method != "as it is" else ""
        lines.append(
            [method, *("" if np.isnan(value) else f"{value:.3f}" for value in ari)]
            + [f"{value:.3f}" for value in (mean, *others)]
            + [f"{gain.mean():+.3f}{spread}"]
        )
    header = ["one thing changed", *names, "mean ARI", "mean NMI", "mean F1", "gain in ARI"]
    seeds = ", ".join(map(str, sorted(variants["seed"].unique())))
    note = (
        f"Ablation, single runs of seed {seeds}; the gain is over the recipe as it is on the same sets and seeds, "
        "± its standard error over the sets"
    )
    return f"{note}:\n\n" + markdown(header, lines)


def harder_input(rows: pd.DataFrame) -> str:
    """Mean ARI over the sets per method and kind of input, on the sets and methods that all kinds have."""
    rows = rows[(rows["seed"] == rows["seed"].min()) & rows["ARI"].notna()]
    wide = rows.pivot_table(index=["method", "dataset"], columns="input", values="ARI", sort=False).dropna()
    wide = wide[["as it is", *(name for name in wide if name != "as it is")]]
    n_sets = wide.index.get_level_values("dataset").nunique()
    mean = wide.groupby("method", sort=False).mean()
    lines = [[method, *(f"{value:.3f}" for value in values)] for method, values in mean.iterrows()]
    lines = [
        [name.replace("as it is", "scRCL, one seed") if name == "as it is" else name, *rest] for name, *rest in lines
    ]
    return f"Harder input, mean ARI over {n_sets} sets, one seed:\n\n" + markdown(["input", *mean.columns], lines)
