"""Nothing that is read is executed, no name leads out of the folder of results, and no warning is lost."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import ROOT
from hypothesis import example, given
from hypothesis import strategies as st

import scrcl
from scrcl.commands.ranking import output_folder
from scrcl.disk import home
from scrcl.genes.settings import MarkerSettings
from scrcl.readers.find import dataset_name

PACKAGE = Path(scrcl.__file__).parent
OURS = [*PACKAGE.rglob("*.py"), *ROOT.glob("*.py"), *ROOT.glob("benchmarks/*.py")]
EXECUTING_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
EXECUTING_BUILTINS = {"eval", "exec", "compile", "__import__"}
EXECUTING_METHODS = {"read_pickle", "unsafe_load", "full_load", "system", "popen"}


def calls(path: Path):
    """Every call in a file: the name called, and its keywords."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            name, keywords = ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
            yield name, keywords, node


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("path", OURS, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_that_is_read_is_executed(path):
    assert not imported(path) & EXECUTING_MODULES
    for name, keywords, _ in calls(path):
        last = name.rpartition(".")[2]
        assert name not in EXECUTING_BUILTINS and last not in EXECUTING_METHODS, name
        assert name != "yaml.load" and keywords.get("shell") != "True" and keywords.get("allow_pickle") != "True"
        if name == "torch.load":
            assert keywords.get("weights_only") == "True"


def test_deprecation_warnings_of_every_module_are_errors(pytestconfig):
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in OURS if path.parent != ROOT]
    lines = [line.split(":", 3) for line in pytestconfig.getini("filterwarnings")]
    modules = {category: module for action, _, category, module in lines if action == "error"}
    for category in ("DeprecationWarning", "FutureWarning"):
        assert all(re.match(modules[category], name) for name in names)


def test_the_search_finds_what_it_looks_for(tmp_path):
    path = tmp_path / "bad.py"
    path.write_text("import pickle\ntorch.load(f)\nyaml.load(f)\n")
    assert imported(path) == {"pickle"} and [name for name, *_ in calls(path)] == ["torch.load", "yaml.load"]


names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=60)


@given(names)
@example("...h5ad")
@example("..")
@example("../../elsewhere.h5ad")
@example("/")
@example("a/../..")
@example("\0")
def test_names_of_data_sets_stay_in_the_folder_of_results(name):
    found = dataset_name(name)
    assert Path("results", "SC", found).parent == Path("results", "SC") and found not in ("", ".", "..")


@given(names)
@example("../../elsewhere")
@example("..\\..\\elsewhere")
@example("a\0b")
def test_names_of_labels_stay_in_the_folder_of_results(name):
    cells = SimpleNamespace(task="SC", name="mine", own=False, label_name=name)
    folder = output_folder(cells, None, MarkerSettings())
    assert folder.parent == home.results("SC") and "\0" not in str(folder) and folder.name.startswith("mine_by_")
