"""Chrome traces: one rank's, read and put on the clock that all ranks share; all of them, merged.

The ranks of a trial run on one host, whose monotonic clock they share. The profiler stamps with
a clock of its own, whose distance from that one is told by regions that were stamped by both.
Format: "Trace Event Format", which Perfetto (ui.perfetto.dev) opens.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, Sequence, Tuple

from bench.worker.profiling.breakdown import Piece
from bench.worker.profiling.labels import Event

BREAKDOWN_THREAD = 0
"""Of the lane that says what each moment counted as; above the real threads of a rank."""


class TraceError(Exception):
    """A trace does not hold what was recorded."""


def read(path: Path, stamps: Sequence[Tuple[str, int]], threads: Mapping[int, int]) -> List[Event]:
    """The events of a Chrome trace that last, on the clock of `stamps`.

    `stamps` has, in order, the name of each region that was opened on the main thread and the
    monotonic time just before [ns]. What lies between stamp and event can only be more than
    nothing, so that the smallest distance is the clocks' own. `threads` has the trace's thread of
    each thread number by which backward nodes name the one that made them.

    Raises:
        TraceError: the trace holds other regions of these names than `stamps`.
    """
    content = json.loads(path.read_text())
    events = [_event(one, threads) for one in content["traceEvents"] if one.get("ph") == "X"]
    names = {name for name, _ in stamps}
    opened = sorted(e.start for e in events if e.kind == "user_annotation" and e.name in names)
    if len(opened) != len(stamps) or not stamps:
        raise TraceError(f"the profiler kept {len(opened)} of {len(stamps)} regions in {path.name}")
    shift = min(start - stamp for start, (_, stamp) in zip(opened, stamps))
    return [e._replace(start=e.start - shift, end=e.end - shift) for e in events]


def merge(
    path: Path,
    ranks: Mapping[int, Sequence[Event]],
    lanes: Mapping[int, Sequence[Piece]],
    names: Mapping[int, str],
) -> None:
    """Write one trace (gzip) of all ranks: a process each, and above its threads the breakdown.

    `lanes` has each rank's breakdown, `names` what its process is called.
    """
    origin = min((e.start for events in ranks.values() for e in events), default=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines: List[Dict[str, Any]] = []
    for rank, events in sorted(ranks.items()):
        lines += _titles(rank, names[rank], {event.thread for event in events})
        lines += [_line(rank, origin, event) for event in events]
        lines += [
            {
                "ph": "X",
                "name": piece.category,
                "cat": "breakdown",
                "pid": rank,
                "tid": BREAKDOWN_THREAD,
                "ts": (piece.start - origin) / 1000,
                "dur": (piece.end - piece.start) / 1000,
            }
            for piece in lanes[rank]
        ]
    with gzip.open(path, "wt", encoding="utf-8", compresslevel=5) as file:
        json.dump({"displayTimeUnit": "ms", "traceEvents": lines}, file)


def _titles(rank: int, name: str, threads: Iterable[int]) -> List[Dict[str, Any]]:
    lines: List[Dict[str, Any]] = [
        {"ph": "M", "name": "process_name", "pid": rank, "args": {"name": name}},
        {"ph": "M", "name": "process_sort_index", "pid": rank, "args": {"sort_index": rank}},
    ]
    titles = {BREAKDOWN_THREAD: "breakdown"}
    titles.update({thread: f"thread {thread}" for thread in sorted(threads)})
    for index, (thread, title) in enumerate(titles.items()):
        about = {"ph": "M", "pid": rank, "tid": thread}
        lines.append({**about, "name": "thread_name", "args": {"name": title}})
        lines.append({**about, "name": "thread_sort_index", "args": {"sort_index": index}})
    return lines


def _line(rank: int, origin: int, event: Event) -> Dict[str, Any]:
    return {
        "ph": "X",
        "name": event.name,
        "cat": event.kind,
        "pid": rank,
        "tid": event.thread,
        "ts": (event.start - origin) / 1000,
        "dur": (event.end - event.start) / 1000,
    }


def _event(line: Dict[str, Any], threads: Mapping[int, int]) -> Event:
    arguments = line.get("args", {})
    thread = line.get("tid", 0)
    made_on = arguments.get("Fwd thread id")  # 0: no node
    start = _nanoseconds(line["ts"])
    return Event(
        name=line["name"],
        start=start,
        end=start + _nanoseconds(line["dur"]),
        thread=thread if isinstance(thread, int) else abs(hash(thread)) % 2**31,
        kind=line.get("cat", ""),
        sequence=arguments.get("Sequence number"),
        node=bool(made_on),
        forward_thread=threads.get(made_on) if made_on else None,
        correlation=arguments.get("correlation"),
        order=arguments.get("Ev Idx", 0),
    )


def _nanoseconds(microseconds: float) -> int:
    """Whole microseconds are kept exactly: since 1970 they are too many for a float's digits."""
    whole = int(microseconds)
    return whole * 1000 + round((microseconds - whole) * 1000)
