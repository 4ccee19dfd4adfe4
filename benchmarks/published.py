"""Published results beside predictions, and whether their own arithmetic allows them.

`python -m benchmarks.published` prints the table; `--write` puts it into docs/published.md.
Predictions use conf/cluster's assumed efficiencies: nothing is fitted to what is predicted.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Optional

from analysis.prediction.published import (
    Series,
    predicted_memory_bytes,
    predicted_step_s,
    series,
)
from bench.theory import Observation, marginal_rate, rate
from bench.theory.plausible import SLACK

__all__ = ["PAGE", "Series", "page", "predicted_memory_bytes", "predicted_step_s", "series"]

PAGE = Path(__file__).resolve().parents[1] / "docs" / "published.md"


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
