"""How long ranks warm up, by hand and on real ranks; whole trials are in `test_train.py`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from bench.trial import CommSpec
from bench.worker import warm_up
from bench.worker.warm_up import NOTHING, ON_GPU, Rule, WarmUp, rule_of
from tests import factories

NCCL = CommSpec(name="nccl")


@pytest.mark.parametrize(
    ("steps", "seconds", "more"),
    [(0, 0.0, True), (1, 9.0, True), (2, 2.9, True), (2, 3.0, False), (300, 2.9, True)],
)
def test_both_steps_and_seconds_must_have_passed(steps: int, seconds: float, more: bool) -> None:
    assert tuple(ON_GPU) == (2, 3.0)
    assert ON_GPU.asks_for_more(steps, seconds) is more


def test_only_timed_steps_on_gpus_ask_for_it_unless_told() -> None:
    timed = factories.configuration(comm=NCCL, steps=5)
    assert rule_of(timed) == ON_GPU
    assert rule_of(factories.configuration(comm=NCCL, steps=1)) == NOTHING
    shared = CommSpec(name="nccl", oversubscribe=True)
    assert rule_of(factories.configuration(comm=shared, steps=5)) == NOTHING
    on_cpu = factories.configuration(steps=5)
    assert rule_of(on_cpu) == NOTHING
    assert rule_of(on_cpu, seconds=0.5) == Rule(2, 0.5)
    assert rule_of(timed, seconds=0.0) == NOTHING


def test_rank_0_decides_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank whose own clock is ahead goes on as rank 0 says, and the other way round."""
    now, asked = [10.0], []

    def say(decision: bool) -> None:
        def said(more: bool, device: object) -> bool:
            asked.append(more)
            return decision

        monkeypatch.setattr(warm_up, "_as_rank_0_says", said)

    monkeypatch.setattr(warm_up, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    warming = WarmUp(ON_GPU, device=None)
    now[0] = 13.5
    say(True)
    assert warming.asks_for_more(2) is True
    now[0] = 11.0
    say(False)
    assert warming.asks_for_more(2) is False
    assert asked == [False, True]
    assert WarmUp(NOTHING, device=None).asks_for_more(0) is False
    assert len(asked) == 2  # no communication where nothing is asked for


@pytest.mark.environment
def test_real_ranks_take_as_many_steps_though_their_clocks_differ(run_inside: Any) -> None:
    slow, fast = run_inside("torch-2.13", "warm_up_ranks.py")
    assert slow == fast >= 2
