"""The audit of collectives as tables: all cases, the matrix with equal rows as one, bandwidth.

from analysis.collectives import matrix
from analysis.frame import load
matrix("results/collectives", load("results/collectives"))
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from analysis.columns import Content
from analysis.details import rows_with_details
from analysis.selection import text_of
from analysis.table import VARIANT, row_axes

NOT_RUN = "not run"
NOT_EMULATED = "not emulated"
"""The emulation of NCCL reaches `torch.distributed.nn.functional` and nothing else."""
SEVERITY = ("ok", "no gradient", "lost", "wrong", "error", "hang", "crash")
"""Kinds of outcomes, the worst last."""
CASE_COLUMNS = (
    "column",
    "round",
    "collective",
    "variant",
    "awaited",
    "group",
    "form",
    "kind",
    "cell",
)
PLACE = list(CASE_COLUMNS[2:7])
"""What tells one case from another."""
AWAITED = {
    "direct": "used directly",
    "wait_tensor": "wait_tensor(y)",
    "method": "y.wait()",
}
"""How the result y of a functional collective was awaited, in words."""
TIMING_COLUMNS = (
    "column",
    "collective",
    "ranks",
    "seq_len",
    "bytes",
    "count",
    "dtype",
    "direction",
    "seconds",
    "algorithm_bandwidth",
    "bus_bandwidth",
    "wrong",
    "error",
)


class Row(NamedTuple):
    """Cases that came out alike in every column."""

    collectives: tuple[str, ...]
    variants: tuple[str, ...]
    groups: tuple[str, ...]
    forms: tuple[str, ...]
    """Upstream gradients; `("",)` where it does not depend on them."""
    cells: tuple[str, ...]
    awaited: tuple[str, ...] = ("",)
    """Keys of `AWAITED`; `("",)` where it does not depend on them."""


class Matrix(NamedTuple):
    """What was found, equal rows taken together."""

    columns: list[str]
    """`torch-2.2 (2.2.2) gloo`: environment, observed torch, communication, and whatever else
    tells what was run apart (`world=8`)."""
    rows: list[Row]
    forms: tuple[str, ...]
    """All upstream gradients that were tried."""
    right: list[str]
    """Collectives that are ok in every case and column. What is ok everywhere has no row."""


def cases(folder: Path | str, frame: pd.DataFrame) -> pd.DataFrame:
    """One row per case and trial: `CASE_COLUMNS`.

    `form` is the layout of the upstream gradient, or the dtype where that is not float32; `kind`
    the worst of `SEVERITY` among the ranks; `cell` what each rank saw, in a few words.
    """
    found = [
        row for column, record in _by_column(folder, frame) for row in _cases_of(record, column)
    ]
    return pd.DataFrame(found, columns=list(CASE_COLUMNS))


def matrix(folder: Path | str, frame: pd.DataFrame) -> Matrix:
    """The audit's matrix, in the order in which the collectives were run."""
    table = cases(folder, frame)
    columns = list(dict.fromkeys(column for column, _ in _by_column(folder, frame)))
    missing = _missing(folder, frame)
    cells = {
        place: " / ".join(dict.fromkeys(values))
        for place, values in table.groupby([*PLACE, "column"], sort=False)["cell"]
    }
    places = list(dict.fromkeys(table[PLACE].itertuples(index=False, name=None)))
    tried = {place[0] for place in places}
    places += [(name, "", "", "", "") for _, name in missing if name not in tried]
    rows = [
        Row(
            (name,),
            (variant,),
            (group,),
            (form,),
            tuple(
                cells.get(
                    (name, variant, awaited, group, form, column),
                    missing.get((column, name), NOT_RUN),
                )
                for column in columns
            ),
            (awaited,),
        )
        for name, variant, awaited, group, form in dict.fromkeys(places)
    ]
    for field in ("forms", "awaited"):
        rows = _independent(rows, field)
    for field in ("groups", "variants"):
        rows = _merged(rows, field)
    right = _right(rows)
    rows = [row for row in rows if not _fine(row)]
    forms = tuple(dict.fromkeys(table.form))
    return Matrix(columns, _merged(rows, "collectives"), forms, right)


def timings(folder: Path | str, frame: pd.DataFrame) -> pd.DataFrame:
    """One row per collective, size and direction: `TIMING_COLUMNS`; the slowest group's.

    `seconds` and both bandwidths [bytes/s] are missing where `error` is not.
    """
    rows = [
        {**row, "column": column}
        for column, record in _by_column(folder, frame)
        for row in record["details"].get("timing", [])
    ]
    table = pd.DataFrame(rows, columns=list(TIMING_COLUMNS))
    keys = list(TIMING_COLUMNS[:8])
    slowest = {"seconds": "max", "algorithm_bandwidth": "min", "bus_bandwidth": "min"}
    return table.groupby(keys, sort=False, as_index=False).agg(
        {**slowest, "wrong": "sum", "error": "first"}
    )


def column_of(record: Content) -> str:
    """`torch-2.2 (2.2.2) gloo`: what a record's findings stand under."""
    config, worker = record["config"], record.get("worker") or {}
    version = str(worker.get("torch", "?")).split("+")[0]
    return f"{config['environment']['name']} ({version}) {config['comm']['name']}"


def _by_column(folder: Path | str, frame: pd.DataFrame) -> Iterator[tuple[str, Content]]:
    """Every record, with the column that its findings stand under."""
    told = ("environment", "comm", "dp")  # dp follows from sp and world
    others = [name for name in row_axes(frame) if name not in told] if len(frame) else []
    for row, record in rows_with_details(folder, frame, "collectives"):
        words = [
            str(row[name]) if name == VARIANT else f"{name}={text_of(row[name])}" for name in others
        ]
        yield " ".join([column_of(record), *filter(None, words)]), record


