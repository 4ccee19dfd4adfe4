"""The experiments that audit gradients visit what they say, once each."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from bench.controller import run as run_module
from bench.trial import Configuration
from tests.controller.fake_hosts import run_sweep

MASKS = ("none", "prompt", "ragged", "empty_shard")


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "visible_gpu_count", lambda: 0)


def visited(folder: Path, *overrides: str) -> list[Configuration]:
    _, hosts, _ = run_sweep(*overrides, f"results={folder}", "report=false")
    return [trial.configuration for trial in hosts.trials]


def test_the_audit_is_the_whole_product(tmp_path: Path) -> None:
    found = visited(tmp_path, "+experiment=gradient_audit")
    # 2 environments, 6 aggregations, 4 stages, 2 splits, 4 masks
    assert len(found) == len({one.hash for one in found}) == 384
    points = {(c.zero, c.sp, c.mask) for c in found}
    assert points == set(itertools.product(range(4), (2, 4), MASKS))
    assert {(c.steps, c.warmup_steps, c.gradient_check) for c in found} == {(1, 1, "auto")}


def test_the_options_come_one_at_a_time_and_not_at_stage_0(tmp_path: Path) -> None:
    found = visited(tmp_path, "+experiment=gradient_audit_options", "loss=all_gather", "sp=2")
    options = {(c.zero, *map(str, c.deepspeed.get("zero_optimization", {}).items())) for c in found}
    one_at_a_time = [
        (),
        ("('reduce_scatter', False)",),
        ("('contiguous_gradients', False)",),
        ("('overlap_comm', True)",),
        ("('overlap_comm', False)",),
    ]
    assert options == {(zero, *one) for zero in (1, 2, 3) for one in one_at_a_time}
    assert len(found) == 2 * len(options)  # two environments


def test_any_deepspeed_option_is_an_axis(tmp_path: Path) -> None:
    found = visited(
        tmp_path,
        "+experiment=gradient_audit",
        "environment=torch-2.13",
        "loss=local",
        "zero=1",
        "sp=2",
        "mask=none",
        "deepspeed.zero_optimization.round_robin_gradients=false,true",
    )
    assert sorted(c.deepspeed["zero_optimization"]["round_robin_gradients"] for c in found) == [
        False,
        True,
    ]
