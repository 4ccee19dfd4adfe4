"""A prediction for people and for programs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from rich.table import Table

from analysis.prediction.splits import Recommendation, Setting, Split
from bench.console import Console

if TYPE_CHECKING:
    from analysis.prediction.fit import Fit

COLUMNS = ("split", "step s", "at least", "at most", "tokens/s/GPU", "MFU", "GB/GPU", "limit")
MOST_RESIDUALS = 12


def show_splits(
    setting: Setting, splits: Sequence[Split], best: Split | None, console: Console
) -> None:
    """One line for each split; the recommended one is marked."""
    table = Table(box=None, header_style="bold", collapse_padding=True, pad_edge=False)
    for name in COLUMNS:
        justify: Literal["left", "right"] = "left" if name in ("split", "limit") else "right"
        table.add_column(name, justify=justify, no_wrap=name != "limit")
    for split in splits:
        mark = "bold" if split is best else "dim" if not split.fits else ""
        table.add_row(*_cells(split, setting.cluster.memory_bytes), style=mark)
    console.print(
        f"{setting.model.name}, {setting.seq_len:,} tokens, {setting.micro_batch} sequence a "
        f"replica, ZeRO {setting.zero}, {setting.dtype}, {setting.gpus:,} × {setting.cluster.name}"
        f"{', activation checkpointing' if setting.model.activation_checkpointing else ''}",
        highlight=False,
    )
    console.print(table)
    for line in _legend(setting, splits):
        console.print(line, highlight=False)


def _legend(setting: Setting, splits: Sequence[Split]) -> list[str]:
    """What the interval and the marks mean, with the results that the interval covers."""
    lines = ["At least: every resource behind the slowest; at most: one after the other."]
    ranges = list(dict.fromkeys(split.errors for split in splits if split.errors))
    if ranges:
        lines = ["At least and at most cover the errors seen, true over predicted step time:"]
        lines += [f"  ×{one.least:.2f} to ×{one.most:.2f} in {one.source}" for one in ranges]
    if not all(split.fits for split in splits):
        lines.append("!: more than a GPU has.")
    room = setting.cluster.memory_bytes
    if any(split.fits and split.memory_most_bytes > room for split in splits):
        missing = max(split.memory_most_bytes - split.memory_bytes for split in splits)
        lines.append(f"?: published peaks were up to {missing / 1e9:,.1f} GB above predictions.")
    return lines


def show_basis(setting: Setting, fitted: Fit | None, console: Console) -> None:
    """Where the efficiencies come from, and how well they explain what was recorded."""
    e = setting.efficiencies
    shares = [f"{name} {_percent(getattr(e, name))}" for name in ("matmul", "attention")]
    shares += [f"all-to-all {_percent(e.all_to_all)}", f"gradient reduction {_percent(e.gradient)}"]
    overhead = e.step_overhead_s + setting.model.layers * e.layer_overhead_s
    text = f"{', '.join(shares)} of the peak rates, {1000 * overhead:,.1f} ms fixed a step"
    if fitted is None:
        console.print(f"Efficiencies are assumed, not fitted: {text}.", highlight=False)
        return
    console.print(
        f"Efficiencies are fitted to {len(fitted.residuals)} configurations: {text}.",
        highlight=False,
    )
    worst = sorted(fitted.residuals, key=lambda one: -abs(one.relative))
    console.print(
        f"Residuals: median {_percent(fitted.error)}, largest {_percent(abs(worst[0].relative))}.",
        highlight=False,
    )
    for one in worst[:MOST_RESIDUALS]:
        console.print(
            f"  {one.relative:+7.1%}  recorded {one.point.step_s:.4f} s, "
            f"fitted {one.predicted_s:.4f} s: {one.point.label}",
            highlight=False,
        )
    if len(worst) > MOST_RESIDUALS:
        console.print(f"  … and {len(worst) - MOST_RESIDUALS:,} smaller ones", highlight=False)


def as_json(
    setting: Setting,
    splits: Sequence[Split],
    recommendation: Recommendation | None,
    fitted: Fit | None,
    impossible: Sequence[str] = (),
) -> dict[str, Any]:
    """The same for programs: seconds, bytes, shares of 1."""
    best = None if recommendation is None else recommendation.split.name
    return {
        "model": setting.model.model_dump(),
        "cluster": setting.cluster.name,
        "gpus": setting.gpus,
        "seq_len": setting.seq_len,
        "micro_batch": setting.micro_batch,
        "zero": setting.zero,
        "dtype": setting.dtype,
        "efficiencies": vars(setting.efficiencies),
        "fitted_configurations": 0 if fitted is None else len(fitted.residuals),
        "residuals": [
            {
                "configuration": one.point.label,
                "recorded_s": one.point.step_s,
                "fitted_s": one.predicted_s,
            }
            for one in (() if fitted is None else fitted.residuals)
        ],
        "impossible": list(impossible),
        "errors": {
            kind: {"least": one.least, "most": one.most, "of": one.source}
            for kind, one in (
                (("short", setting.errors.short), ("long", setting.errors.long))
                if setting.errors
                else ()
            )
        },
        "splits": [_entry(split) for split in splits],
        "recommended": best,
        "reason": None if recommendation is None else recommendation.reason,
    }


def _cells(split: Split, room: float) -> tuple[str, ...]:
    doubt = " ?" if split.memory_most_bytes > room else ""
    return (
        split.name,
        _quantity(split.step.predicted),
        _quantity(split.low_s),
        _quantity(split.high_s),
        _quantity(split.tokens_per_s_per_gpu),
        _percent(split.mfu),
        _quantity(split.memory_bytes / 1e9) + (doubt if split.fits else " !"),
        split.limit,
    )


def _entry(split: Split) -> dict[str, Any]:
    step = split.step
    return {
        "sp": split.sp,
        "dp": split.dp,
        "step_s": step.predicted,
        "at_least_s": split.low_s,
        "at_most_s": split.high_s,
        "all_overlapped_s": step.overlapped,
        "none_overlapped_s": step.serial,
        "resources_s": step.resources,
        "overhead_s": step.overhead,
        "tokens_per_s_per_gpu": split.tokens_per_s_per_gpu,
        "mfu": split.mfu,
        "memory_bytes": split.memory_bytes,
        "memory_at_most_bytes": split.memory_most_bytes,
        "fits": split.fits,
        "limit": split.limit,
    }


def _quantity(value: float) -> str:
    """Three digits, or all before the decimal point."""
    decimals = max(0, 2 - math.floor(math.log10(value))) if value > 0 else 0
    return f"{value:,.{decimals}f}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
