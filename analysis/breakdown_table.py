"""What a profile says, in a terminal: `spbench trace`, and the end of a sweep of profiles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from analysis.breakdown import CATEGORIES, shares
from analysis.columns import Content
from bench.console import Console

BAR = 18
"""Width of the longest bar [characters]."""
WIDE = 100
"""From so many characters on, what a collective serves has a column."""
MS = 1e3
GAP = (0, 1, 0, 0)
"""Around a cell: one blank to its right."""


def show(folder: Path, record: Content, console: Console) -> None:
    """One trial: the breakdown of every rank, its collectives, theory's bytes, the trace."""
    details = record["details"]
    console.print(f"trial {record['trial_id']}", style="bold", highlight=False)
    console.print(_split(record), style="dim", highlight=False)
    console.print(_by_rank(details))
    console.print(_collectives(details, console.width))
    for line in remarks(record):
        console.print(line, style="dim", highlight=False)
    for line in disagreements(details):
        console.print(line, style="red", highlight=False)
    path = folder / details["trace"]
    console.print(f"trace: {path} (ui.perfetto.dev opens it)", highlight=False, soft_wrap=True)


def remarks(record: Content) -> list[str]:
    """How far the parts add up, what was hidden, what the profiler cost, the bytes."""
    details = record["details"]
    ranks = details["breakdown"]
    worst = max(abs(one["off_by"]) for one in ranks)
    profiled = max(one["step_s"] for one in ranks)
    measured = max(one["measured_step_s"] for one in ranks)
    lines = [
        f"the parts add up to the step within {100 * worst:.2f} %; a profiled step took "
        f"{profiled * MS:,.1f} ms, a measured one {measured * MS:,.1f} ms (slowest rank)",
        hidden(details),
    ]
    if details["bytes_agree"]:
        forward = next(r for r in details["ulysses"] if r["pass"] == "forward")
        lines.append(
            "Ulysses's all-to-alls: calls and bytes are those of theory on every rank, in "
            f"forward, recomputation and backward ({forward['bytes']:,.0f} bytes sent per rank "
            "in forward)"
        )
    return lines


def hidden(details: Content) -> str:
    """How much of the communication happened while the rank did something else."""
    transfer = sum(one["transfer_s"] for one in details["overlap"])
    mean = transfer / len(details["overlap"]) * MS
    return (
        f"{hidden_share(details)} of the {mean:,.1f} ms of transfer per rank and step is hidden "
        "behind computation"
    )


def hidden_share(details: Content) -> str:
    """The same as a percentage of the transfer; nothing where there was none."""
    share = hidden_part(details)
    return "nothing" if share is None else f"{100 * share:.1f} %"


def hidden_part(details: Content) -> float | None:
    """Share of the transfer behind computation [0..1]; None where nothing was transferred."""
    transfer = sum(one["transfer_s"] for one in details["overlap"])
    behind = sum(one["hidden_s"] for one in details["overlap"])
    return float(behind / transfer) if transfer else None


def disagreements(details: Content) -> list[str]:
    """What must not be: parts that miss the step, bytes that differ from theory."""
    lines = [
        f"rank {one['rank']}: the parts miss the step by {100 * one['off_by']:+.1f} %"
        for one in details["breakdown"]
        if not details["adds_up"] and abs(one["off_by"]) > 0.02
    ]
    return lines + [
        f"rank {row['rank']}, {row['pass']}: {row['calls']:g} all-to-alls with "
        f"{row['bytes']:,.0f} bytes sent; theory says {row['expected_calls']} with "
        f"{row['expected_bytes']:,}"
        for row in details["ulysses"]
        if not row["agrees"]
    ]


def _split(record: Content) -> str:
    c = record["config"]
    emulated = ", emulated NCCL" if record["emulated"] else ""
    recomputed = ", checkpointing" if c["model"]["activation_checkpointing"] else ""
    return (
        f"{c['model']['name']}, {c['seq_len']:,} tokens, sp={c['sp']}, "
        f"dp={c['world'] // c['sp']}, ZeRO {c['zero']}, {c['loss']}, "
        f"{c['environment']['name']}{recomputed}{emulated}"
    )


def _by_rank(details: Content) -> Table:
    """Milliseconds by category, a column for each rank, and a bar for the mean."""
    table = Table(box=None, pad_edge=False, padding=GAP)
    table.add_column("ms per step")
    for one in details["breakdown"]:
        table.add_column(f"rank {one['rank']}", justify="right")
    table.add_column("share", justify="right")
    table.add_column("")
    found = shares(details)
    longest = max(found.values())
    for category, share in found.items():
        bar = "█" * max(1, round(BAR * share / longest))
        cells = [f"{one['seconds'][category] * MS:,.2f}" for one in details["breakdown"]]
        name = CATEGORIES.get(category, category)
        table.add_row(name, *cells, f"{100 * share:.1f} %", Text(bar, "cyan"))
    whole = [f"{one['sum_s'] * MS:,.2f}" for one in details["breakdown"]]
    table.add_row("step", *whole, "", "", style="bold")
    return table


def _collectives(details: Content, width: int) -> Table:
    """Rank 0's collectives, like nccl-tests: size, time, bandwidth."""
    table = Table(box=None, pad_edge=False, padding=GAP, title="collectives of rank 0, per step")
    table.title_justify = "left"
    wide = width >= WIDE
    for name in ["for"] * wide + ["in", "collective"]:
        table.add_column(name, no_wrap=True)
    for name in ("ranks", "calls", "kB", "wait ms", "move ms", "bus MB/s"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in details["collectives"]:
        if row["rank"] == 0:
            served = [CATEGORIES.get(row["category"], row["category"])] * wide
            table.add_row(
                *served,
                row["phase"],
                row["collective"],
                str(row["group"]),
                f"{row['calls']:g}",
                f"{row['bytes'] / 1e3:,.1f}",
                f"{row['waiting_s'] * MS:,.2f}",
                f"{row['transfer_s'] * MS:,.2f}",
                _megabytes(row["bus_bandwidth"]),
            )
    return table


def _megabytes(bandwidth: Any) -> str:
    return "" if bandwidth is None else f"{bandwidth / 1e6:,.1f}"
