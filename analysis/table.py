"""The summary of a results folder: one row per configuration, and how a terminal shows it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pandas as pd
from rich.table import Table
from rich.text import Text

from analysis import conditions, references
from analysis.columns import AXES, is_axis
from analysis.gradients import gradients_of
from analysis.identities import RESULT, cautions
from analysis.statistics import figure_of_rounds
from analysis.wording import marked
from bench.console import Console
from bench.record import MODE_MARKS
from bench.verdicts import SIGN, STYLE

METHODS = ("comm", "environment", "attention", "loss", "variant")
"""Axes that are compared at a point; the others say which point it is."""

STYLES = {
    "ok": "green",
    "unsupported": "dim",
    "match": "green",
    **dict.fromkeys(("scaled", "wrong", "none", SIGN), STYLE),
}
"""How a status or verdict is coloured; whatever is not here is red."""

MODES = {
    "proxy": f"{MODE_MARKS['proxy']}: the gradient of the same trial with two layers",
    "directional": f"{MODE_MARKS['directional']}: judged by how the loss changes along the "
    "gradient, block by block",
}
"""What a mark beside a verdict means."""

VARIANT = "variant"
VARIANT_MEANING = (
    "variant: results of one configuration that may not be joined: by other code, other versions "
    "or another class of machine; the latest last"
)
RIGHT = ("tokens/s", "interval", "noisy")
WRAPPED = "gradient or failure"
"""The one column that may take several lines."""
NOT_COMPARED = "not compared"
SKETCHED = "sketch kept"
FIRST_LOSS_OFF = "first loss is not that of one device"
CLIPS = 1e-4
"""Below 1 by more than this, a factor between two norms is no rounding."""
GAP = 1
"""Blanks between columns."""


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per result of `analysis.frame.load`'s frame, sorted by its axes.

    Columns: `config_hash`; the axes that vary within the folder; `variant`, where a configuration
    has several results; `statuses` over the rounds (`ok 3`);
    `rounds` that have a time; `tokens_per_s` [tokens/s], the median over rounds, with
    `tokens_per_s_low`, `tokens_per_s_high` and the confidence `level` of that interval;
    `peak_memory_bytes` and `late_imports`, the maximum over rounds; `gradient` (verdict and
    scale), its `fault` (`×2`; empty where nothing is known to be wrong) and `failure`;
    `noisy` trials; `emulated`, `timings_valid`.
    """
    axes = row_axes(frame)
    rows = [_row(config_hash, group, axes) for (config_hash, _), group in frame.groupby(RESULT)]
    table = pd.DataFrame(rows)
    if axes:
        table = table.sort_values(axes, key=in_order(frame))
    return table.reset_index(drop=True)


def varying_axes(frame: pd.DataFrame) -> list[str]:
    """Axes with more than one value, in the order of `AXES`; the free dictionaries' come last.

    Sizes that follow from the model's name are left out.
    """
    free = [name for name in frame if name not in AXES and is_axis(name)]
    chosen: list[str] = []
    for name in (*AXES, *free):
        if frame[name].nunique(dropna=False) == 1:
            continue
        # A size of the model, where one name stands for one size, says nothing new.
        size = name.startswith("model.") and "model" in chosen
        if not (size and (frame.groupby("model")[name].nunique() == 1).all()):
            chosen.append(name)
    return chosen


def row_axes(frame: pd.DataFrame) -> list[str]:
    """What tells the results of a frame apart: the axes that vary, and `variant` where it says."""
    several = [VARIANT] if (frame[VARIANT] != "").any() else []
    return [*varying_axes(frame), *several]


def in_order(frame: pd.DataFrame) -> Callable[[pd.Series], pd.Series]:
    """The key by which columns are sorted: naturally, but variants by when they last ran."""
    last = frame.groupby(VARIANT).started.max()
    rank = {name: index for index, name in enumerate(last.sort_values(kind="stable").index)}

    def key(column: pd.Series) -> pd.Series:
        return column.map(rank if column.name == VARIANT else natural)

    return key


def readable(frame: pd.DataFrame) -> pd.DataFrame:
    """`summary` as people read it: a frame of text, numbers of a column with equal decimals."""
    return _cells(summary(frame), row_axes(frame))


