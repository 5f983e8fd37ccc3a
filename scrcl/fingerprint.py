"""All that decides what a seed gives: by it a checkpoint is known to be of the same run."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch

from scrcl.prepare.features import Features
from scrcl.prepare.prepared import Prepared
from scrcl.recipes import RUN_ONLY, CellSettings, TissueSettings
from scrcl.runtime import versions


def fingerprint(
    prepared: Prepared, n_clusters: int, settings: CellSettings | TissueSettings, device: torch.device
) -> dict[str, Any]:
    """Return settings, versions, machine, and a hash of the prepared data, by names that people can compare.

    Parameters
    ----------
    prepared, n_clusters, settings, device
        All that decides what a seed gives.

    Returns
    -------
    Values that JSON can hold. The seeds are left out, since each has a checkpoint of its own. So is what only decides
    where results go, or how the work is divided: threads, processes, cells at a time.
    """
    content = hashlib.sha256("\n".join(prepared.cells.obs_names).encode())
    inputs, graph = prepared.inputs, prepared.graph
    if isinstance(inputs, Features):
        parts = [inputs.values.indptr, inputs.values.indices, inputs.values.data, inputs.offset]
    else:
        parts = [inputs]
    for part in (*parts, prepared.pcs, graph.indptr, graph.indices, graph.data):
        content.update(np.ascontiguousarray(part).data)
    own = {
        name: value
        for name, value in vars(settings).items()
        if name not in (*RUN_ONLY, "seeds", "label_key", "threads")
    }
    return {
        "task": settings.task,
        "input": content.hexdigest(),
        **own,
        "n_clusters": n_clusters,
        "device": str(device),
        **versions(),
    }
