"""scRCL: find cell types in scRNA-seq data and domains in spatial transcriptomics, without labels.

>>> import scrcl
>>> adata = scrcl.read("my_cells.h5ad")
>>> scrcl.find_cell_types(adata)  # writes adata.obs["scrcl"], ...

Everything is loaded when it is first used, so that the import itself takes no time.
"""

from __future__ import annotations

import os as _os
from importlib import import_module as _import_module
from typing import TYPE_CHECKING, Any

# Read by the libraries below torch when they are loaded, so these come before any other import.
# Matrix products give the same bits for any number of threads, as far as MKL can; it costs no time.
_os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
# Threads that wait for others give up their core after some microseconds instead of some hundred: no slower alone, and
# several times faster where other programs want the cores.
if "OMP_WAIT_POLICY" not in _os.environ:
    _os.environ.setdefault("GOMP_SPINCOUNT", "1000")

from scrcl.version import VERSION as __version__

if TYPE_CHECKING:
    from scrcl import plot as pl
    from scrcl.api import (
        compare_numbers,
        find_cell_types,
        find_domains,
        merge_clusters,
        name_clusters,
        rank_markers,
        recluster,
        split_cluster,
    )
    from scrcl.commands.onto import map_cells
    from scrcl.messages import UserError
    from scrcl.readers import read
    from scrcl.recipes import CellSettings, TissueSettings

_HOMES = {
    "compare_numbers": "scrcl.api",
    "find_cell_types": "scrcl.api",
    "find_domains": "scrcl.api",
    "map_cells": "scrcl.commands.onto",
    "merge_clusters": "scrcl.api",
    "name_clusters": "scrcl.api",
    "rank_markers": "scrcl.api",
    "recluster": "scrcl.api",
    "split_cluster": "scrcl.api",
    "read": "scrcl.readers",
    "pl": "scrcl.plot",
    "CellSettings": "scrcl.recipes",
    "TissueSettings": "scrcl.recipes",
    "UserError": "scrcl.messages",
}
__all__ = [
    "CellSettings", "TissueSettings", "UserError", "__version__",
    "compare_numbers", "find_cell_types", "find_domains", "map_cells", "merge_clusters", "name_clusters", "pl",
    "rank_markers", "read", "recluster", "split_cluster",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'scrcl' has no attribute {name!r}")
    home = _import_module(_HOMES[name])
    return home if name == "pl" else getattr(home, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
