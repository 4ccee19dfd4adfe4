"""Traces: on one clock, whatever the profiler's own was, and all ranks in one file."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from bench.worker.profiling.breakdown import Piece
from bench.worker.profiling.labels import Event
from bench.worker.profiling.trace import TraceError, merge, read


def line(name: str, ts: float, dur: float, **more: Any) -> dict[str, Any]:
    return {"ph": "X", "name": name, "ts": ts, "dur": dur, "tid": 7, "cat": "cpu_op", **more}


def written(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"traceEvents": [{"ph": "M", "name": "process_name"}, *lines]}))
    return path


def test_the_smallest_distance_is_that_of_the_clocks(tmp_path: Path) -> None:
    epoch = 1795212563604179  # [µs]; a float of nanoseconds would not hold it
    path = written(
        tmp_path / "t.json",
        line("spbench/step", epoch, 100, cat="user_annotation"),
        line("spbench/step", epoch + 200, 50, cat="user_annotation"),
        line("aten::mm", epoch + 10, 2.5, args={"Sequence number": 4, "Fwd thread id": 0}),
    )
    # the first region opened 3 µs after its stamp, the second 1 µs
    stamps = [("spbench/step", 50_000 - 3_000), ("spbench/step", 250_000 - 1_000)]
    step, other, product = read(path, stamps, {})
    assert (step.start, other.start) == (49_000, 249_000)
    assert (product.start, product.end) == (59_000, 61_500)
    assert (product.sequence, product.node) == (4, False)


def test_regions_that_are_missing_are_told(tmp_path: Path) -> None:
    path = written(tmp_path / "t.json", line("spbench/step", 1, 1, cat="user_annotation"))
    with pytest.raises(TraceError, match="kept 1 of 2 regions in t.json"):
        read(path, [("spbench/step", 0), ("spbench/step", 5)], {})


def test_a_node_knows_the_thread_of_its_forward(tmp_path: Path) -> None:
    path = written(
        tmp_path / "t.json",
        line("spbench/step", 1, 9, cat="user_annotation"),
        line("aten::mm", 2, 1, tid=7, args={"Sequence number": 4, "Fwd thread id": 0}),
        line("MmBackward0", 4, 1, tid=9, args={"Sequence number": 4, "Fwd thread id": 1}),
        line("AddBackward0", 6, 1, tid=9, args={"Sequence number": 4, "Fwd thread id": 3}),
    )
    _, made, node, unknown = read(path, [("spbench/step", 0)], {1: 7})
    assert (made.node, node.node, unknown.node) == (False, True, True)
    assert made.key == node.key == (7, 4)
    assert unknown.key == (None, 4)


def test_a_merged_trace_has_a_process_for_each_rank(tmp_path: Path) -> None:
    path = tmp_path / "traces" / "trial.json.gz"
    events = {rank: [Event("x", 5_000 + rank, 9_000, 7, "cpu_op")] for rank in (0, 1)}
    lanes = {0: [Piece(5_000, 9_000, "matrix")], 1: [Piece(6_000, 9_000, "waiting")]}
    merge(path, events, lanes, {0: "rank 0", 1: "rank 1"})
    lines = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    spans = {(e["pid"], e["tid"], e["name"], e["ts"], e["dur"]) for e in lines if e["ph"] == "X"}
    assert spans == {
        (0, 7, "x", 0.0, 4.0),
        (0, 0, "matrix", 0.0, 4.0),
        (1, 7, "x", 0.001, 3.999),
        (1, 0, "waiting", 1.0, 3.0),
    }
    titles = [e["args"]["name"] for e in lines if e["name"] == "process_name"]
    assert titles == ["rank 0", "rank 1"]
