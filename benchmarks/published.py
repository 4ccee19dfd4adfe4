"""Published results beside predictions, and whether their own arithmetic allows them.

`python -m benchmarks.published` prints the table; `--write` puts it into docs/published.md.
Predictions use conf/cluster's assumed efficiencies: nothing is fitted to what is predicted.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import yaml

from analysis.prediction.files import cluster_named
from bench.theory import (
    Cluster,
    Efficiencies,
    Observation,
    PeakMemory,
    Training,
    impossible,
    marginal_rate,
    moments,
    rate,
    step_seconds,
    step_time,
    work_per_rank,
)
from bench.theory.plausible import SLACK
from bench.trial import ModelSpec

DATA = Path(__file__).with_name("published.yaml")
PAGE = Path(__file__).resolve().parents[1] / "docs" / "published.md"
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


def page(every: list[Series]) -> str:
    """docs/published.md."""
    rows = [row for one in every for row in _rows(one)]
    findings = [f"- **{one.entry['name']}**: {text}." for one in every for text in one.objections()]
    sources = dict.fromkeys(
        f"- {one.entry['name']}: {one.entry['setup']}. <{one.entry['source']}>" for one in every
    )
    return "\n".join([*_INTRODUCTION, *rows, "", *_READING, *findings, "", *_SOURCES, *sources, ""])


def _unless(one: Series) -> str:
    """What the linear layers alone say, with which no packing of documents can do away."""
    pairs = zip(one.observations, one.observations[1:], strict=False)
    rates = [marginal_rate(shorter, longer, attention=False) for shorter, longer in pairs]
    least = max((found for found in rates if found is not None), default=0.0)
    if least > one.peak_flops:
        return " Linear layers alone are above it."
    return (
        f" Without any attention it would be {least / 1e12:,.0f} TFLOP/s: the figures can be true "
        "only if tokens attended to much less than the sequence, as in packed documents."
    )


def _rows(one: Series) -> list[str]:
    lines = []
    before: Optional[Observation] = None
    for observation in one.observations:
        step = observation.step_s
        reached = rate(observation)
        marginal = marginal_rate(before, observation) if before is not None else None
        predicted = predicted_step_s(one, observation)
        peak = observation.peak_memory_bytes
        cells = [
            one.entry["name"],
            f"{observation.seq_len:,}",
            f"{step:,.2f}" if step else "",
            f"{predicted:,.2f}",
            f"{predicted / step:.2f}" if step else "",
            f"{reached / 1e12:,.0f}" if reached else "",
            f"{marginal / 1e12:,.0f}" if marginal else "",
            f"{one.peak_flops / 1e12:,.0f}",
            f"{peak / 1e9:,.1f}" if peak else "",
            f"{predicted_memory_bytes(one, observation) / 1e9:,.1f}",
            "impossible" if marginal and marginal > one.peak_flops * (1 + SLACK) else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
        before = observation
    return lines


_INTRODUCTION = [
    "# Published results, checked",
    "",
    "Made by `python -m benchmarks.published --write` from `benchmarks/published.yaml`; nothing is",
    "fitted to these figures: predictions use what `conf/cluster` assumes of each GPU.",
    "",
    "| result | tokens | step s | predicted s | predicted / published | TFLOP/s/GPU "
    "| marginal TFLOP/s/GPU | peak | GB | predicted GB | |",
    "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|",
]
_READING = [
    "*TFLOP/s/GPU*: model FLOPs, the causal half only, no recomputation. *Marginal*: what the step",
    "computes beyond that of the row above it, over the additional time; overheads drop out of it,",
    "so that it cannot exceed the *peak* either (FP8's where linear layers ran in FP8).",
    "",
    "*Predicted s*: Ulysses in bfloat16 with everything on the GPU. The article's runs stepped the",
    "optimizer on the CPU, seconds that dominate its short sequences; torchtitan's used ring",
    "attention, FP8 and cards of 500 W. *Predicted GB*: without what was kept on the CPU, and for",
    "ALST, of which only lengths are quoted, without logits and SwiGLU: it computes them in tiles.",
    "From 32K to 96K tokens the article's peak grows by 31 GB, 33 of them predicted; some 10 GB at",
    "every length (libraries, buffers of communication and offloading) are not. On one GPU ALST",
    "must have spared more than is counted here.",
    "",
    "## What cannot be",
    "",
]
_SOURCES = ["## Sources", ""]


def main() -> None:
    """Print the page, or write it with `--write`."""
    text = page(series())
    if "--write" in sys.argv[1:]:
        PAGE.write_text(text, encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
