"""The machine as a cluster: what its ranks measured becomes rates, once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.controller import this_machine
from bench.controller.this_machine import MeasurementFailed, cluster_of, measured, remembered
from bench.record import Record, Status
from bench.theory import Link
from bench.trial import Trial

DETAILS: dict[str, Any] = {
    "matmul_flops": 5e9,
    "copy_bandwidth": 2e9,
    "gpu_memory_bytes": 0,
    "all_to_all": [
        {"bytes": 4096, "seconds": 0.001},
        {"bytes": 16384, "seconds": 0.0005},
        {"bytes": 4_000_000, "seconds": 0.011},
    ],
}


class Ranks:
    """Instead of `Hosts`: ends as it is told, and counts."""

    def __init__(self, status: Status = Status.OK) -> None:
        self.status, self.trials = status, []

    def __call__(self, provide: object) -> Ranks:
        return self

    def __enter__(self) -> Ranks:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing to end."""

    def run(self, trial: Trial, folder: Path) -> Record:
        self.trials.append(trial)
        details = DETAILS if self.status is Status.OK else {}
        return Record.of(trial, self.status, "2025-01-01", 1.0, details=details, reason="why")


@pytest.fixture
def ranks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Ranks:
    found = Ranks()
    monkeypatch.setenv("SPBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(this_machine, "Hosts", found)
    monkeypatch.setattr(this_machine, "visible_gpus", list)
    return found


def test_rates_by_hand() -> None:
    cluster = cluster_of(DETAILS, ranks=4)
    assert (cluster.peak_flops, cluster.memory_bandwidth, cluster.gpus_per_node) == (5e9, 2e9, 4)
    # 3 of 4 parts go to others: 3 MB in 11 ms, 1 ms of which is latency.
    assert cluster.intra == cluster.inter == Link(pytest.approx(3e6 / 0.010), 0.001)


def test_a_latency_longer_than_the_largest_message_leaves_a_bandwidth() -> None:
    curve = [{"bytes": 4, "seconds": 0.5}, {"bytes": 4000, "seconds": 0.1}]
    assert cluster_of({**DETAILS, "all_to_all": curve}, 4).intra == Link(3000 / 0.01, 0.5)


def test_one_rank_has_no_one_to_send_to() -> None:
    assert cluster_of({**DETAILS, "all_to_all": []}, 1).intra == Link(2e9, 0.0)


def test_a_gpus_memory_is_its_own_and_a_machines_is_shared_out() -> None:
    assert cluster_of({**DETAILS, "gpu_memory_bytes": 80}, 4).memory_bytes == 80
    alone = cluster_of({**DETAILS, "all_to_all": []}, 1).memory_bytes
    assert cluster_of(DETAILS, 4).memory_bytes == alone / 4


def test_it_is_measured_once_for_each_number_of_ranks(ranks: Ranks, tmp_path: Path) -> None:
    assert remembered(4) is None and not ranks.trials
    first = measured(4)
    assert remembered(4) == first
    assert measured(4) == first and len(ranks.trials) == 1
    measured(2)
    measured(4, remeasure=True)
    assert [trial.configuration.world for trial in ranks.trials] == [4, 2, 4]
    kept = sorted((tmp_path / "machines").iterdir())
    assert len(kept) == 2 and json.loads(kept[0].read_text()) == DETAILS


def test_a_failure_is_told_and_not_kept(ranks: Ranks, tmp_path: Path) -> None:
    ranks.status = Status.HANG
    with pytest.raises(MeasurementFailed, match="with 4 ranks: hang: why; try fewer --gpus"):
        measured(4)
    assert not (tmp_path / "machines").exists()


def test_more_ranks_than_a_machine_is_measured_with() -> None:
    with pytest.raises(MeasurementFailed, match="--gpus 10000: .* at most 64"):
        measured(10_000)
