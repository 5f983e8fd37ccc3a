"""What this software says: errors of one sentence, log lines, tables and progress bars. Imports nothing heavy."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import logging
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

log = logging.getLogger("scrcl")


class UserError(Exception):
    """Bad input, in one sentence: what is wrong, where, and what to do. Scripts exit with code 2."""


def one_line(error: BaseException) -> str:
    """The first line of what an exception says, or its type where it says nothing."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def did_you_mean(word: str, known: Iterable[str], n: int = 1) -> str:
    """' (did you mean X?)' for a word that nearly is one of those known, at most n of them; '' for any other."""
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), by_lower, n=n)
    return f" (did you mean {' or '.join(by_lower[name] for name in close)}?)" if close else ""


def natural_order(names: Iterable[str]) -> list[str]:
    """Sorted with numbers as numbers: L2 before L10."""
    return sorted(
        names,
        key=lambda name: [(not p.isdecimal(), int(p) if p.isdecimal() else 0, p) for p in re.split(r"(\d+)", name)],
    )


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]], words: Sequence[str] = ()) -> str:
    """A plain-text table: the first column and those of `words` left-aligned, the others right-aligned."""
    left = [i == 0 or name in words for i, name in enumerate(header)]
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        cells = (cell.ljust(w) if at_left else cell.rjust(w) for cell, w, at_left in zip(row, widths, left))
        return "  ".join(cells).rstrip()

    return "\n".join([line(header), "  ".join("-" * w for w in widths), *map(line, rows)])


def without_home(text: str) -> str:
    """Return the text with `~` for this user's home folder, so that what is passed on does not name them."""
    homes = {os.path.expanduser("~"), os.path.realpath(os.path.expanduser("~"))} - {"~", "/"}
    for home in sorted(homes, key=len, reverse=True):  # it may lie behind a link
        text = re.sub(rf"(?<![\w/]){re.escape(home)}(?![\w-])", "~", text)
    return text


def whole_path(path: Path) -> str:
    """Return the absolute path, with `~` for the home folder; a link keeps its own name."""
    return without_home(os.path.abspath(path))


def in_notebook() -> bool:
    """Whether this is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and "IPKernelApp" in shell.config


def show_messages() -> None:
    """Let the log's lines be seen in a session that has not set up logging itself, as in a notebook."""
    if log.level == logging.NOTSET and not log.handlers and not logging.getLogger().handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)


@contextmanager
def nothing_said_twice() -> Iterator[None]:
    """Let the log be silent while something is done once more."""
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def progress(*arguments: Any, **settings: Any) -> Any:
    """Return tqdm's progress bar, shown only where somebody watches: on a terminal or in a notebook.

    It is never shown in a file, nor where messages are off.
    """
    watched = in_notebook() or sys.stderr.isatty()
    as_widget = in_notebook() and importlib.util.find_spec("ipywidgets")
    bar = importlib.import_module("tqdm.notebook" if as_widget else "tqdm").tqdm
    return bar(*arguments, disable=not (watched and log.isEnabledFor(logging.INFO)), **settings)
