"""The recipe with one thing changed: what an ablation compares."""

from __future__ import annotations

from typing import Any, NamedTuple


class Variant(NamedTuple):
    """What differs from the recipe.

    settings: those that are changed, by name; without: fields of `Losses` that are left out of the total; unit_rows:
    whether the rows of E keep their unit length beside the PCs.
    """

    settings: dict[str, Any]
    without: tuple[str, ...] = ()
    unit_rows: bool = False


def changed(**settings: Any) -> Variant:
    """The recipe with some settings changed."""
    return Variant(settings)


RECIPE = changed()
CELLS_AND_TISSUE = {
    "as it is": RECIPE,
    "encoder alone": changed(embedding="encoder"),
    "refined alone": changed(embedding="refined"),
    "PCs alone": changed(embedding="pcs"),
    "refined beside the PCs": changed(embedding="joint-refined"),
    "k-means": changed(cluster_method="kmeans"),
    "Leiden": changed(cluster_method="leiden"),
    "no CVC": changed(lambda2=0),
    "no NDC": changed(lambda1=0),
    "no HEA": Variant({}, without=("hea_global", "hea_cell")),
    "no HEA, global": Variant({}, without=("hea_global",)),
    "no HEA, cell": Variant({}, without=("hea_cell",)),
    "input not centred": changed(encoder_input="uncentred"),
    "hops 5 0": changed(hops=[5, 0]),
    "k 30": changed(n_neighbors=30),
    "H 64": changed(hidden=64),
    "rows of E at unit length": Variant({}, unit_rows=True),
    **{f"{n} epoch{'s' * (n > 1)}": changed(epochs=n, plateau=0) for n in (1, 20, 100, 200, 300, 500)},
}
CELLS = {
    "joint always": changed(embedding="joint"),
    "20 dimensions": changed(mixture_dims=[20]),
    "30 dimensions": changed(mixture_dims=[30]),
    "joint always, 20 dimensions": changed(embedding="joint", mixture_dims=[20]),
    "CVC as published": changed(consistency="published"),
    "CVC and K' as published": changed(consistency="published", refined_width=0),
    "refined beside the PCs, CVC as published": changed(embedding="joint-refined", consistency="published"),
    "refined beside the PCs, CVC and K' as published": changed(
        embedding="joint-refined", consistency="published", refined_width=0
    ),
    "genes seen in any cell": changed(min_cells=1),
    "normalised to the median": changed(target_sum="median"),
    "K' = K": changed(refined_width=0),
    "K' 32": changed(refined_width=32),
    "K' 128": changed(refined_width=128),
    "t 0.1": changed(temperature=0.1),
    "cosine graph": changed(metric="cosine"),
    "graph on genes": changed(graph_on="genes"),
}
TISSUE = {
    "equal gene weights": changed(gene_weights="none"),
    "t 1": changed(temperature=1.0),
    "K' 64": changed(refined_width=64),
    "K' 64, scale-free CVC": changed(refined_width=64, consistency="scale-free"),
    "refined beside the PCs, K' 64, scale-free CVC": changed(
        embedding="joint-refined", refined_width=64, consistency="scale-free"
    ),
}
VARIANTS = {"SC": CELLS_AND_TISSUE | CELLS, "ST": CELLS_AND_TISSUE | TISSUE}
