"""Tables whatever separates their fields, whatever their encoding, and with barcodes as programs change them."""

from __future__ import annotations

import bz2
import gzip
import lzma

import pandas as pd
import pytest

from scrcl.messages import UserError
from scrcl.readers import text
from scrcl.readers.tables import joined, read_table

TYPES = ["T, CD4+", "B", "Löwe", "a;b", "x|y"] * 2
TABLE = pd.DataFrame({"barcode": [f"AAAC{i}-1" for i in range(10)], "type": TYPES})
BARCODES = pd.Index(TABLE["barcode"])


@pytest.mark.parametrize("ending", ["csv", "tsv", "txt", "dat"])
@pytest.mark.parametrize("mark", [",", "\t", ";", "|", " "])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
def test_separators_and_encodings_are_told_by_the_content(ending, mark, encoding, tmp_path):
    path = tmp_path / f"t.{ending}"
    TABLE.to_csv(path, sep=mark, index=False, encoding=encoding)
    assert read_table(path, "table").equals(TABLE)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_packed_tables_whatever_their_name(pack, tmp_path):
    (tmp_path / "t.csv").write_bytes(pack(TABLE.to_csv(index=False).encode()))
    assert read_table(tmp_path / "t.csv", "table").equals(TABLE)


def test_line_ends_of_windows_and_a_header_one_short(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"type\tscore\r\nc1\tT\t0.5\r\nc2\tB\t1.5\r\n")
    table = read_table(tmp_path / "t.csv", "table")
    assert list(table) == ["barcode", "type", "score"] and list(table["barcode"]) == ["c1", "c2"]


def test_one_column_stays_one_column(tmp_path):
    (tmp_path / "t.txt").write_text("gene\nCD3E\nMS4A1\n")
    assert read_table(tmp_path / "t.txt", "table").equals(pd.DataFrame({"gene": ["CD3E", "MS4A1"]}))
    assert text.separator(["a", "b"], "\t") == "\t" and text.separator([], ",") == ","


def test_what_is_no_table(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"\x1f\x8b broken")
    with pytest.raises(UserError, match="cannot be read as a table"):
        read_table(tmp_path / "t.csv", "annotation")
    (tmp_path / "t.csv").write_text("a,b\n")
    with pytest.raises(UserError, match="has no rows"):
        read_table(tmp_path / "t.csv", "annotation")


@pytest.mark.parametrize(
    "change",
    [
        lambda name: name.replace("-", "."),
        lambda name: name.removesuffix("-1"),
        lambda name: f"{name}-1",
        lambda name: name.replace("-1", "_1"),
        lambda name: name.replace("-1", "-7"),
    ],
)
def test_barcodes_as_programs_change_them(change, tmp_path, caplog):
    caplog.set_level("INFO")
    table = TABLE.assign(barcode=TABLE["barcode"].map(change))[::-1]
    found = joined(table, BARCODES, tmp_path / "t.csv")
    assert found["type"].reindex(BARCODES).tolist() == TABLE["type"].tolist()
    assert "10 of its 10 barcodes are among the 10 here" in caplog.text and "barcodes are compared" in caplog.text


def test_numbers_with_the_x_that_r_puts_before_them(tmp_path):
    table = TABLE.assign(barcode=[f"X{i}.a" for i in range(10)])
    found = joined(table, pd.Index([f"{i}-a" for i in range(10)]), tmp_path / "t.csv")
    assert list(found.index) == [f"{i}-a" for i in range(10)]


def test_a_change_that_makes_barcodes_alike_does_not_count(tmp_path):
    """AAAC-1 and AAAC-2 are cells of two samples, and AAAC may be either."""
    table = TABLE.assign(barcode=TABLE["barcode"].str.removesuffix("-1"))
    two_samples = pd.Index([*BARCODES, *BARCODES.str.replace("-1", "-2")])
    assert joined(table, two_samples, tmp_path / "t.csv") is None


def test_barcodes_as_they_are_go_first_and_without_a_word(tmp_path, caplog):
    caplog.set_level("INFO")
    table = TABLE.assign(changed=TABLE["barcode"].str.replace("-", "."))
    assert list(joined(table, BARCODES, tmp_path / "t.csv").index) == list(BARCODES)
    assert "compared" not in caplog.text


def test_rows_of_the_same_barcode_after_a_change_are_refused(tmp_path):
    table = pd.DataFrame({"barcode": [*BARCODES.str.removesuffix("-1"), "AAAC0"], "type": list("abcdefghijk")})
    with pytest.raises(UserError, match="lists the barcode 'AAAC0-1' more than once"):
        joined(table, BARCODES, tmp_path / "t.csv")
