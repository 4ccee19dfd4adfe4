"""What ranks note on their way: the first and the last of it, however the rank ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.rows import RowsWriter, read_rows

KEPT = 100


def written(path: Path, count: int, length: int = 9) -> list[bytes]:
    """Note `count` rows, each of `length` bytes and the end of its line."""
    writer = RowsWriter(path, KEPT)
    lines = [b"%0*d" % (length, number) for number in range(count)]
    for line in lines:
        writer.append(line)
    return lines


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 20])
def test_as_many_as_have_room_are_all_kept(tmp_path: Path, count: int) -> None:
    lines = written(tmp_path / "rows-0.jsonl", count)
    assert read_rows(tmp_path / "rows-0.jsonl", KEPT) == (lines, 0)


def test_of_more_the_first_and_the_last_are_kept(tmp_path: Path) -> None:
    lines = written(tmp_path / "rows-0.jsonl", 1000)
    rows = read_rows(tmp_path / "rows-0.jsonl", KEPT)
    # ten rows of ten bytes fill a file; notes of what was left out take room among the last
    assert rows.lines[:10] == lines[:10]
    last = rows.lines[10:]
    assert 5 <= len(last) <= 10
    assert last == lines[-len(last) :]
    assert rows.left_out == 1000 - len(rows.lines)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 3 * KEPT


def test_a_row_without_room_is_left_out(tmp_path: Path) -> None:
    writer = RowsWriter(tmp_path / "rows-0.jsonl", KEPT)
    for line in (b"a", b"b" * KEPT, b"c"):
        writer.append(line)
    assert read_rows(tmp_path / "rows-0.jsonl", KEPT) == ([b"a", b"c"], 1)


def test_half_a_line_is_no_row(tmp_path: Path) -> None:
    lines = written(tmp_path / "rows-0.jsonl", 3)
    with (tmp_path / "rows-0.jsonl").open("ab") as file:
        file.write(b"half")
    assert read_rows(tmp_path / "rows-0.jsonl", KEPT) == (lines, 0)