def render(frame: pd.DataFrame, console: Console) -> None:
    """Print the summary table of `analysis.frame.load`'s frame, its legend and the closing line."""
    table = summary(frame)
    axes = row_axes(frame)
    console.print(constants(frame), style="dim", highlight=False)
    cells = _cells(table, axes)
    if sum(_widths(cells)) + GAP * (len(list(cells)) - 1) <= console.width:
        _print_flat(cells, console)
    else:
        cells["interval"] = _relative_intervals(table)
        _print_sections(cells, axes, console)
    for line in _legend(frame, table):
        console.print(line, style="dim", highlight=False)
    console.print(closing_line(frame), highlight=False)


def closing_line(frame: pd.DataFrame) -> Text:
    """`N trials: a ok, b error, …; not ok: b`, statuses coloured."""
    counts = frame.status.value_counts()
    text = Text(f"{_plural(len(frame), 'trial')}: ", style="bold")
    for index, status in enumerate(sorted(counts.index, key=lambda s: (s != "ok", s))):
        text.append(", " if index else "")
        text.append(f"{counts[status]:,} {status}", STYLES.get(status, "red"))
    text.append(f"; not ok: {len(frame) - counts.get('ok', 0):,}")
    wrong = sum(gradients_of(frame).wrong.values())
    if wrong:
        text.append("; ")
        text.append(f"{SIGN} wrong gradient: {wrong:,}", STYLE)
    if frame.attrs.get("skipped"):
        text.append(
            f"; {_plural(len(frame.attrs['skipped']), 'unreadable line')} skipped", "yellow"
        )
    return text


def _row(config_hash: Any, trials: pd.DataFrame, axes: list[str]) -> dict[str, Any]:
    rates = trials.tokens_per_s.dropna().tolist()
    figure = figure_of_rounds(rates) if rates else None
    counts = trials.status.value_counts()
    return {
        "config_hash": config_hash,
        **{name: trials[name].iloc[0] for name in axes},
        "statuses": ", ".join(f"{name} {count}" for name, count in counts.items()),
        "rounds": len(rates),
        "tokens_per_s": figure.value if figure else math.nan,
        "tokens_per_s_low": figure.interval.low if figure else math.nan,
        "tokens_per_s_high": figure.interval.high if figure else math.nan,
        "level": figure.interval.level if figure else math.nan,
        "peak_memory_bytes": trials.peak_memory_bytes.max(),
        "late_imports": int(trials.late_imports.max()),
        "gradient": _distinct(_gradients(trials)),
        "fault": gradients_of(trials).fault,
        "failure": _distinct(trials.failure.dropna()),
        "noisy": int((trials.noisy != "").sum()),
        "emulated": bool(trials.emulated.any()),
        "timings_valid": bool(trials.timings_valid.all()),
    }


def _gradients(trials: pd.DataFrame) -> Iterator[str]:
    """`match ×1 (token_mean: 3 % off)`, `scaled ×2`, `not compared` for each trial that has one."""
    asked = ("status", "gradient_mode", "gradient_reason", "sketch", "first_loss_agrees")
    for one in trials[[*references.READ, *asked]].itertuples(index=False):
        if isinstance(one.gradient_verdict, str):
            said = f"{one.gradient_verdict} {one.gradient_scale_label}"
            other = references.beside(one)
            yield marked(said, one.gradient_mode) + (f" ({other})" if other else "")
        elif one.status == "ok" and isinstance(one.gradient_reason, str):
            yield NOT_COMPARED
        elif one.status == "ok" and isinstance(one.sketch, str):
            yield SKETCHED
        if pd.notna(one.first_loss_agrees) and not one.first_loss_agrees:
            yield FIRST_LOSS_OFF


def _distinct(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(texts))


def _cells(table: pd.DataFrame, axes: list[str]) -> pd.DataFrame:
    """The table as people read it: text, numbers of a column with equally many decimals."""
    cells = pd.DataFrame({name: table[name].map(_plain) for name in axes})
    signs = table.fault.map(lambda fault: f" {SIGN}" if fault else "")
    cells["status"] = table.statuses + signs
    cells["tokens/s"] = _aligned(table.tokens_per_s, _decimals(table.tokens_per_s))
    marks = table.timings_valid.map({True: "", False: "!"})
    cells["tokens/s"] += marks.where(table.tokens_per_s.notna(), "")
    cells["interval"] = _intervals(table)
    mebibytes = table.peak_memory_bytes / 2**20
    cells["peak MiB"] = _aligned(mebibytes, _decimals(mebibytes))
    imported = (table.late_imports > 0) & mebibytes.notna()
    cells["peak MiB"] += imported.map({True: "+", False: " " if imported.any() else ""})
    cells[WRAPPED] = [
        "; ".join(text for text in texts if text)
        for texts in zip(table.gradient, table.failure, strict=True)
    ]
    if table.noisy.any():
        cells["noisy"] = [str(count) if count else "" for count in table.noisy]
    return cells


