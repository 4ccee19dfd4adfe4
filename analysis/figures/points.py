"""What figures draw: one row per result, and how points are named and grouped."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import pandas as pd
from matplotlib.lines import Line2D

from analysis.figures.style import LINES, MARKERS, MAX_SERIES, colour_of, limited
from analysis.gradients import UNCHECKED, gradients_of
from analysis.identities import PARTS, RESULT, cautions
from analysis.table import in_order, natural, varying_axes
from bench.printable import printable
from bench.record import PHASES
from bench.rounds import figure_of_rounds
from bench.verdicts import SIGN

PHASE_COLUMNS = tuple(f"{name}_s" for name in PHASES)
OVER_ROUNDS = ("tokens_per_s", "step_s", *PHASE_COLUMNS)
SERIES = ("environment", "loss")
"""What tells the lines of a panel apart."""
ALWAYS = ("sp", "dp")
"""The split of the ranks names every panel."""
MAX_PANELS = 8


class Look(NamedTuple):
    """How a series is drawn wherever it appears."""

    label: str
    colour: str
    line: Literal["-", "--", "-.", ":"]
    marker: str
    filled: bool


def points(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per result of `analysis.frame.load`'s frame, sorted by its axes.

    The axes; `panel`, the axes that vary besides sequence length, environment and loss, as text
    (`sp=2 dp=2`); `series` (`torch-2.13 all_gather`, and the variant where there is one); each
    of `OVER_ROUNDS`, the median over rounds, with `_low`, `_high`; `level`, the confidence of
    these; `rounds` that have a time,
    and `failed` ones; `peak_memory_bytes`, the maximum; `failure`; `fault`, what is wrong with the
    gradient (`×2`; empty: nothing that is known), and `compared`, whether anybody looked;
    `emulated`, `timings_valid`.
    """
    if frame.empty:
        added = ("panel", "series", "failed", "level", "rounds", "fault", "compared")
        return frame.assign(**{name: [] for name in added})
    rows = [_row(group) for _, group in frame.groupby(RESULT, sort=False)]
    table = pd.DataFrame(rows)
    table.attrs = dict(frame.attrs)
    names = panel_axes(frame)
    table["panel"] = [_named(row, names) for row in table[names].itertuples(index=False)]
    table["series"] = [_series(*row) for row in table[[*SERIES, "variant"]].itertuples(index=False)]
    order = [*names, "seq_len", *SERIES, "variant"]
    return table.sort_values(order, key=in_order(frame)).reset_index(drop=True)


def panel_axes(frame: pd.DataFrame) -> list[str]:
    """Axes that make panels: those that vary, but sequence length, environment and loss."""
    varying = [
        name for name in varying_axes(frame) if name not in (*SERIES, "seq_len", "world", *ALWAYS)
    ]
    return [*ALWAYS, *varying]


def looks(table: pd.DataFrame) -> dict[str, Look]:
    """How each series of `points`' table is drawn.

    Colour by loss, line and marker by environment and variant; the newest environment by name is
    solid.
    """
    kinds = set(zip(table.environment, table.variant, strict=True))
    ordered = sorted(kinds, key=lambda one: (natural(one[0]), natural(one[1])), reverse=True)
    chosen = {}
    by = [*SERIES, "variant"]
    series = table.drop_duplicates("series").sort_values(by, key=lambda c: c.map(natural))
    for row in series.itertuples():
        index = ordered.index((row.environment, row.variant))
        chosen[row.series] = Look(
            row.series,
            colour_of(row.loss, table.loss),
            LINES[index % len(LINES)],
            MARKERS[index % len(MARKERS)],
            index == 0,
        )
    return dict(list(chosen.items())[:MAX_SERIES])


def handle(look: Look, suffix: str = "") -> Line2D:
    """A series in a legend."""
    return Line2D(
        [],
        [],
        color=look.colour,
        linestyle=look.line,
        marker=look.marker,
        markerfacecolor=look.colour if look.filled else "white",
        label=look.label + suffix,
    )


def suffixes(table: pd.DataFrame) -> dict[str, str]:
    """What a legend says behind each series of `points`' table: ` (✗ gradient ×2)`, or nothing."""
    found = {}
    for name, part in table.groupby("series", sort=False):
        faults = ", ".join(dict.fromkeys(part.fault[part.fault != ""]))
        found[str(name)] = f" ({SIGN} gradient {faults})" if faults else ""
    return found