def variants_of(row: Row) -> str:
    """A row's arguments as text; `defaults` where they are among others.

    How the result is awaited follows where it matters: `dim=1; y.wait()`.
    """
    variants = ", ".join(variant or "defaults" for variant in row.variants if any(row.variants))
    awaited = ", ".join(AWAITED.get(one, one) for one in row.awaited if one)
    return "; ".join(filter(None, (variants, awaited)))


def is_emulated(column: str) -> bool:
    """Whether a column's communication is the emulation of NCCL."""
    return "nccl_over_gloo" in column.split(" ")


def kind_of(cell: str) -> str:
    """The worst of `SEVERITY` in a cell's text; `ok` also for cells that say nothing was run."""
    return max((_kind(part) for part in cell.replace(" / ", "; ").split("; ")), key=SEVERITY.index)


def says_nothing(cell: str) -> bool:
    """Whether nothing was run there."""
    return cell in (NOT_RUN, NOT_EMULATED, "absent", "unknown signature")


def _kind(text: str) -> str:
    if text == "ok" or says_nothing(text):
        return "ok"
    if text.startswith(("wrong", "gradient ×", "value ×")):
        return "wrong"
    return next((kind for kind in SEVERITY if text.startswith(kind)), "error")


def _cases_of(record: Content, column: str) -> Iterable[tuple[Any, ...]]:
    for case in record["details"].get("cases", []):
        form = case["layout"] if case["dtype"] == "float32" else case["dtype"]
        cell = _cell(case["outcomes"])
        identity = (case["collective"], case["variant"], _awaited(case), case["group"], form)
        yield (column, record["round"], *identity, kind_of(cell), cell)


def _awaited(case: dict[str, Any]) -> str:
    """How a case's result was awaited: records before schema version 3 know `.wait()` alone."""
    awaited: str | None = case.get("awaited")
    if awaited is None:
        return "method" if case["collective"].startswith("fc.") else ""
    return awaited


def _cell(outcomes: list[dict[str, Any]]) -> str:
    """`ok`, `wrong gradient (0,1); IndexError (2,3)`: no ranks where all saw the same."""
    texts: dict[str, list[int]] = {}
    for outcome in outcomes:
        texts.setdefault(_outcome(outcome), []).extend(outcome["ranks"])
    if len(texts) == 1:
        return next(iter(texts))
    return "; ".join(
        f"{text} ({','.join(map(str, sorted(ranks)))})"
        for text, ranks in texts.items()
        if text != "ok"
    )


def _outcome(outcome: dict[str, Any]) -> str:
    status = str(outcome["status"])
    if status == "error":
        return str(outcome["type"])
    for name in ("gradient", "value"):
        scale = (outcome.get(name) or {}).get("scale")
        if status == f"wrong {name}" and scale is not None:
            return f"{name} ×{scale:.3g}"
    return status


def _missing(folder: Path | str, frame: pd.DataFrame) -> dict[tuple[str, str], str]:
    """Why a column has no case of a collective: it lacks it, or cannot reach it."""
    why: dict[tuple[str, str], str] = {}
    names: dict[str, None] = {}
    for column, record in _by_column(folder, frame):
        details = record["details"]
        for listed in details.get("listed", []):
            why[column, listed["collective"]] = listed["status"]
        names |= dict.fromkeys(case["collective"] for case in details.get("cases", []))
    for column in dict.fromkeys(column for column, _ in _by_column(folder, frame)):
        if is_emulated(column):
            for name in {*names, *(name for _, name in why)}:
                if not name.startswith("nn."):
                    why[column, name] = NOT_EMULATED
    return why


def _right(rows: list[Row]) -> list[str]:
    """Collectives that are ok wherever they were run, and were run everywhere they could be."""
    fine: Counter[str] = Counter()
    for row in rows:
        fine[row.collectives[0]] += not _fine(row)
    return [name for name, faults in fine.items() if not faults]


def _fine(row: Row) -> bool:
    return set(row.cells) <= {"ok", NOT_EMULATED}


def _independent(rows: list[Row], field: str) -> list[Row]:
    """Rows that differ in `field` alone become one, with `("",)` there if it has all that were
    tried of that collective with those arguments.
    """
    tried: dict[tuple[Any, Any], set[str]] = {}
    for row in rows:
        tried.setdefault((row.collectives, row.variants), set()).update(getattr(row, field))
    return [
        row._replace(**{field: ("",)})
        if set(getattr(row, field)) == tried[row.collectives, row.variants]
        else row
        for row in _merged(rows, field)
    ]


def _merged(rows: list[Row], field: str) -> list[Row]:
    """Rows that differ in `field` alone become one."""
    same: dict[Row, list[str]] = {}
    for row in rows:
        same.setdefault(row._replace(**{field: ()}), []).extend(getattr(row, field))
    return [row._replace(**{field: tuple(values)}) for row, values in same.items()]


def summary(found: Matrix) -> str:
    """Who is silently wrong: the worst thing to be."""
    wrong = dict.fromkeys(
        name
        for row in found.rows
        if any(kind_of(cell) == "wrong" or "wrong" in cell for cell in row.cells)
        for name in row.collectives
    )
    if not wrong:
        failing = any(kind_of(cell) != "ok" for row in found.rows for cell in row.cells)
        return "No collective is silently wrong" + ("; some raise or hang" if failing else "")
    named = ", ".join(list(wrong)[:4]) + (f" and {len(wrong) - 4} others" if len(wrong) > 4 else "")
    return f"Silently wrong somewhere: {named}"
