"""The audit matrix: which gradient is right, by aggregation, mask and ZeRO stage of a version.

A raw cell is one environment, one ZeRO stage and one value of every other axis; it takes all
rounds together and says so where they differ. Facets put environments with equal cells
together, and rows with equal cells: each raw cell is in exactly one row of one facet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd

from analysis import references
from analysis.selection import text_of
from analysis.table import NOT_COMPARED, VARIANT, natural, row_axes, varying_axes
from analysis.wording import marked
from bench.record import MODE_MARKS

NAMED_BY_STATUS = ("oom", "hang", "timeout", "unsupported", "environment")
"""Failures that their status names best; an error or a crash is named by what was raised."""

FRACTIONS = {"×1/2": "×½", "×1/3": "×⅓", "×1/4": "×¼", "×1/8": "×⅛"}
MASKS = ("none", "prompt", "ragged", "empty_shard")
ALWAYS = ("loss", "split", "mask")
"""Axes of rows that every matrix shows."""
NOT_OF_ROWS = ("environment", "zero", "world", "sp", "dp", *ALWAYS)
OPTIONS = "DeepSpeed options"


class Cell(NamedTuple):
    """What came out of one case."""

    kind: str
    """`match`, `scaled`, `wrong`, `none`; `failed`; `mixed` where rounds or ranks disagree;
    `unknown` where nothing was compared or run."""
    text: str
    """`×1`, `×½`, `wrong`, `none`, an exception's name, or several with their counts."""
    detail: str = ""
    """What failed, where and on which ranks."""


NOT_RUN = Cell("unknown", "not run")


class Row(NamedTuple):
    """A row of a matrix; each axis has one value, or several whose cells are equal."""

    values: tuple[str, ...]
    cells: tuple[Cell, ...]
    """One for each group of ZeRO stages."""


@dataclass(frozen=True)
class Facet:
    """The matrix of environments that came out alike."""

    environments: tuple[str, ...]
    versions: tuple[str, ...]
    """`torch 2.2.2, DeepSpeed 0.18.2`, as the workers saw them."""
    axes: tuple[str, ...]
    stages: tuple[tuple[int, ...], ...]
    """The columns: ZeRO stages, those together that are alike in every row."""
    rows: tuple[Row, ...]
    right: Mapping[int, tuple[str, ...]]
    """By ZeRO stage: the aggregations that match in every case of the facet."""
    swept: Mapping[str, tuple[str, ...]]
    """By axis: the values that its rows call `all 3`."""


def is_audit(frame: pd.DataFrame) -> bool:
    """Whether trials were made for their gradients: one step is no measure of time."""
    compared = frame.gradient_check != "off"
    return bool(len(frame)) and bool((frame.steps == 1).all() and compared.all())