def _print_flat(cells: pd.DataFrame, console: Console) -> None:
    table = _empty_table(cells)
    for row in cells.itertuples(index=False):
        table.add_row(*map(_coloured, cells, row))
    console.print(table)


def _print_sections(cells: pd.DataFrame, axes: list[str], console: Console) -> None:
    """For narrow terminals: a heading per point, below it a row per method."""
    point = [name for name in axes if name not in METHODS]
    if len(point) == len(axes):
        point = []
    body = cells.drop(columns=[*point, "noisy"], errors="ignore")
    body = body.rename(columns={"peak MiB": "peak\nMiB"})
    headings = ["  ".join(f"{name}={row[name]}" for name in point) for _, row in cells.iterrows()]
    console.print(_empty_table(body))
    for start, heading in enumerate(headings):
        if start and heading == headings[start - 1]:
            continue
        table = _empty_table(body, show_header=False)
        for index in range(start, len(headings)):
            if headings[index] != heading:
                break
            table.add_row(*map(_coloured, body, body.iloc[index]))
        if point:
            console.print(heading, style="bold", highlight=False)
        console.print(table)


def _empty_table(cells: pd.DataFrame, show_header: bool = True) -> Table:
    """A table for `cells` whose columns are as wide as they need, but the last as fits."""
    table = Table(
        box=None,
        pad_edge=False,
        padding=(0, GAP, 0, 0),
        header_style="bold",
        show_header=show_header,
    )
    for name, width in zip(cells, _widths(cells), strict=True):
        right = name in RIGHT or name.startswith("peak")
        wraps = name == WRAPPED
        table.add_column(
            name,
            justify="right" if right else "left",
            min_width=None if wraps else width,
            no_wrap=not wraps,
        )
    return table


def _widths(cells: pd.DataFrame) -> list[int]:
    """Characters that each column needs."""
    return [
        max(*(len(line) for line in name.split("\n")), 0, *map(len, column))
        for name, column in cells.items()
    ]


def _coloured(name: str, text: str) -> Text:
    if name not in ("status", WRAPPED) or not text:
        return Text(text)
    if text == NOT_COMPARED:
        return Text(text, style="dim")
    if SIGN in text:
        return Text(text, style=STYLE)
    mixed = ", " in text if name == "status" else "; " in text
    return Text(text, style="red" if mixed else STYLES.get(text.split(" ")[0], "red"))


def constants(frame: pd.DataFrame) -> str:
    """Axes with one value, as Hydra overrides; sizes and switches at their usual values are not."""
    shown = {
        name: _plain(frame[name].iloc[0])
        for name in AXES
        if frame[name].nunique(dropna=False) == 1
        and frame[name].notna().all()
        and not name.startswith(("model.", "comm."))
    }
    return "  ".join(f"{name}={value}" for name, value in shown.items())


def _legend(frame: pd.DataFrame, table: pd.DataFrame) -> list[str]:
    """What the columns mean and what limits their use."""
    lines = []
    if table.rounds.any():
        lines.append(_rounds_line(table[table.rounds > 0]))
    lines += reasons(frame)
    lines += variant_notes(frame)
    emulated = sorted(frame[frame.emulated].comm.unique())
    for name in emulated:
        lines.append(f"comm {name}: torch's NCCL code path emulated on gloo")
    if not frame.timings_valid.all():
        lines.append("!: ranks shared a GPU, the time is no measure")
    lines += conditions.mesh_setups(frame) + conditions.imports(frame)
    noisy = int((frame.noisy != "").sum())
    if noisy:
        lines.append(f"noisy: {_plural(noisy, 'trial')} ran while the machine was not quiet")
    return lines


