"""The machine that a run is on: what is compiled once, and where it cannot be kept."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numba
import pytest

from scrcl.runtime import compiled_once

LIBRARY = """
import numba

@numba.njit
def twice(x):
    return 2 * x

@numba.njit("int64(int64)")
def thrice(x):
    return 3 * x
"""


@pytest.fixture
def library(tmp_path, monkeypatch) -> str:
    """A library that compiles with numba and keeps nothing."""
    (tmp_path / "a_compiled_library.py").write_text(LIBRARY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "a_compiled_library", raising=False)
    return "a_compiled_library"


def test_what_a_library_compiles_is_kept_on_disk(library, tmp_path):
    before = numba.njit
    with compiled_once(library) as found:
        assert found.twice(4) == 8 and found.thrice(4) == 12
    assert numba.njit is before
    kept = {path.name.split("-")[0] for path in Path(tmp_path, "__pycache__").glob("*.nbi")}
    assert kept == {"a_compiled_library.twice", "a_compiled_library.thrice"}


def test_a_library_works_where_nothing_can_be_kept(library, tmp_path, monkeypatch):
    plain = numba.njit

    def nowhere(*arguments: Any, cache: bool = False, **others: Any) -> Any:
        """As numba does when no folder can be written to: on decoration, not before."""
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return plain(*arguments, **others)

    monkeypatch.setattr(numba, "njit", nowhere)
    with compiled_once(library) as found:
        assert found.twice(4) == 8 and found.thrice(4) == 12
    assert numba.njit is nowhere and not list(tmp_path.rglob("*.nbi"))


def test_other_warnings_are_seen(library):
    with compiled_once(library), pytest.warns(UserWarning, match="something else"):
        warnings.warn("something else", stacklevel=1)