def wrong_note(table: pd.DataFrame) -> list[str]:
    """What is struck through, where anything is."""
    return ["Struck through: the gradient is wrong."] if (table.fault != "").any() else []


def chosen_panels(table: pd.DataFrame, most: int = MAX_PANELS) -> tuple[list[str], list[str]]:
    """The panels that fit, and notes on what is left out."""
    names = list(dict.fromkeys(table.panel))
    left = []
    if len(names) > most:
        left.append(
            f"{most} of {len(names)} splits are shown; filter the frame and draw again for others."
        )
    series = table.series.nunique()
    if series > MAX_SERIES:
        left.append(f"{MAX_SERIES} of {series} series are shown.")
    return names[:most], left


def caveats(table: pd.DataFrame, timing: bool = True) -> list[str]:
    """Notes that belong below a figure: emulation, invalid timings, failures."""
    notes = [f"{line}." for line in cautions(table)]
    if timing and table.emulated.any():
        whose = "All" if table.emulated.all() else _some(table[table.emulated].comm)
        notes.append(f"Hatched: {whose} timings are emulated, torch's NCCL code path on gloo.")
    if timing and not table.timings_valid.all():
        whose = "All" if not table.timings_valid.any() else "Some"
        notes.append(f"Hatched: {whose.lower()} timings are invalid, ranks shared a GPU.")
    return notes + failures(table)


def failures(table: pd.DataFrame) -> list[str]:
    """`No number: torch-2.2 all_gather at sp=2 dp=2: IndexError …`, equal ones together."""
    failed = table[table.failed > 0]
    texts = []
    for (series, failure), group in failed.groupby(["series", "failure"], sort=False):
        where = limited(list(dict.fromkeys(group.panel)), 3, "splits")
        kind = "No number" if (group.rounds == 0).all() else "Failed rounds"
        texts.append(f"{kind}: {series} at {', '.join(where)}: {failure}.")
    return limited(texts, 4, "failures")


def interval_note(table: pd.DataFrame) -> list[str]:
    """What the error bars of a figure are."""
    several = table[table.rounds > 1]
    if several.empty:
        return ["One round each: no error bars."] if (table.rounds == 1).any() else []
    few, many = int(several.rounds.min()), int(several.rounds.max())
    rounds = f"{many} rounds" if few == many else f"{few} to {many} rounds"
    level = several.level.min()
    return [f"Median over {rounds}; bars: {math.floor(100 * level + 0.5)} % confidence or more."]


def _row(trials: pd.DataFrame) -> dict[str, object]:
    row = trials.iloc[0].to_dict()
    row.update({part: trials[part].max() for part in PARTS})  # whatever some trial has
    for name in OVER_ROUNDS:
        values = [value for value in trials[name].dropna().tolist() if math.isfinite(value)]
        figure = figure_of_rounds(values) if values else None
        row[name] = figure.value if figure else math.nan
        row[f"{name}_low"] = figure.interval.low if figure else math.nan
        row[f"{name}_high"] = figure.interval.high if figure else math.nan
        if name == "step_s":
            row["rounds"] = len(values)
            row["level"] = figure.interval.level if figure else math.nan
    row["failed"] = int((trials.status != "ok").sum())
    row["failure"] = printable("; ".join(dict.fromkeys(map(str, trials.failure.dropna()))))
    gradients = gradients_of(trials)
    row["fault"], row["compared"] = gradients.fault, gradients.kind != UNCHECKED
    row["peak_memory_bytes"] = trials.peak_memory_bytes.max()
    row["emulated"] = bool(trials.emulated.any())
    row["timings_valid"] = bool(trials.timings_valid.all())
    return row


def _series(environment: str, loss: str, variant: str) -> str:
    return printable(f"{environment} {loss}" + (f" [{variant}]" if variant else ""))


def _named(values: Iterable[object], names: Sequence[str]) -> str:
    return printable(" ".join(f"{name}={value}" for name, value in zip(names, values, strict=True)))


def _some(comms: pd.Series) -> str:
    return "the " + ", ".join(sorted(set(map(str, comms))))