def reasons(frame: pd.DataFrame) -> list[str]:
    """Why gradients were not compared, each reason once; and what marked verdicts are."""
    lines = list(dict.fromkeys(frame[frame.status == "ok"].gradient_reason.dropna()))
    if frame.sketch.notna().any():
        lines.append(f"{SKETCHED}: to compare these gradients with one another, spbench compare")
    return [
        *lines,
        *marks(frame),
        *clipped(frame),
        *references.legend(frame),
        *references.alike(frame),
    ]


def clipped(frame: pd.DataFrame) -> list[str]:
    """What clipping made of the first step's gradients, a line for each norm it clips to."""
    lines = []
    active = frame[(frame.clip_threshold > 0) & (frame.clip_factor < 1 - CLIPS)]
    for threshold, trials in active.groupby("clip_threshold"):
        found = sorted({f"×{factor:.3g}" for factor in trials.clip_factor})
        factors = found[0] if len(found) == 1 else f"{found[0]} to {found[-1]}"
        lines.append(
            f"clipping: gradients are compared before it; DeepSpeed clipped {len(trials):,} of "
            f"{len(frame):,} to norm {threshold:g}, and the optimizer consumed {factors} of them"
        )
    return lines


def variant_notes(frame: pd.DataFrame) -> list[str]:
    """What the column `variant` means, where there is one, and what was put together."""
    lines = [VARIANT_MEANING] if VARIANT in row_axes(frame) else []
    return lines + cautions(frame)


def marks(frame: pd.DataFrame) -> list[str]:
    """What stands beside a verdict, a line for each mode that judged one otherwise than exactly."""
    compared = frame[frame.gradient_verdict.notna()]
    return [text for mode, text in MODES.items() if (compared.gradient_mode == mode).any()]


def _rounds_line(timed: pd.DataFrame) -> str:
    few, many = timed.rounds.min(), timed.rounds.max()
    rounds = _plural(many, "round") if few == many else f"{few} to {many} rounds"
    if timed.level.min() >= 0.95:
        kind = "at least 95 % confidence, by order statistics"
    elif many == 1:
        return "tokens/s: one round, so there is no interval"
    else:
        kind = f"range of the rounds, {timed.level.min():.0%} confidence at {few}"
    return f"tokens/s: median over {rounds}; interval: {kind}"


def _aligned(values: pd.Series, decimals: int) -> pd.Series:
    """Numbers with thousands separators and equally many decimals; empty where missing."""
    return values.map(lambda value: "" if math.isnan(value) else f"{value:,.{decimals}f}")


def _decimals(values: pd.Series) -> int:
    """Decimals that the smallest needs for 3 digits."""
    smallest = values[values > 0].min()
    return 0 if math.isnan(smallest) else min(4, max(0, 2 - math.floor(math.log10(smallest))))


def _intervals(table: pd.DataFrame) -> list[str]:
    """`low … high` with the decimals of the figures; empty where one round is all there is."""
    several = table.rounds > 1
    decimals = _decimals(table.tokens_per_s)
    lows = _aligned(table.tokens_per_s_low.where(several), decimals)
    highs = _aligned(table.tokens_per_s_high.where(several), decimals)
    width = max(map(len, highs), default=0)
    return [f"{a} … {b:>{width}}" if a else "" for a, b in zip(lows, highs, strict=True)]


def _relative_intervals(table: pd.DataFrame) -> list[str]:
    """The same beside the figure (`-7 +2 %`), for narrow terminals."""
    low = 100 * (1 - table.tokens_per_s_low / table.tokens_per_s)
    high = 100 * (table.tokens_per_s_high / table.tokens_per_s - 1)
    return [
        f"-{below:.0f} +{above:.0f} %" if rounds > 1 else ""
        for below, above, rounds in zip(low, high, table.rounds, strict=True)
    ]


def natural(value: Any) -> tuple[tuple[bool, float, str], ...]:
    """Sort key: numbers by value, text with its numbers by value, missing last."""
    if isinstance(value, str):
        parts = re.findall(r"\d+|\D+", value)
        return tuple(
            (False, float(part), "") if part.isdigit() else (True, 0.0, part) for part in parts
        )
    missing = value is None or value != value
    return ((missing, 0.0 if missing else float(value), ""),)


def _plain(value: Any) -> str:
    if value is None or value != value:
        return "none"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
