"""Print the import graph of the package: modules by floor, and every import that runs to a later step (there is none).

python tests/import_graph.py

A module's floor is one above the highest module it imports, imports inside functions included.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
# The steps of the data, in order, after what all may use
REGISTRIES = ("scrcl.methods", "scrcl.readers.formats")  # names of what there is; they load it when it is used
ROOMS = (
    *("scrcl.version", "scrcl.messages", "scrcl.keys", "scrcl.runtime", "scrcl.processes", "scrcl.scheduler"),
    *("scrcl.settings", "scrcl.recipes", "scrcl.disk", "scrcl.published", "scrcl.contents", "scrcl.readers"),
    *("scrcl.prepare", "scrcl.method", "scrcl.cluster", "scrcl.fingerprint", "scrcl.result", "scrcl.annotate"),
    *("scrcl.analysis", "scrcl.again", "scrcl.mapping"),
    *("scrcl.genes", "scrcl.plot", "scrcl.api", "scrcl", "scrcl.commands", "scrcl.__main__"),
)


def modules() -> dict[str, Path]:
    """Every module of the package, by its dotted name."""
    found = {}
    for path in sorted((ROOT / "scrcl").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(name: str, known: dict[str, Path]) -> set[str]:
    """The modules of the package that a module imports, but for type checking."""
    found: set[str] = set()
    for node in _runtime_nodes(ast.parse(known[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {full if full in known else node.module for full in inner}
    return {module for module in found if module in known} - {name}


def _runtime_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from _runtime_nodes(node)


def room(name: str) -> int:
    """The step that a module belongs to: the longest room that its name begins with; a registry is of none."""
    if name in REGISTRIES:
        return 0
    return max((i for i, own in enumerate(ROOMS) if f"{name}.".startswith(f"{own}.")), key=lambda i: len(ROOMS[i]))


def upward(known: dict[str, Path]) -> list[tuple[str, str]]:
    """Imports from a later step."""
    return [(name, other) for name in known for other in imports_of(name, known) if room(other) > room(name)]


def floors(known: dict[str, Path]) -> dict[str, int]:
    """The floor of every module, from 1. Raises RecursionError where imports run in a circle."""

    @cache
    def floor(name: str) -> int:
        return 1 + max((floor(other) for other in imports_of(name, known)), default=0)

    return {name: floor(name) for name in known}


def main() -> None:
    known = modules()
    by_floor = floors(known)
    for floor in sorted(set(by_floor.values()), reverse=True):
        print(f"{floor:3}  {', '.join(name for name, own in by_floor.items() if own == floor)}")
    n_imports = sum(len(imports_of(name, known)) for name in known)
    print(f"{len(known)} modules, {n_imports} imports, {len(upward(known))} of them from a later step")
    for name, other in upward(known):
        print(f"  {name} imports {other}")


if __name__ == "__main__":
    main()
