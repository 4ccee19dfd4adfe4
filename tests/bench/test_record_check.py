"""What is a record: resume and readers agree, whatever the damage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from analysis.frame import AnalysisError, load, samples
from bench.controller.ledger import Ledger
from bench.record_check import NotARecord, record_in
from bench.record_files import read_records
from tests import factories

WHOLE = json.loads(factories.ok().model_dump_json())
FAILED = json.loads(factories.failed().model_dump_json())
NONE = object()
HUGE = 2**63


def changed(content: Any, path: str, value: Any) -> Any:
    """`content` with `value` at `path`, or without what is there."""
    name, _, rest = path.partition(".")
    key: Any = int(name) if isinstance(content, list) else name
    copy = list(content) if isinstance(content, list) else dict(content)
    if rest:
        copy[key] = changed(copy[key], rest, value)
    elif value is NONE:
        del copy[key]
    else:
        copy[key] = value
    return copy


DAMAGED = [
    *((path, value) for path in ("attempt", "round") for value in (None, "1", True, -1, HUGE, 0.5)),
    *((path, NONE) for path in ("worker", "machine", "samples", "gradient", "config", "status")),
    *((path, NONE) for path in ("gradient.verdict", "memory.0.peak_bytes", "worker.torch")),
    *((path, NONE) for path in ("machine.cpu", "config.model", "config.sp", "samples.0.step_s")),
    ("status", "fine"),
    ("config", [1]),
    ("config.sp", 3),
    ("config.sp", 0),
    ("config.seq_len", HUGE),
    ("config.comm.name", 1),
    ("gradient.scale", "2"),
    ("gradient.other", {"verdict": "match"}),
    ("samples", {}),
    ("samples.0.step_s", [1.0]),
    ("samples.0.step_s.0", "1"),
    ("samples.0.step_s.0", 0),
    ("samples.0.phases_s", []),
    ("samples.0.phases_s.forward", ""),
    ("memory.0", 1),
    ("machine.gpus", [[]]),
    ("worker.driver", {}),
    ("schema_version", True),
]


@pytest.mark.parametrize(("path", "value"), DAMAGED)
def test_a_damaged_field_makes_no_record_for_anybody(tmp_path: Path, path: str, value: Any) -> None:
    line = json.dumps(changed(WHOLE, path, value)).encode() + b"\n"
    agree(tmp_path, line, 0)


@pytest.mark.parametrize("path", ["errors.0.type", "errors.0.rank", "errors.0.traceback"])
def test_who_raised_what_is_asked_of_what_failed(tmp_path: Path, path: str) -> None:
    line = json.dumps(changed(FAILED, path, NONE)).encode() + b"\n"
    agree(tmp_path, line, 0)


def test_every_configuration_of_a_hash_is_checked(tmp_path: Path) -> None:
    later = changed(changed(WHOLE, "round", 1), "config.model", NONE)
    lines = [json.dumps(one) + "\n" for one in (WHOLE, later)]
    (tmp_path / "records-a-1.jsonl").write_text("".join(lines))
    assert [one.content["round"] for one in read_records(tmp_path)] == [0]
    assert len(load(tmp_path)) == 1


def test_other_damage(tmp_path: Path) -> None:
    good = json.dumps(WHOLE).encode()
    for number, (line, count) in enumerate(
        [
            (b"\xef\xbb\xbf" + good + b"\n", 1),  # a byte-order mark is no part of the line
            (good.replace(b'"worker"', b'"workes"') + b"\n", 0),
            (good[:-1] + b"\x00\n", 0),
            (good.replace(b"bench", b"benc\xff", 1) + b"\n", 0),
            (good.replace(b'"attempt": 0', b'"attempt": NaN') + b"\n", 0),
            (b"[" * 100_000 + b"\n", 0),
            (good + good + b"\n", 0),
            (good, 1),  # whole, but for the end of its line
        ]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        agree(folder, line, count)


def test_free_values_are_not_nested_endlessly(tmp_path: Path) -> None:
    deep: dict[str, Any] = {}
    for _ in range(200):
        deep = {"a": deep}
    agree(tmp_path, json.dumps(changed(WHOLE, "config.options", deep)).encode() + b"\n", 0)


def agree(folder: Path, line: bytes, count: int) -> None:
    """Everybody counts `count` records in a file of this line."""
    (folder / "records-a-1.jsonl").write_bytes(line)
    assert len(list(read_records(folder))) == count
    ledger = Ledger(folder)
    assert len(ledger.all((WHOLE["config_hash"], 0))) == count
    assert len(ledger.skipped) == 1 - count
    if count:
        assert len(load(folder)) == count and len(samples(folder))
    else:
        with pytest.raises(AnalysisError, match="the first is records-a-1.jsonl, line 1"):
            load(folder)


def test_the_reason_names_the_place() -> None:
    line = json.dumps(changed(WHOLE, "samples.1.step_s.2", "x")).encode()
    with pytest.raises(NotARecord, match=r"samples\[1\]\.step_s\[2\] is text, not a number"):
        record_in(line, {})


def test_a_line_that_is_being_written_is_not_called_damaged(tmp_path: Path) -> None:
    good = json.dumps(WHOLE).encode()
    path = tmp_path / "records-a-1.jsonl"
    path.write_bytes(good[:-9])
    ledger = Ledger(tmp_path)
    for text, records in ((good, 1), (good + b"\n", 1), (good + b"\n\n", 1)):
        path.write_bytes(text)
        ledger.refresh()
        assert len(ledger.all((WHOLE["config_hash"], 0))) == records
    assert [one.line for one in ledger.skipped] == [2]  # the empty line
