"""The tutorials in docs/ run from beginning to end in an empty folder, and are committed with what they show."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
LARGEST = 600_000  # bytes of a committed notebook, so that a clone stays small


def shown(cell: nbformat.NotebookNode) -> set[str]:
    """What a cell puts out: the names of its streams, and the richest form of each thing it displays."""
    outputs = [out for out in cell.outputs if out.output_type != "stream"]
    streams = {out.name for out in cell.outputs if out.output_type == "stream"}
    return streams | {"image/png" if "image/png" in out.get("data", {}) else out.output_type for out in outputs}


@pytest.mark.parametrize("name", ["cells", "tissue"])
def test_tutorial_runs_and_shows_what_the_committed_copy_shows(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = ROOT / "docs" / "tutorials" / f"{name}.ipynb"
    committed = nbformat.read(path, as_version=4)
    nbformat.validate(committed)
    assert path.stat().st_size < LARGEST
    fresh = nbformat.from_dict(committed)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # of the kernel, a process of its own, where scrcl may not be installed
    kernel = {"resources": {"metadata": {"path": str(tmp_path)}}, "kernel_name": "python3", "timeout": 600}
    NotebookClient(fresh, **kernel).execute()  # raises on the first error in a cell

    code = [cell for cell in committed.cells if cell.cell_type == "code"]
    again = [cell for cell in fresh.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert [shown(cell) for cell in code] == [shown(cell) for cell in again]
    assert any("image/png" in shown(cell) for cell in code)
    said = [out.text for cell in (*code, *again) for out in cell.outputs if out.output_type == "stream"]
    assert not [text for text in said if "Traceback" in text]
    assert (tmp_path / "labels.csv").is_file() and list(tmp_path.glob("*_scrcl.h5ad"))
