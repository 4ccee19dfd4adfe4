"""Rows on time pass on what is right and miss what is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.controller.selfcheck import timing
from bench.trial import Configuration
from tests import factories
from tests.controller.selfcheck.stands import (
    H100,
    details,
    stand,
)


@pytest.mark.parametrize(("events_s", "passed"), [(1.009, True), (1.02, False), (0.98, False)])
def test_events(tmp_path: Path, events_s: float, passed: bool) -> None:
    there = stand(tmp_path, details(events_s=events_s, wall_s=1.0), H100)
    assert timing.events(there).passed is passed


@pytest.mark.parametrize(("first", "passed"), [(1.09, True), (1.2, False)])
def test_first_step_is_judged_on_a_gpu_alone(tmp_path: Path, first: float, passed: bool) -> None:
    def answer(_: Configuration) -> dict[str, Any]:
        return {"samples": [factories.samples(0, [first, 1.0, 1.0, 1.0])]}

    assert timing.first_step(stand(tmp_path, answer, H100)).passed is passed
    assert timing.first_step(stand(tmp_path, answer)).passed is None


@pytest.mark.parametrize(
    ("ratio", "bare_s", "passed"),
    [(1.009, 0.01, True), (1.02, 0.01, False), (1.0, 0.001, False)],
    ids=["right", "slow", "impossible"],
)
def test_instrumentation(tmp_path: Path, ratio: float, bare_s: float, passed: bool) -> None:
    """160m on 2,048 tokens computes 1.85 TFLOP a step: 1 ms would be 2.6 times 700 TFLOP/s."""
    there = stand(tmp_path, details(ratio=ratio, bare_s=bare_s, matmul_flops=700e12), H100)
    assert timing.instrumentation(there).passed is passed


@pytest.mark.parametrize(
    ("adds_up", "bytes_agree"), [(True, True), (False, True), (True, False), (True, None)]
)
def test_profile(tmp_path: Path, adds_up: bool, bytes_agree: bool | None) -> None:
    content = {"adds_up": adds_up, "bytes_agree": bytes_agree, "breakdown": [{"off_by": 0.01}]}
    there = stand(tmp_path, details(**content))
    assert timing.profile(there).passed is (adds_up and bytes_agree is True)


@pytest.mark.parametrize(
    ("gpus", "flops", "copied", "passed"),
    [
        (H100, 750e12, 3.0e12, True),
        (H100, 400e12, 3.0e12, False),
        (H100, 1100e12, 3.0e12, False),
        (H100, 750e12, 2.0e12, False),
        (("NVIDIA GeForce RTX 4090",), 160e12, 0.9e12, None),
        (("NVIDIA H100 PCIe",), 500e12, 1.8e12, None),
        (("NVIDIA H100 80GB HBM3 MIG 1g.10gb",), 90e12, 0.4e12, None),
        ((), 1e11, 1e10, None),
    ],
    ids=["h100", "slow", "impossible", "slow-copy", "unknown-card", "pcie", "mig", "cpu"],
)
def test_rates(
    tmp_path: Path, gpus: tuple[str, ...], flops: float, copied: float, passed: bool | None
) -> None:
    there = stand(tmp_path, details(matmul_flops=flops, copy_bandwidth=copied), gpus)
    assert timing.rates(there).passed is passed
