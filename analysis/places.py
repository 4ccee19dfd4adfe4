"""Words for a set of points: `from 2,048 tokens on at sp=2, dp=2 with ZeRO 1 and 3`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from analysis.comparison import Point
from analysis.selection import text_of
from analysis.table import natural

LENGTH = "seq_len"

Split = tuple[Any, ...]
"""A point's values of all axes but the sequence length."""


def where(
    chosen: Sequence[Point], every: Sequence[Point], axes: Sequence[str]
) -> list[tuple[str, list[Point]]]:
    """`chosen` in as few pieces as words describe, each with its words (empty: all of `every`).

    Points are told apart by `axes`, the keys of their `axes` that vary within `every`.
    """
    splits = [name for name in axes if name != LENGTH]
    lengths: dict[str, list[Split]] = {}
    for split, points in _by_split(chosen, splits).items():
        lengths.setdefault(_length(points, _by_split(every, splits)[split]), []).append(split)
    found = []
    for words, members in lengths.items():
        for piece, inside in _pieces(set(members), set(_by_split(every, splits)), splits):
            points = [point for point in chosen if _split(point, splits) in inside]
            found.append((" ".join(part for part in (words, piece) if part), points))
    return found


def listed(values: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *first, last = values
    return f"{', '.join(first)} and {last}" if first else last


def _split(point: Point, splits: Sequence[str]) -> Split:
    return tuple(point.axes[name] for name in splits)


def _by_split(points: Sequence[Point], splits: Sequence[str]) -> Mapping[Split, list[Point]]:
    found: dict[Split, list[Point]] = {}
    for point in points:
        found.setdefault(_split(point, splits), []).append(point)
    return found


def _length(chosen: Sequence[Point], every: Sequence[Point]) -> str:
    """Which of a split's sequence lengths are chosen."""
    some, all_ = (sorted({p.axes.get(LENGTH, 0) for p in points}) for points in (chosen, every))
    if some == all_:
        return ""
    if len(some) > 1 and some == all_[-len(some) :]:
        return f"from {some[0]:,} tokens on"
    if len(some) > 1 and some == all_[: len(some)]:
        return f"up to {some[-1]:,} tokens"
    return f"at {listed(f'{n:,}' for n in some)} tokens"


def _pieces(
    chosen: set[Split], every: set[Split], splits: Sequence[str]
) -> list[tuple[str, set[Split]]]:
    """Cuts `chosen` until each piece is all that its values allow."""
    values = [{split[i] for split in chosen} for i in range(len(splits))]
    spanned = {s for s in every if all(v in allowed for v, allowed in zip(s, values))}
    if spanned == chosen:
        return [(_words(values, every, splits), chosen)]
    cuts = []
    for i, allowed in enumerate(values):
        if len(allowed) > 1:
            parts = ({s for s in chosen if s[i] == v} for v in sorted(allowed, key=natural))
            cuts.append([piece for part in parts for piece in _pieces(part, every, splits)])
    return min(cuts, key=len)


def _words(values: Sequence[set[Any]], every: set[Split], splits: Sequence[str]) -> str:
    """The axes that are narrower here than in `every`."""
    plain, last = [], []
    for i, name in enumerate(splits):
        if values[i] == {split[i] for split in every}:
            continue
        text = listed(text_of(value) for value in sorted(values[i], key=natural))
        if name == "zero":
            last.append(f"with ZeRO {text}")
        elif name == "variant":
            words = listed(str(value) for value in values[i] if value)
            last.append(f"({words})" if words else "(the other)")
        elif len(values[i]) == 1 or not (name == "dp" and "sp" in splits):
            plain.append(f"{name}={text}")  # several dp follow from several sp
    return " ".join([*([f"at {', '.join(plain)}"] if plain else []), *last])
