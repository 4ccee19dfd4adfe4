"""The audit matrix as text: for the terminal, as Markdown and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import orjson
import pandas as pd
from rich.table import Table
from rich.text import Text

from analysis import references
from analysis.audit import Cell, Facet, cases, facets, named, sentences
from analysis.conditions import mesh_setups
from analysis.table import clipped, closing_line, constants, marks, natural, variant_notes
from bench.console import Console
from bench.printable import json_escaped, printable

STYLES = {"match": "green", "scaled": "yellow", "unknown": "dim"}
"""How a cell is coloured; whatever is not here is red."""

LEGEND = (
    "×1: the exact float64 reference's gradient up to the trial's own rounding; ×2: right "
    "direction, twice as long; wrong: another direction; a name: the exception that ended the trial"
)


def show(frame: pd.DataFrame, to: str) -> None:
    """Print the matrix of `analysis.frame.load`'s frame as `table`, `markdown` or `json`."""
    if to == "table":
        console = Console()
        render(frame, console)
        for sentence in sentences(frame):
            console.print(sentence, highlight=False, markup=False)
    else:
        print({"markdown": markdown, "json": as_json}[to](frame))


def render(frame: pd.DataFrame, console: Console) -> None:
    """Print one matrix for each group of environments that came out alike, and the legend."""
    console.print(constants(frame), style="dim", highlight=False, markup=False)
    for facet in facets(frame):
        console.print()
        console.print(heading(facet), style="bold", highlight=False, markup=False)
        console.print(_table(facet))
        for note in (*named(facet), *notes(facet)):
            console.print(note, style="dim", highlight=False, markup=False)
    console.print()
    for line in (LEGEND, *_below(frame)):
        console.print(line, style="dim", highlight=False, markup=False)
    console.print(closing_line(frame), highlight=False)


def markdown(frame: pd.DataFrame) -> str:
    """The matrices as Markdown tables."""
    lines: list[str] = []
    for facet in facets(frame):
        lines += [f"**{_escaped(heading(facet))}**", ""]
        lines += [_line(header(facet)), _line(["---"] * len(header(facet)))]
        lines += [_line([*row.values, *(cell.text for cell in row.cells)]) for row in facet.rows]
        named_below = (*named(facet), *notes(facet))
        lines += ["", *(f"{_escaped(note)}  " for note in named_below), ""]
    return "\n".join(lines + [f"{line}.  " for line in _below(frame)]).rstrip()


def _below(frame: pd.DataFrame) -> list[str]:
    """What stands below all matrices."""
    return [
        *beside_other(frame),
        *references.alike(frame),
        *marks(frame),
        *mesh_setups(frame),
        *clipped(frame),
        *variant_notes(frame),
        *emulation(frame),
    ]


def as_json(frame: pd.DataFrame) -> str:
    """`cells`: every raw cell, none put together; `skipped`: lines that could not be read."""
    content = {
        "cells": cases(frame).to_dict("records"),
        "skipped": [printable(line) for line in frame.attrs.get("skipped", ())],
    }
    return json_escaped(orjson.dumps(content, option=orjson.OPT_INDENT_2).decode())


def heading(facet: Facet) -> str:
    """`torch-2.13 (torch 2.13.0, DeepSpeed 0.18.2)`."""
    versions = f" ({'; '.join(facet.versions)})" if facet.versions else ""
    return f"{', '.join(facet.environments)}{versions}"


def header(facet: Facet) -> list[str]:
    """The names of a matrix's columns."""
    return [*facet.axes, *(f"ZeRO {', '.join(map(str, group))}" for group in facet.stages)]


def notes(facet: Facet) -> list[str]:
    """What failed where, once for each kind of failure."""
    details: dict[str, dict[str, None]] = {}
    for cell in (cell for row in facet.rows for cell in row.cells if cell.detail):
        details.setdefault(cell.text, {}).update(dict.fromkeys(cell.detail.split("; ")))
    return [f"{text}: {'; '.join(found)}" for text, found in details.items()]


def beside_other(frame: pd.DataFrame) -> list[str]:
    """What the gradients are beside the other definition of the reference, and what that is."""
    found: dict[str, dict[str, set[str]]] = {}
    table = cases(frame)
    for cell in table[table.beside_other != ""].itertuples():
        name, _, what = str(cell.beside_other).partition(": ")
        what = "right" if what == "match" else what
        found.setdefault(name, {}).setdefault(str(cell.text), set()).add(what)
    lines = []
    for line in references.legend(frame):
        told = found.get(line.partition(": ")[0], {})
        said = [f"where this says {text}: {span_of(words)}" for text, words in sorted(told.items())]
        lines.append(f"{line}: {'; '.join(said)}")
    return lines


def span_of(words: Iterable[str]) -> str:
    """`2.9 % off to 55 % off`: the least and the most of several words that begin with numbers."""
    ordered = sorted(words, key=natural)
    return " to ".join(dict.fromkeys((ordered[0], ordered[-1])))


def emulation(frame: pd.DataFrame) -> list[str]:
    """A line for each communication that is emulated."""
    names = sorted(frame[frame.emulated].comm.unique())
    return [f"comm {name}: torch's NCCL code path emulated on gloo" for name in names]


def _table(facet: Facet) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in header(facet):
        table.add_column(name, no_wrap=name in ("loss", "split"), overflow="fold")
    before: Sequence[str] = ()
    for row in facet.rows:
        first = row.values[0] if row.values[:1] != before[:1] else ""
        table.add_row(Text(first), *map(Text, row.values[1:]), *map(_coloured, row.cells))
        before = row.values
    return table


def _coloured(cell: Cell) -> Text:
    return Text(cell.text, STYLES.get(cell.kind, "red"))


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(map(_escaped, cells))} |"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "\\<")
