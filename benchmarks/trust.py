"""How often clusters of finished runs that are called doubtful are no known type, and clear ones are.

    python -m benchmarks.trust results/SC/* results/ST/*       # runs on labelled data, at the known number of clusters

A cluster is false if it has a Jaccard index below one half with every known type, and a part if another cluster has
more cells of the type that most of its cells have.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import anndata as ad
import pandas as pd
from sklearn.metrics import roc_auc_score

from scrcl.cluster.trust import CLEAR, trust
from scrcl.contents.labels import find_labels
from scrcl.keys import OURS
from scrcl.messages import format_table


def judged(clusters: pd.DataFrame, labels: pd.Series, known: pd.Series) -> pd.DataFrame:
    """Return the table of the clusters that have known cells, with 'false', 'part', 'doubtful' and 'trust'."""
    table = pd.crosstab(labels.astype(str), known.astype(object))
    of_cluster, of_type = table.sum(axis=1), table.sum()
    either = -table.sub(of_cluster, axis=0).sub(of_type, axis=1)  # cells of a cluster or of a type
    main = table.idxmax(axis=1)
    most = table.idxmax()  # of each type, the cluster with most of its cells
    own = clusters.loc[table.index]
    return own.assign(
        false=(table / either).max(axis=1) < 0.5,
        part=most[main].to_numpy() != table.index,
        doubtful=own["verdict"] != CLEAR,
        trust=trust(own),
    )


def of_run(folder: Path) -> pd.DataFrame:
    """Return the judged clusters of a finished run."""
    cells = ad.read_h5ad(folder / "result.h5ad")
    facts = cells.uns[OURS.parameters]
    known = find_labels(cells.obs, facts["label_key"])
    if known is None:
        raise SystemExit(f"{folder} has no known labels to judge clusters by.")
    return judged(facts["clusters"], cells.obs[OURS.labels], known)


def row(name: str, table: pd.DataFrame) -> list[str]:
    """One row of the table: how many clusters, and how well 'doubtful' tells the false ones and the parts."""
    shown = [name, str(len(table)), str(table["doubtful"].sum())]
    for kind in ("false", "part"):
        found = table[kind] & table["doubtful"]
        area = f"{roc_auc_score(~table[kind], table['trust']):.2f}" if table[kind].nunique() == 2 else ""
        shown += [str(table[kind].sum()), str(found.sum()), area]
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.trust",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("folders", nargs="+", type=Path, help="folders of finished runs")
    tables = {folder.name: of_run(folder) for folder in parser.parse_args().folders}
    rows = [row(name, table) for name, table in tables.items()]
    rows.append(row("all", pd.concat(tables.values())))
    print(format_table(["run", "clusters", "doubtful", *("false", "found", "AUC"), *("parts", "found", "AUC")], rows))


if __name__ == "__main__":
    main()
