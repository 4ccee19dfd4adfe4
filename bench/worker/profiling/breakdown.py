"""Seconds of a step by category, and how much of the communication computation hides.

Waiting and transfer are told apart by when each rank entered a collective: until the last one
has, the others wait for it; from then on bytes move. All stamps are nanoseconds on one clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from bench.worker.profiling.intervals import (
    Interval,
    innermost,
    intersect,
    length,
    union,
)
from bench.worker.profiling.labels import CATEGORIES, Labelled

Identity = Tuple[Tuple[int, ...], int]
"""A collective on all its ranks: the ranks, and the how-manieth call among them it is."""


@dataclass(frozen=True)
class Call:
    """One collective call of one rank."""

    name: str
    phase: str
    ranks: Tuple[int, ...]
    size: int
    """Bytes that the rank handed in."""
    entered: int
    """When this rank called it [ns]."""
    left: int
    """When it was over for this rank [ns]: its return, or the completion of an asynchronous one."""


class Piece(NamedTuple):
    """A stretch of a rank's time."""

    start: int
    end: int
    category: str
    call: Optional[int] = None


def identities(calls: Sequence[Call]) -> List[Identity]:
    """Who a rank's calls are, so that other ranks' calls can be matched with them.

    Ranks of a group call its collectives in one order, as every backend demands.
    """
    seen: Dict[Tuple[int, ...], int] = {}
    found = []
    for call in calls:
        number = seen.get(call.ranks, 0)
        seen[call.ranks] = number + 1
        found.append((call.ranks, number))
    return found


def last_entries(ranks: Mapping[int, Sequence[Call]]) -> Dict[int, List[int]]:
    """For each rank and call, when the last of the call's ranks entered it [ns].

    A call that another rank does not know under the same name counts as entered by all when
    this rank entered it: nothing is said of its waiting.
    """
    entries: Dict[Tuple[Identity, str], List[int]] = {}
    named = {rank: identities(calls) for rank, calls in ranks.items()}
    for rank, calls in ranks.items():
        for identity, call in zip(named[rank], calls):
            entries.setdefault((identity, call.name), []).append(call.entered)
    found: Dict[int, List[int]] = {}
    for rank, calls in ranks.items():
        found[rank] = []
        for identity, call in zip(named[rank], calls):
            known = entries[identity, call.name]
            whole = len(known) == len(call.ranks)
            found[rank].append(max(known) if whole else call.entered)
    return found


def timeline(labelled: Sequence[Labelled], window: Interval) -> List[Piece]:
    """What the host did in `window`, moment by moment; what no event covers is the rest."""
    pieces = []
    for segment in innermost([(one.start, one.end) for one in labelled], window):
        if segment.which < 0:
            pieces.append(Piece(segment.start, segment.end, "rest"))
        else:
            one = labelled[segment.which]
            pieces.append(Piece(segment.start, segment.end, one.label, one.call))
    return pieces


def without_waiting(pieces: Sequence[Piece], entries: Sequence[int]) -> List[Piece]:
    """Cut the pieces of collective calls at `entries`, the last rank's entry of each call."""
    found: List[Piece] = []
    for piece in pieces:
        if piece.call is None or entries[piece.call] <= piece.start:
            found.append(piece)
            continue
        all_in = min(entries[piece.call], piece.end)
        found.append(piece._replace(end=all_in, category="waiting"))
        if all_in < piece.end:
            found.append(piece._replace(start=all_in))
    return found


def seconds(pieces: Sequence[Piece]) -> Dict[str, float]:
    """Seconds by category, in the order of `CATEGORIES`."""
    total = dict.fromkeys(CATEGORIES, 0)
    for piece in pieces:
        total[piece.category] += piece.end - piece.start
    return {category: value * 1e-9 for category, value in total.items()}


class Hidden(NamedTuple):
    """Communication of a rank [s], each moment counted once."""

    transfer: float
    """While bytes moved: from the last rank's entry to the end."""
    hidden: float
    """The part of it in which this rank did something else than wait for it."""


def hidden(
    calls: Sequence[Call], entries: Sequence[int], pieces: Sequence[Piece], window: Interval
) -> Hidden:
    """How much of the communication in `window` was hidden behind computation."""
    moving = [(entry, call.left) for call, entry in zip(calls, entries) if len(call.ranks) > 1]
    moving = intersect(moving, [window])
    working = union(
        (piece.start, piece.end)
        for piece in pieces
        if piece.call is None and piece.category != "idle"
    )
    return Hidden(length(moving) * 1e-9, length(intersect(moving, working)) * 1e-9)
