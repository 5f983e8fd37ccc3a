"""Find out how a text is encoded, and what separates its fields."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence

SEPARATORS = (",", "\t", ";", "|", " ")
BYTE_ORDER_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}
LOOKED_AT = 100_000  # bytes


def encoding(content: bytes) -> str:
    """Return the encoding of a text: UTF-8, UTF-16 as Excel writes it, or the Western one of older Windows.

    Parameters
    ----------
    content
        The text, or its beginning.
    """
    for mark, name in BYTE_ORDER_MARKS.items():
        if content.startswith(mark):
            return name
    if b"\0" in content[1:100:2]:
        return "utf-16-le"
    try:
        content[:LOOKED_AT].decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(content[:LOOKED_AT]) - 3:  # or else a letter was cut in two
            return "cp1252"
    return "utf-8"


def separator(lines: Sequence[str], likely: str) -> str:
    """Return what separates the fields of a table: what gives most fields, and the same number in each line.

    Parameters
    ----------
    lines
        The first lines. The header may have one field less than the others, as R writes it.
    likely
        The separator to take where none is better.
    """
    best, most = likely, 1
    for mark in dict.fromkeys((likely, *SEPARATORS)):
        rows = list(csv.reader(lines, delimiter=mark))
        sizes = [len(row) for row in rows if row]
        if not sizes:
            continue
        usual, times = Counter(sizes[1:] or sizes).most_common(1)[0]
        enough = times >= 0.9 * len(sizes[1:] or sizes) and sizes[0] in (usual, usual - 1)
        if enough and usual > most:
            best, most = mark, usual
    return best
