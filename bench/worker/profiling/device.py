"""What a GPU did, moment by moment: its kernels, labelled by where the host launched them."""

from __future__ import annotations

from typing import Dict, List, Mapping, Sequence, Tuple

from bench.worker.profiling.breakdown import Piece
from bench.worker.profiling.intervals import Interval, innermost
from bench.worker.profiling.labels import Event, Labelled

KINDS = ("kernel", "gpu_memcpy", "gpu_memset")
LAUNCHES = ("cuda_runtime", "cuda_driver")
_UNKNOWN = Labelled(0, 0, "rest", None, "")
_IDLE = Labelled(0, 0, "idle", None, "")


def launches(events: Sequence[Event], labelled: Sequence[Labelled]) -> Dict[int, Labelled]:
    """The label of each launch among host events, by the correlation that its kernel has too."""
    return {
        event.correlation: one
        for event, one in zip(events, labelled)
        if event.correlation is not None and event.kind in LAUNCHES
    }


def pieces(
    kernels: Sequence[Event], launched: Mapping[int, Labelled], window: Interval
) -> List[Piece]:
    """Cut `window` by what the device did; where nothing ran, it was idle.

    Computation has precedence over a collective's kernel that runs beside it: what is left to
    communication is what nothing hides.
    """
    computing: List[Event] = []
    moving: List[Event] = []
    for kernel in kernels:
        (computing if _label(kernel, launched).call is None else moving).append(kernel)
    over, under = innermost(_spans(computing), window), innermost(_spans(moving), window)
    found: List[Piece] = []
    i = j = 0
    while i < len(over) and j < len(under):
        start, end = max(over[i].start, under[j].start), min(over[i].end, under[j].end)
        if over[i].which >= 0:
            one = _label(computing[over[i].which], launched)
        else:
            one = _label(moving[under[j].which], launched) if under[j].which >= 0 else _IDLE
        _append(found, Piece(start, end, one.label, one.call))
        i, j = i + (over[i].end == end), j + (under[j].end == end)
    return found


def _append(pieces_: List[Piece], piece: Piece) -> None:
    """Add a piece, as one with the last where both are the same."""
    if pieces_ and pieces_[-1][2:] == piece[2:]:
        pieces_[-1] = pieces_[-1]._replace(end=piece.end)
    else:
        pieces_.append(piece)


def call_spans(kernels: Sequence[Event], launched: Mapping[int, Labelled]) -> Dict[int, Interval]:
    """When each collective call was on the device: from its first kernel to the end of its last."""
    found: Dict[int, Interval] = {}
    for kernel in kernels:
        call = _label(kernel, launched).call
        if call is not None:
            start, end = found.get(call, (kernel.start, kernel.end))
            found[call] = (min(start, kernel.start), max(end, kernel.end))
    return found


def unlaunched(kernels: Sequence[Event], launched: Mapping[int, Labelled]) -> int:
    """Nanoseconds of kernels whose launch is in no host event; they count as the rest."""
    return sum(one.end - one.start for one in kernels if one.correlation not in launched)


def _label(kernel: Event, launched: Mapping[int, Labelled]) -> Labelled:
    if kernel.correlation is None:
        return _UNKNOWN
    return launched.get(kernel.correlation, _UNKNOWN)


def _spans(events: Sequence[Event]) -> List[Tuple[int, int]]:
    return [(event.start, event.end) for event in events]
