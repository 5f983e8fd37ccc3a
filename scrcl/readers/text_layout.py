"""Tell from the first lines of a text file how its table is laid out: encoding, separator, header, names of rows."""

from __future__ import annotations

import codecs
import csv
import io
import re
from pathlib import Path
from typing import NamedTuple

from scrcl.readers.packed import DAMAGE, first_content, opened

LINES = 12  # that are looked at
LONGEST = 2**24  # characters of a line: a header of a million barcodes
SEPARATORS = ("\t", ",", ";", r"\s+", "|")
MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
LEAST = 3  # columns of values: fewer are a list with something about its entries
CORNER = re.compile(
    r"(gene|cell|barcode|symbol|feature|spot)s?[_ .]?(id|name|symbol)?s?|index|ensembl\w*", re.IGNORECASE
)
EMPTY = ("", "NA", "NaN", "nan", "N/A", "NULL", "null")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?inf(inity)?", re.IGNORECASE)
COMMA = re.compile(r"[+-]?\d+,\d+([eE][+-]?\d+)?")
# Columns of numbers that are known not to be genes or cells, in the habits of featureCounts, Seurat and scanpy
ABOUT = re.compile(
    r"chr(om(osome)?)?|start|end|strand|length|gene_?length|entrez(_?id)?|entrezgene(_id)?|x|y|x_centroid|y_centroid|"
    r"n(count|feature)_\w+|n_?(counts|genes|umis?)|n_genes_by_counts|total_counts|pct_counts_\w+|"
    r"percent[._]?(mt|mito|ribo)|(seurat_)?clusters?|leiden|louvain|umap_?\d|tsne_?\d|pc_?\d+|batch|"
    r"array_(row|col)|in_tissue",
    re.IGNORECASE,
)


class Layout(NamedTuple):
    """How a table stands in a text file.

    Attributes
    ----------
    encoding, separator, decimal
        As pandas takes them.
    skip
        Lines before the first row of values, the header among them.
    width
        Columns, with those of names.
    trailing
        1 where every line ends in a separator, else 0.
    header
        The names of the columns; None where there is no header.
    named_by
        The column that names the rows; None where rows have no names.
    texts
        Columns that are not values: names, other text, and numbers that are known to be about cells or genes.
    """

    encoding: str
    separator: str
    decimal: str
    skip: int
    width: int
    trailing: int
    header: tuple[str, ...] | None
    named_by: int | None
    texts: frozenset[int]

    @property
    def corner(self) -> str:
        """The word above the names of the rows."""
        return self.header[self.named_by] if self.header and self.named_by is not None else ""

    def names(self) -> list[str]:
        """Return the names of all columns."""
        return list(self.header) if self.header else [str(i) for i in range(self.width)]


def is_number(field: str) -> bool:
    """Return whether a field is a number, or empty."""
    return field.strip() in EMPTY or NUMBER.fullmatch(field.strip()) is not None


def layout_of(path: Path) -> Layout | None:
    """Return how the table in a text file is laid out, or None when it holds no table of numbers."""
    encoding = _encoding(path)
    lines = _lines(path, encoding) if encoding else []
    n_comments = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    if lines and lines[0].startswith("#1."):  # GCT, whose second line has the size
        n_comments += 1
    if n_comments and len(lines) > n_comments and _same_width(lines[n_comments - 1], lines[n_comments]):
        n_comments -= 1  # the header begins with #
    lines = lines[n_comments:]
    if not encoding or len(lines) < 2 or lines[0].startswith("%%MatrixMarket"):
        return None
    layouts = (_layout(lines, separator, encoding, n_comments) for separator in SEPARATORS)
    return max((found for found in layouts if found), key=lambda found: found.width, default=None)


def _encoding(path: Path) -> str | None:
    """Return the encoding of a text file, or None for a file that is no text."""
    start = first_content(path, 2**16)
    marked = next((name for mark, name in MARKS.items() if start.startswith(mark)), None)
    if marked or not start:
        return marked
    if b"\0" in start:
        return None
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8"


def _lines(path: Path, encoding: str) -> list[str]:
    """Return the first whole lines that are not empty."""
    found: list[str] = []
    try:
        with opened(path) as file, io.TextIOWrapper(file, encoding=encoding, errors="replace") as text:
            while len(found) < LINES and (line := text.readline(LONGEST)):
                if line.strip():
                    found.append(line.rstrip("\r\n"))
    except (*DAMAGE, UnicodeError):
        pass  # the first lines may tell enough, and reading reports the damage
    return found


def _same_width(one: str, other: str) -> bool:
    """Return whether two lines have the same number of fields, and more than one."""
    return any(len(one.split(mark)) == len(other.split(mark)) > 1 for mark in "\t,;")


def _fields(line: str, separator: str) -> list[str]:
    """Return the fields of a line, without quotes."""
    if separator == r"\s+":
        return next(csv.reader([" ".join(line.split())], delimiter=" "), [])
    return [field.strip() for field in next(csv.reader([line], delimiter=separator), [])]


def _layout(lines: list[str], separator: str, encoding: str, n_comments: int) -> Layout | None:
    """Return the layout of the lines with one separator, or None when they are no table of numbers with it."""
    try:
        first, *rows = (_fields(line, separator) for line in lines)
    except csv.Error:  # a field that is too long
        return None
    width = len(rows[0])
    trailing = int(width > 2 and not any(row[-1:] != [""] for row in rows) and (len(first) < width or not first[-1]))
    width -= trailing
    if trailing and first[-1] == "":
        first.pop()
    if width < 2 or any(len(row) != width + trailing for row in rows[:-1]):
        return None
    commas = separator == ";" and any(COMMA.fullmatch(field) for row in rows for field in row)
    rows = [[field.replace(",", ".") if commas else field for field in row] for row in rows if len(row) >= width]
    if len(first) not in (width - 1, width):
        return None
    header = _header(first, rows[0], width)
    texts = {i for i in range(width) if not all(is_number(row[i]) for row in rows)}
    named_by = _named_by(header, texts, rows)
    texts |= {i for i, name in enumerate(header or ()) if ABOUT.fullmatch(name)}
    texts |= {named_by} if named_by is not None else set()
    if 2 * len(texts) > width or width - len(texts) < LEAST:
        return None
    skip = n_comments + (header is not None)
    named = None if header is None else tuple(header)
    return Layout(encoding, separator, "," if commas else ".", skip, width, trailing, named, named_by, frozenset(texts))


def _header(first: list[str], row: list[str], width: int) -> list[str] | None:
    """Return the names of the columns, or None when the first line has values too.

    R writes no name above the names of the rows. A header of numbers stands beside an empty field or a word like gene,
    or counts from 0 or 1.
    """
    if len(first) == width - 1:
        return ["", *first]
    if (first[0] == "" and row[0]) or CORNER.fullmatch(first[0]):
        return first
    values = first if is_number(row[0]) else first[1:]
    counted = ([str(i + start) for i in range(len(values))] for start in (0, 1))
    return first if not all(map(is_number, values)) or values in counted else None


def _named_by(header: list[str] | None, texts: set[int], rows: list[list[str]]) -> int | None:
    """Return the column that names the rows: the first text with few repeats, or a first column that only counts."""
    for i in sorted(texts):
        if 2 * len({row[i] for row in rows}) > len(rows):
            return i
    column = [row[0] for row in rows]
    counts = column in ([str(i + start) for i in range(len(column))] for start in (0, 1))
    return 0 if header and 0 not in texts and (header[0] == "" or counts) else None
