"""The tutorials in docs/ run from beginning to end in an empty folder, and are committed with what they show.

SCRCL_RENEW_TUTORIALS=1 python -m pytest tests/test_tutorials.py    # write what they show now into docs/
"""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
LARGEST = 600_000  # bytes of a committed notebook, so that a clone stays small
RENEW = bool(os.environ.get("SCRCL_RENEW_TUTORIALS"))
WIDGET = "application/vnd.jupyter.widget-view+json"  # a progress bar, where ipywidgets is installed


def executed(notebook: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    """Return the notebook as it comes out of a run in a folder; the first error in a cell is raised."""
    fresh = nbformat.from_dict(notebook)
    place = {"metadata": {"path": str(folder)}}
    NotebookClient(fresh, resources=place, timeout=600, record_timing=False, coalesce_streams=True).execute()
    fresh.metadata = notebook.metadata
    return fresh


def shown(cell: nbformat.NotebookNode) -> set[str]:
    """Return the kinds of figures, tables and values that a cell displays; messages may differ between machines."""
    data = [out.data for out in cell.outputs if out.output_type in ("display_data", "execute_result")]
    return {kind for bundle in data if WIDGET not in bundle for kind in bundle}


@pytest.mark.parametrize("name", ["cells", "tissue"])
def test_tutorial_runs_and_shows_what_the_committed_copy_shows(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = ROOT / "docs" / "tutorials" / f"{name}.ipynb"
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # of the kernel, a process of its own: scrcl may not be installed
    monkeypatch.setenv("PYTHONWARNINGS", "ignore:IProgress not found")  # tqdm's, without ipywidgets
    committed = nbformat.read(path, as_version=4)
    fresh = executed(committed, tmp_path)
    if RENEW:
        nbformat.write(fresh, path)
        committed = nbformat.read(path, as_version=4)

    assert path.stat().st_size < LARGEST
    nbformat.validate(committed)
    code, again = ([cell for cell in book.cells if cell.cell_type == "code"] for book in (committed, fresh))
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert [shown(cell) for cell in code] == [shown(cell) for cell in again]
    assert sum("image/png" in shown(cell) for cell in code) >= 3
    said = [out.text for cell in (*code, *again) for out in cell.outputs if out.output_type == "stream"]
    assert not [text for text in said if "Traceback" in text]
    assert {file.name for file in tmp_path.iterdir()} >= {"labels.csv"} and list(tmp_path.glob("*_scrcl.h5ad"))
