"""A comparison for other programs: CSV, one row per point, and JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis.comparison import Comparison, Point, Side
from analysis.csv_text import csv_text
from analysis.sentences import sentences
from analysis.statistics import Ratio
from bench.printable import json_text

_SKETCH = ("verdict", "reason", "scale", "scale_error", "residual", "residual_error")


def as_json(comparisons: Sequence[Comparison]) -> str:
    """All fields of `analysis.comparison.Comparison`, and the sentences; a list."""
    content = [
        {**dataclasses.asdict(comparison), "sentences": sentences(comparison)}
        for comparison in comparisons
    ]
    return json_text(content, indent=2, allow_nan=False)


def as_csv(comparisons: Sequence[Comparison]) -> str:
    """One row per point; sides' columns begin with `baseline_` and `candidate_`."""
    return csv_text(pd.DataFrame(rows(comparisons)))


def rows(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """The points as flat dictionaries: sizes in bytes, times in seconds."""
    return [_row(comparison, point) for comparison in comparisons for point in comparison.points]


def _row(comparison: Comparison, point: Point) -> dict[str, Any]:
    row: dict[str, Any] = {
        "baseline": _words(comparison.baseline),
        "candidate": _words(comparison.candidate),
        **point.axes,
        **_side("baseline", point.baseline),
        **_side("candidate", point.candidate),
        **_paired(point),
        **_ratio("ratio", point.ratio),
        "rounds": point.ratio.rounds,
        "rounds_needed": point.ratio.needed,
        **_dependence(point.ratio),
        "verdict": point.verdict,
        **{f"{name}_difference_s": value for name, value in point.phases_s.items()},
        "memory_ratio": point.memory_ratio,
    }
    if point.sketch is not None:
        row |= {f"sketch_{name}": getattr(point.sketch, name) for name in _SKETCH}
    if point.decomposition is not None:
        parts = point.decomposition
        row |= _ratio("total", parts.total)
        for effect in (parts.first, parts.second):
            row |= _ratio(f"{effect.axis}_effect", effect.ratio)
    return row


def _words(selector: Any) -> str:
    return " ".join(f"{key}={value}" for key, value in selector.items())


def _side(name: str, side: Side) -> dict[str, Any]:
    values = {
        "statuses": ", ".join(f"{status} {count}" for status, count in side.statuses.items()),
        "failure": side.failure,
        "tokens_per_s": side.tokens_per_s.value if side.tokens_per_s else None,
        "step_s": side.step_s.value if side.step_s else None,
        "peak_memory_bytes": side.peak_memory_bytes,
        "gradient_verdict": side.gradient_verdict,
        "gradient_scale": side.gradient_scale,
        "gradient_mode": side.gradient_mode,
        "gradient_reason": side.gradient_reason,
        "gradient_other": side.gradient_other,
        "noisy": side.noisy,
        "emulated": side.emulated,
        "timings_valid": side.timings_valid,
    }
    return {f"{name}_{key}": value for key, value in values.items()}


def _paired(point: Point) -> dict[str, Any]:
    """The figures whose quotient the ratio is: means over the rounds that both sides have."""
    means = point.paired_tokens_per_s or (None, None)
    sides = ("baseline", "candidate")
    return {f"{side}_paired_tokens_per_s": mean for side, mean in zip(sides, means, strict=True)}


def _dependence(ratio: Ratio) -> dict[str, Any]:
    """How alike neighbouring rounds are, and what that leaves of their number."""
    found = ratio.correlation
    return {
        "correlation": found.value if found else None,
        "correlation_p_value": found.p_value if found else None,
        "rounds_dependent": ratio.dependent,
        "rounds_effective": ratio.effective,
    }


def _ratio(name: str, ratio: Ratio) -> dict[str, Any]:
    interval = ratio.interval
    return {
        name: ratio.value,
        f"{name}_low": interval.low if interval else None,
        f"{name}_high": interval.high if interval else None,
    }