def cases(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per raw cell: `environment`, the row axes as text, `zero`, and a `Cell`'s fields.

    `frame` is `analysis.frame.load`'s; `trials` counts the rounds in the cell; `beside_other` says
    what the gradient is beside the other reference, where that is another thing.
    """
    named = frame.assign(split=[f"sp={sp} dp={dp}" for sp, dp in zip(frame.sp, frame.dp)])
    axes = axes_of(frame)
    if OPTIONS in axes:
        named[OPTIONS] = _options(frame)
    keys = ["environment", *axes, "zero"]
    for name in axes:
        named[name] = named[name].map(text_of)
    rows = [
        {
            **dict(zip(keys, key)),
            **cell_of(trials)._asdict(),
            "beside_other": references.words(trials),
            "trials": len(trials),
        }
        for key, trials in named.groupby(keys, sort=False)
    ]
    return pd.DataFrame(rows, columns=[*keys, *Cell._fields, "beside_other", "trials"])


def axes_of(frame: pd.DataFrame) -> list[str]:
    """The axes of the rows: aggregation, split, mask, and whatever else varies."""
    varying = [name for name in row_axes(frame) if name not in NOT_OF_ROWS]
    plain = [name for name in varying if not name.startswith("deepspeed.")]
    loss, split, mask = ALWAYS
    options = [OPTIONS] if len(plain) < len(varying) else []
    return [loss, split, *options, *plain, mask]


_READ = [
    *("status", "failure", "gradient_mode", "gradient_reason", "gradient_verdict"),
    *("gradient_scale", "gradient_scale_label", "gradient_ranks_agree"),
]


def cell_of(trials: pd.DataFrame) -> Cell:
    """What all rounds of one case say together."""
    found = [_outcome(trial) for trial in trials[_READ].itertuples(index=False)]
    details = "; ".join(dict.fromkeys(cell.detail for cell in found if cell.detail))
    counts = Counter(cell.text for cell in found)
    if len(counts) == 1:
        return found[0]._replace(detail=details)
    shares = (f"{text} {count}/{len(found)}" for text, count in counts.most_common())
    return Cell("mixed", ", ".join(shares), details)


def facets(frame: pd.DataFrame) -> list[Facet]:
    """The matrices of `analysis.frame.load`'s frame, in the order of their environments."""
    table, axes = cases(frame), axes_of(frame)
    stages = tuple(sorted(set(table.zero)))
    alike: dict[frozenset[Any], list[str]] = {}
    for name in sorted(table.environment.unique(), key=natural):
        raw = table[table.environment == name]
        parts = zip(raw[[*axes, "zero"]].itertuples(index=False, name=None), raw.text)
        alike.setdefault(frozenset(parts), []).append(name)
    return [_facet(frame, table, names, axes, stages) for names in alike.values()]


def sentences(frame: pd.DataFrame) -> list[str]:
    """Which aggregations are right in every case, a sentence for each facet."""
    said = []
    for facet in facets(frame):
        where = ", ".join(facet.environments)
        members = frame[frame.environment.isin(facet.environments)]
        compared = members[members.gradient_verdict.notna()]
        if compared.empty and (members.status == "ok").all():
            said.append(f"{where}: no gradient was compared.")
            continue
        by_losses: dict[tuple[str, ...], list[str]] = {}
        for stage, losses in facet.right.items():
            by_losses.setdefault(losses, []).append(str(stage))
        parts = [
            f"at ZeRO {', '.join(stages)}: {', '.join(losses) or 'no aggregation'}"
            for losses, stages in by_losses.items()
        ]
        said.append(f"{where}, right in every case{_by(compared)} {'; '.join(parts)}.")
    return said


def _by(compared: pd.DataFrame) -> str:
    """` (directional)` where gradients were judged by something else than their own reference."""
    modes = compared.gradient_mode.unique()
    marks = [MODE_MARKS[mode] for mode in MODE_MARKS if mode in modes]
    some = "some by " if marks and len(modes) > len(marks) else ""
    return f" ({some}{', '.join(marks)})" if marks else ""


def _facet(
    frame: pd.DataFrame,
    table: pd.DataFrame,
    environments: Sequence[str],
    axes: Sequence[str],
    stages: tuple[int, ...],
) -> Facet:
    raw = table[table.environment == environments[0]]
    members = frame[frame.environment.isin(environments)]
    seen = members[["torch", "deepspeed"]].dropna().drop_duplicates()
    versions = sorted((f"torch {t}, DeepSpeed {d}" for t, d in seen.to_numpy()), key=natural)
    others = [name for name in axes if name not in ("loss", VARIANT)]
    right = {stage: _right(of_stage, others) for stage, of_stage in raw.groupby("zero")}
    rows, columns = _columns(list(_rows(raw, axes, stages)), stages)
    swept = {name: _sorted(name, raw[name].unique()) for name in axes}
    named = {
        name: values
        for index, (name, values) in enumerate(swept.items())
        if any(row.values[index] == _all(values) for row in rows)
    }
    return Facet(tuple(environments), tuple(versions), tuple(axes), columns, rows, right, named)


def _right(of_stage: pd.DataFrame, axes: list[str]) -> tuple[str, ...]:
    """The aggregations that match in every case; one that lacks cases of another is none.

    `axes` tell cases apart; of several results of a case all must match.
    """
    by_loss = dict(list(of_stage.groupby("loss")))
    counts = {loss: len(cells[axes].drop_duplicates()) for loss, cells in by_loss.items()}
    return tuple(
        loss
        for loss, cells in by_loss.items()
        if counts[loss] == max(counts.values()) and (cells.kind == "match").all()
    )


def _columns(
    rows: list[Row], stages: Sequence[int]
) -> tuple[tuple[Row, ...], tuple[tuple[int, ...], ...]]:
    """Put stages together whose cells look alike in all rows."""
    alike: dict[Any, list[int]] = {}
    for index in range(len(stages)):
        look = tuple((row.cells[index].kind, row.cells[index].text) for row in rows)
        alike.setdefault(look, []).append(index)
    groups = list(alike.values())
    merged = tuple(
        Row(row.values, tuple(_merged([row.cells[i] for i in group]) for group in groups))
        for row in rows
    )
    return merged, tuple(tuple(stages[i] for i in group) for group in groups)


def _rows(raw: pd.DataFrame, axes: Sequence[str], stages: Sequence[int]) -> Iterable[Row]:
    """Rows with equal cells together; every axis but the aggregation may take several values."""
    everything = {name: _sorted(name, raw[name].unique()) for name in axes}
    rows: list[tuple[dict[str, tuple[str, ...]], tuple[Cell, ...]]] = []
    for key, group in raw.groupby(list(axes), sort=False):
        by_stage = {
            zero: Cell(*cell)
            for zero, *cell in group[["zero", *Cell._fields]].itertuples(index=False, name=None)
        }
        values: dict[str, tuple[str, ...]] = {name: (value,) for name, value in zip(axes, key)}
        rows.append((values, tuple(by_stage.get(stage, NOT_RUN) for stage in stages)))
    for name in reversed([axis for axis in axes if axis not in ("loss", VARIANT)]):
        rows = _joined(rows, name)
    rows.sort(key=lambda row: [[_rank(n, v) for v in row[0][n]] for n in axes])
    for values, cells in rows:
        yield Row(tuple(_together(values[name], everything[name]) for name in axes), cells)


def _joined(
    rows: list[tuple[dict[str, tuple[str, ...]], tuple[Cell, ...]]], name: str
) -> list[tuple[dict[str, tuple[str, ...]], tuple[Cell, ...]]]:
    """Put rows together that differ in the axis `name` alone."""
    joined: dict[Any, tuple[dict[str, tuple[str, ...]], list[tuple[Cell, ...]]]] = {}
    for values, cells in rows:
        others = tuple((axis, value) for axis, value in values.items() if axis != name)
        shown = tuple((cell.kind, cell.text) for cell in cells)
        found = joined.setdefault((others, shown), ({**values, name: ()}, []))
        found[0][name] = (*found[0][name], *values[name])
        found[1].append(cells)
    return [
        ({**values, name: _sorted(name, values[name])}, tuple(map(_merged, zip(*cells))))
        for values, cells in joined.values()
    ]


def _merged(cells: Sequence[Cell]) -> Cell:
    """One of several cells that look alike, with the details of all."""
    details = dict.fromkeys(cell.detail for cell in cells if cell.detail)
    return cells[0]._replace(detail="; ".join(details))


def _together(values: Sequence[str], everything: Sequence[str]) -> str:
    if len(values) > 1 and len(values) == len(everything):
        return _all(everything)
    return ", ".join(values)


def _all(swept: Sequence[str]) -> str:
    """`all 3`: every value that was swept, which are named below the matrix."""
    return f"all {len(swept)}" if len(swept) > 1 else ""


def named(facet: Facet) -> list[str]:
    """`all 3 of mask: none, prompt, ragged`: what `all` stands for in a matrix."""
    return [
        f"{_all(values)} of {name}: {', '.join(values)}" for name, values in facet.swept.items()
    ]


def _sorted(name: str, values: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(values, key=lambda value: _rank(name, value)))


def _rank(name: str, value: str) -> Any:
    if name == "mask" and value in MASKS:
        return ((False, float(MASKS.index(value)), ""),)
    if name == OPTIONS and value == "defaults":
        return ()
    return natural(value)


def _outcome(trial: Any) -> Cell:
    """What one trial says."""
    if trial.status != "ok":
        failure = str(trial.failure or trial.status)
        return Cell("failed", _failure_name(trial.status, failure), failure)
    if not isinstance(trial.gradient_verdict, str):
        return Cell("unknown", NOT_COMPARED, _why(trial.gradient_reason))
    verdict = trial.gradient_verdict
    text = "×1" if verdict == "match" else verdict
    if verdict == "scaled":
        text = FRACTIONS.get(trial.gradient_scale_label, trial.gradient_scale_label)
    text = marked(text, trial.gradient_mode)
    known = not pd.isna(trial.gradient_ranks_agree) and not pd.isna(trial.gradient_scale)
    if known and not trial.gradient_ranks_agree:  # without a scale nothing could be compared
        return Cell("mixed", f"{text}, ranks differ")
    return Cell(verdict, text)


def _why(reason: Any) -> str:
    """Why nothing was compared; empty where nobody asked for it."""
    return reason.removeprefix(f"{NOT_COMPARED}: ") if isinstance(reason, str) else ""


def _failure_name(status: str, failure: str) -> str:
    """`IndexError`, or several where ranks raised different things; else the status."""
    if status in NAMED_BY_STATUS:
        return status
    events = (event.partition(" in ") for event in failure.split("; "))
    return ", ".join(sorted({what for what, place, _ in events if place})) or status


def _options(frame: pd.DataFrame) -> list[str]:
    """`reduce_scatter=false`, or `defaults`: the DeepSpeed options that vary, as one axis."""
    names = [name for name in varying_axes(frame) if name.startswith("deepspeed.")]
    short = {n: n.removeprefix("deepspeed.").removeprefix("zero_optimization.") for n in names}
    return [
        ", ".join(f"{short[n]}={text_of(v)}" for n, v in zip(names, values) if text_of(v) != "none")
        or "defaults"
        for values in frame[names].itertuples(index=False, name=None)
    ]
