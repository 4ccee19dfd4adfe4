"""Collectives as a table, and Ulysses's bytes beside theory, with numbers by hand."""

from __future__ import annotations

import pytest

from bench.trial import ModelSpec
from bench.worker.profiling.breakdown import Call
from bench.worker.profiling.volume import Known, against_theory, table
from tests.factories import configuration

MODEL = ModelSpec(name="one", layers=1, hidden=16, heads=4, kv_heads=4, ffn=8, vocab=8)
HANDED_IN = 4 * 32 * 16
"""Bytes of q on one of 2 ranks: float32, 64/2 tokens, 4 heads of 4."""


def all_to_all(phase: str, backward_of: str = "", size: int = HANDED_IN) -> Known:
    called = Call("all_to_all_single", phase, (0, 1), size, entered=0, left=2_000)
    return Known(called, "all_to_all", all_in=1_000, backward_of=backward_of)


def test_equal_to_the_byte_or_not() -> None:
    c = configuration(model=MODEL, sp=2, seq_len=64)
    backward = [all_to_all("backward", "_SeqAllToAllBackward")] * 4
    calls = [*[all_to_all("forward")] * 4, *backward]
    rows = {row["pass"]: row for row in against_theory(calls, c, steps=1)}
    assert rows["forward"]["bytes"] == rows["forward"]["expected_bytes"] == 4 * HANDED_IN // 2
    assert all(row["agrees"] for row in rows.values())
    short = [*calls[:-1], all_to_all("backward", "_SeqAllToAllBackward", HANDED_IN - 4)]
    assert [row["agrees"] for row in against_theory(short, c, steps=1)] == [True, True, False]
    assert [row["agrees"] for row in against_theory(calls[1:], c, steps=1)] == [False, True, True]


def test_a_call_in_backward_that_is_not_its_own_node_recomputes() -> None:
    model = MODEL.model_copy(update={"activation_checkpointing": True})
    c = configuration(model=model, sp=2, seq_len=64)
    backward = [all_to_all("backward", "_SeqAllToAllBackward")] * 4
    again = [all_to_all("backward", "MmBackward0")] * 4
    calls = [*[all_to_all("forward")] * 4, *again, *backward] * 2
    rows = against_theory(calls, c, steps=2)
    assert [(row["pass"], row["calls"]) for row in rows] == [
        ("forward", 4),
        ("recompute", 4),
        ("backward", 4),
    ]
    assert all(row["agrees"] for row in rows)
    assert not against_theory(backward * 3, c, steps=1)[1]["agrees"]


def test_bandwidth_counts_from_the_last_rank_on() -> None:
    calls = [
        Known(
            Call("all_reduce", "backward", (0, 1, 2, 3), 600, 0, 400), "gradient_reduction", 100, ""
        ),
        Known(
            Call("all_reduce", "backward", (0, 1, 2, 3), 600, 500, 800),
            "gradient_reduction",
            500,
            "",
        ),
    ]
    [row] = table(calls, steps=2)
    assert (row["calls"], row["bytes"], row["group"]) == (1, 600, 4)
    assert row["waiting_s"] == pytest.approx(50e-9)
    assert row["transfer_s"] == pytest.approx(300e-9)
    assert row["algorithm_bandwidth"] == pytest.approx(1200 / 600e-9)
    assert row["bus_bandwidth"] == pytest.approx(1.5 * 1200 / 600e-9)  # 2 (n-1)/n
