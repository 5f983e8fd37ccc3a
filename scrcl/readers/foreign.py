"""Say what a file or folder is that no reader takes, and how to convert it."""

from __future__ import annotations

from pathlib import Path

from scrcl.readers import formats


def what_it_is(path: Path) -> str:
    """Return one sentence that says what a path is, and what to do about it.

    Parameters
    ----------
    path
        A file or folder that no format fits.
    """
    return f"{path} cannot be read: it is none of {formats.in_words()}."
