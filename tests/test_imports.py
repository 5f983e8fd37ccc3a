"""The floor plan holds: imports run one way, numerics need no reader, nothing heavy is loaded before it is needed."""

from __future__ import annotations

import subprocess
import sys

import import_graph
import pytest
from conftest import ROOT

HEAVY = ("numpy", "torch", "torch_geometric", "scanpy", "anndata", "pandas", "matplotlib", "numba", "h5py", "pooch")


@pytest.fixture(scope="module")
def known() -> dict:
    return import_graph.modules()


def test_no_import_from_a_later_step(known):
    assert import_graph.upward(known) == []


def test_no_circle(known):
    assert min(import_graph.floors(known).values()) == 1  # a circle has no floor, and ends in RecursionError


def test_numerics_import_no_reader(known):
    numerics = [name for name in known if name.startswith(("scrcl.prepare", "scrcl.method", "scrcl.cluster"))]
    forbidden = ("scrcl.readers", "scrcl.published", "scrcl.commands", "scrcl.plot", "scrcl.api")
    imported = {(name, other) for name in numerics for other in import_graph.imports_of(name, known)}
    assert [pair for pair in imported if pair[1].startswith(forbidden)] == []


def test_the_package_imports_nothing_from_beside_it(known):
    own = {path.stem for path in ROOT.glob("*.py")}
    for path in known.values():
        lines = path.read_text(encoding="utf-8").splitlines()
        assert not [line for line in lines if line.split()[:1] in (["import"], ["from"]) and line.split()[1] in own], (
            path
        )


WATCH = """
import atexit, runpy, sys
heavy = sys.argv[1].split(",")
atexit.register(lambda: print("LOADED", *[name for name in heavy if name in sys.modules], flush=True))
sys.argv, sys.path[0] = sys.argv[2:], "."
run = runpy.run_path if sys.argv[0].endswith(".py") else runpy.run_module
run(sys.argv[0], run_name="__main__")
"""


def loaded(*command: str) -> tuple[list[str], int]:
    """Which of the heavy packages a program has loaded when it ends, and its exit code."""
    watched = [sys.executable, "-c", WATCH, ",".join(HEAVY), *command]
    found = subprocess.run(watched, cwd=ROOT, capture_output=True, text=True)
    line = next(line for line in found.stdout.splitlines() if line.startswith("LOADED"))
    return line.split()[1:], found.returncode


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["runSC.py", "--help"], 0),
        (["runST.py", "--help"], 0),
        (["draw_DEGs.py", "--help"], 0),
        (["runSC.py", "--version"], 0),
        (["runSC.py", "--epoch", "3"], 2),
        (["runSC.py", "--epochs", "0"], 2),
        (["runSC.py", "no_such_file.h5ad"], 2),
        (["runST.py", "no_such_folder"], 2),
        (["runST.py"], 2),
        (["scrcl", "--help"], 0),
        (["scrcl", "fetch", "--list"], 0),
        (["scrcl", "fetch", "no_such_set"], 2),
    ],
)
def test_nothing_heavy_is_loaded_before_it_is_needed(command, code):
    assert loaded(*command) == ([], code)


def test_the_environment_is_set_before_torch_can_load():
    code = "import scrcl, sys, os; print(os.environ['GOMP_SPINCOUNT'], os.environ['MKL_CBWR'], 'torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env={}, check=True)
    assert found.stdout.split() == ["1000", "AUTO,STRICT", "False"]
