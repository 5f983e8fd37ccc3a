"""Open files that may be packed, told by their first bytes."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast

PACKERS: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError)  # what reading a damaged packed file raises


def first_bytes(path: Path, n: int = 512) -> bytes:
    """Return the first bytes of a file as they are; none where it may not be read."""
    try:
        with path.open("rb") as file:
            return file.read(n)
    except OSError:
        return b""


def opened(path: Path) -> BinaryIO:
    """Return a file to read the unpacked content from."""
    start = first_bytes(path)
    opener = next((opener for magic, opener in PACKERS.items() if start.startswith(magic)), open)
    return cast("BinaryIO", opener(path, "rb"))


def first_content(path: Path, n: int = 4096) -> bytes:
    """Return the first unpacked bytes of a file, up to where it is damaged."""
    found = b""
    try:
        with opened(path) as file:
            while len(found) < n and (more := file.read(min(512, n - len(found)))):
                found += more
    except DAMAGE:
        pass
    return found
