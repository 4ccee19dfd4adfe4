"""Results that others published, and what conf/cluster's assumptions predict of them.

Nothing is fitted to them: they are the evidence of how far predictions err.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from analysis.prediction.files import CONF, cluster_named
from bench.theory import (
    Cluster,
    Efficiencies,
    Observation,
    PeakMemory,
    Training,
    impossible,
    moments,
    step_seconds,
    step_time,
    work_per_rank,
)
from bench.trial import ModelSpec

DATA = CONF.parent / "benchmarks" / "published.yaml"
FP8_OVER_BF16 = 2
"""Peak of FP8 over that of bfloat16 on Hopper (NVIDIA H100 data sheet)."""
LOSS_TILES = 1000
"""So many that a tile of logits is small."""
BF16 = 2
"""Bytes of an element."""


class PublishedModel(ModelSpec):
    """A decoder whose heads are not hidden / heads wide."""

    head_size: int

    @property
    def head_dim(self) -> int:
        """Size of one head [elements]."""
        return self.head_size


@dataclass(frozen=True)
class Series:
    """One set-up at several sequence lengths."""

    entry: dict[str, Any]
    model: PublishedModel
    cluster: Cluster
    assumed: Efficiencies
    observations: tuple[Observation, ...]

    @property
    def peak_flops(self) -> float:
        """Of one GPU in the fastest dtype that was used [FLOP/s]."""
        return self.cluster.peak_flops * (FP8_OVER_BF16 if self.entry.get("fp8") else 1)

    @property
    def memory_bytes(self) -> float:
        """Of one GPU."""
        gigabytes = self.entry.get("memory_gb")
        return gigabytes * 1e9 if gigabytes else self.cluster.memory_bytes

    def objections(self) -> list[str]:
        """Why these figures cannot all be true."""
        return impossible(self.observations, self.peak_flops, self.memory_bytes)


def series(path: Path = DATA) -> list[Series]:
    """The published results of a file."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    models = {
        name: PublishedModel(name=name, activation_checkpointing=True, **sizes)
        for name, sizes in content["models"].items()
    }
    return [_series(entry, models[entry["model"]]) for entry in content["series"]]


def _series(entry: dict[str, Any], model: PublishedModel) -> Series:
    described = cluster_named(entry["cluster"])
    assert described is not None, "published results are of clusters with a data sheet"
    observations = tuple(_observation(entry, result, model) for result in entry["results"])
    return Series(entry, model, described.cluster, described.assumed, observations)


def _observation(entry: dict[str, Any], result: dict[str, Any], model: ModelSpec) -> Observation:
    tokens = result["seq_len"] * entry["gpus"] // entry["sp"]
    speed = result.get("tokens_per_s")
    if speed is None and "tokens_per_s_per_gpu" in result:
        speed = result["tokens_per_s_per_gpu"] * entry["gpus"]
    peak = result.get("peak_gb")
    return Observation(
        label=f"{result['seq_len']:,}",
        model=model,
        gpus=entry["gpus"],
        seq_len=result["seq_len"],
        tokens_per_step=tokens,
        step_s=step_seconds(tokens, speed) if speed else None,
        peak_memory_bytes=peak * 1e9 if peak else None,
    )


def predicted_step_s(one: Series, observation: Observation) -> float:
    """The step time that conf/cluster's assumptions give, in bfloat16 [s]."""
    work = work_per_rank(one.model, **_sizes(one, observation))
    gpus, sp = one.entry["gpus"], one.entry["sp"]
    return step_time(work, one.cluster, gpus, sp, one.assumed).predicted


def predicted_memory_bytes(one: Series, observation: Observation) -> float:
    """Peak of a GPU; what was kept on the CPU, or worked on in small tiles, is left out."""
    tiles = LOSS_TILES if one.entry.get("tiled") else 1
    model = one.model.model_copy(update={"loss_tiles": tiles})
    sizes = _sizes(one, observation)
    training = Training(model=model, whole_bucket=True, foreach=True, **sizes)
    return max(_on_gpu(one, training, moment) for moment in moments(training))


def _on_gpu(one: Series, training: Training, moment: PeakMemory) -> int:
    """Bytes of a moment that are on the GPU."""
    model, row = training.model, training.element_bytes * training.tokens
    elsewhere = 0
    if one.entry.get("offloaded_checkpoints"):
        elsewhere += model.layers * row * model.hidden
    if one.entry.get("tiled"):
        elsewhere += 6 * row * model.ffn  # the SwiGLU's activations and their gradients
    kept = moment.total - min(elsewhere, moment.activations)
    return kept - (moment.optimizer if one.entry.get("offloaded_optimizer") else 0)


def _sizes(one: Series, observation: Observation) -> dict[str, int]:
    return {
        "world": one.entry["gpus"],
        "sp": one.entry["sp"],
        "zero": 3,
        "micro_batch": 1,
        "seq_len": observation.seq_len,
        "element_bytes": BF16,
    }
