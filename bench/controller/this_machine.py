"""The machine at hand as a cluster to predict for: its ranks measure it, once."""

from __future__ import annotations

import hashlib
import json
import platform
import tempfile
from pathlib import Path
from typing import Any

import psutil

from bench.controller import interruption
from bench.controller.config import CONF
from bench.controller.environments import cache_dir, known_specs, provide
from bench.controller.gpus import visible_gpus
from bench.controller.hosts import Hosts
from bench.record import Record, Status
from bench.theory import Cluster, Link
from bench.trial import CommSpec, Configuration, ModelSpec, Trial
from bench.whole_file import whole_file

ENVIRONMENT = "torch-2.13"
MOST_RANKS = 64
"""More are no measurement of one machine but of its scheduler."""
_SMALLEST = ModelSpec(name="none", layers=1, hidden=2, heads=1, kv_heads=1, ffn=1, vocab=2)


class MeasurementFailed(Exception):
    """The machine could not be measured; the message says why and what to do."""


def measured(ranks: int, remeasure: bool = False) -> Cluster:
    """The machine as each of `ranks` ranks sees it; measured at first use, then remembered.

    Ranks compute in float32 on CPU, or in bfloat16 where there is a GPU for each. Raises
    MeasurementFailed and EnvironmentProblem.
    """
    if ranks > MOST_RANKS:
        raise MeasurementFailed(
            f"--gpus {ranks}: this-machine is measured with at most {MOST_RANKS} ranks; name a "
            "cluster for more"
        )
    kept = _kept(ranks)
    if remeasure or not kept.exists():
        details = _measure(ranks)
        kept.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(kept) as partial:
            partial.write_text(json.dumps(details))
    return cluster_of(json.loads(kept.read_text()), ranks)


def remembered(ranks: int) -> Cluster | None:
    """What `measured` found before; None where it was never asked. Measures nothing."""
    kept = _kept(ranks)
    return cluster_of(json.loads(kept.read_text()), ranks) if kept.exists() else None


def cluster_of(details: dict[str, Any], ranks: int) -> Cluster:
    """The cluster that the scenario `machine` measured on `ranks` ranks.

    The link's latency is the time of the smallest all-to-all, one of many that follow each other;
    its bandwidth follows from the rest of the time of the largest one. One rank sends nothing: its
    link is its memory.
    """
    link = Link(bandwidth=details["copy_bandwidth"], latency_s=0.0)
    curve = details["all_to_all"]
    if curve:
        latency, largest = curve[0]["seconds"], curve[-1]
        sent = largest["bytes"] * (ranks - 1) / ranks
        beyond = max(largest["seconds"] - latency, largest["seconds"] / 10)
        link = Link(bandwidth=sent / beyond, latency_s=latency)
    return Cluster(
        name="this-machine",
        gpus_per_node=ranks,
        peak_flops=details["matmul_flops"],
        memory_bytes=details["gpu_memory_bytes"] or psutil.virtual_memory().total / ranks,
        memory_bandwidth=details["copy_bandwidth"],
        intra=link,
        inter=link,
        counts_written_only=not details["gpu_memory_bytes"],
    )


def _measure(ranks: int) -> dict[str, Any]:
    gpus = len(visible_gpus()) >= ranks
    configuration = Configuration(
        environment=known_specs(CONF)[ENVIRONMENT],
        model=_SMALLEST,
        comm=CommSpec(name="nccl" if gpus else "gloo"),
        scenario="machine",
        dtype="bfloat16" if gpus else "float32",
        world=ranks,
        sp=1,
        gradient_check="off",
    )
    with interruption.once(), tempfile.TemporaryDirectory() as folder, Hosts(provide) as hosts:
        record: Record = hosts.run(Trial(configuration=configuration, round=0), Path(folder))
    if record.status is not Status.OK:
        raise MeasurementFailed(
            f"this-machine could not be measured with {ranks} ranks: {record.status.value}: "
            f"{record.reason}; try fewer --gpus, or name another --cluster"
        )
    return record.details


def _kept(ranks: int) -> Path:
    return cache_dir() / "machines" / f"{_key()}-{ranks}.json"


def _key() -> str:
    parts = [platform.node(), platform.processor(), str(psutil.cpu_count()), *visible_gpus()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
