"""What ranks noted on their way is read whatever lies in its place."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bench.controller import rows
from bench.controller.outcome import Flight
from bench.plain import MOST_DEPTH
from bench.record import Status
from bench.record_files import rows_file
from tests.controller.test_outcome import exited, finished, take

GOOD = b'{"rank": 1, "case": "a"}\n'


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b'{"rank": 1, "case": "\xff"}', "row 2 is no JSON: b'"),
        (b"\xff\xfe", "row 2 is no JSON: b'\\xff"),
        (b"", "row 2 is no JSON: b''"),
        (b"[" * 100_000, "row 2 is no JSON: b'[[["),
        (b'{"rank": 1, "many": ' + b"9" * 5_000 + b"}", "row 2 is no JSON: "),
        (b"[1, 2]", "row 2 is no mapping: [1, 2]"),
        (b"null", "row 2 is no mapping: None"),
        (b'{"case": "b"}', "row 2 is not of this rank: {'case': 'b'}"),
        (b'{"rank": 0}', "row 2 is not of this rank: {'rank': 0}"),
        (b'{"rank": true}', "row 2 is not of this rank: {'rank': True}"),
        (
            b'{"rank": 1, "n": 18446744073709551616}',
            "row 2 cannot be recorded: n: a whole number of more than 64 bits",
        ),
        (
            b'{"rank": 1, "n": ' + b"[" * MOST_DEPTH + b"]" * MOST_DEPTH + b"}",
            "row 2 cannot be recorded: n[0]",
        ),
    ],
)
def test_a_row_that_no_record_can_hold_is_named_and_the_others_are_kept(
    tmp_path: Path, line: bytes, why: str
) -> None:
    rows_file(tmp_path, 1).write_bytes(GOOD + line + b"\n" + GOOD)
    found, [fault], _ = rows.read(tmp_path, 1)
    assert found == [json.loads(GOOD)] * 2
    assert fault.rank == 1 and fault.text.startswith(why)


def test_what_a_rank_put_in_place_of_its_rows_is_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(rows_file(tmp_path, 0))
    rows_file(tmp_path, 1).mkdir()
    rows_file(tmp_path, 2).symlink_to("/dev/zero")
    for rank in range(3):
        found, [fault], _ = rows.read(tmp_path, rank)
        assert (found, fault.text) == ([], "its file of rows is no file that can be read")
    assert rows.read(tmp_path, 3) == ([], [], 0)


def test_a_trial_whose_rows_are_damaged_is_not_ok(tmp_path: Path) -> None:
    rows_file(tmp_path, 1).write_bytes(GOOD + b"\xff\nnothing\n")
    flight = Flight(2, tmp_path)
    for line in (finished(0), finished(1), exited(0, exit_code=0), exited(1, exit_code=0)):
        take(flight, line)
    flight.collect_rows()
    fields = flight.fields()
    assert fields["status"] is Status.ERROR
    assert fields["reason"] == "rank 1: row 2 is no JSON: b'\\xff' (and 1 other rows)"
    assert [(error.rank, error.type) for error in fields["errors"]] == [(1, "UnusableReport")]
    assert fields["details"] == {"rows": [{"rank": 1, "case": "a"}]}
