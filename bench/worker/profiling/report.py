"""From what all ranks left to the record's `details` and the merged trace.

`details` holds, per rank and in seconds per step:

    breakdown    `seconds` by category, `sum_s` of them, `step_s` by the rank's own clock,
                 and `off_by`, the difference as a share of `step_s`; `measured_step_s` is the
                 median of the steps without the profiler; `unlaunched_s` of kernels whose launch
                 the profiler did not see, so that nothing tells what they serve
    overlap      `transfer_s` of communication, `hidden_s` of it behind computation
    collectives  rows of `volume.table`
    ulysses      rows of `volume.against_theory`, where the attention method is Ulysses
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence

from bench.trial import Configuration
from bench.worker.profiling import breakdown, device, labels, trace, volume
from bench.worker.profiling.breakdown import Call, Piece
from bench.worker.profiling.intervals import Interval
from bench.worker.profiling.labels import PREFIX, Event, Labelled

ADDS_UP_WITHIN = 0.02
"""Share of the step by which the categories may miss it."""
UNLAUNCHED_WITHIN = 0.01
"""Share of the step that may be kernels of unknown launch without a word about it."""
_HOST = ("cpu_op", "user_annotation", "cuda_runtime", "cuda_driver")


class Share(NamedTuple):
    """What one rank left."""

    rank: int
    events: List[Event]
    calls: List[Dict[str, Any]]
    """Fields of `recorder.Made`, in the order of the calls."""
    step_s: List[float]
    """Seconds of each profiled step by the rank's own clock, without the profiler's help."""
    measured_step_s: float
    """Median of the measured steps, which ran without the profiler."""
    on_gpu: bool = False


class Traced(NamedTuple):
    """A rank's share, read."""

    labelled: List[Labelled]
    """Host events of all threads, those of the main one first."""
    calls: List[Call]
    pieces: List[Piece]
    """What the rank did in its steps, waiting not yet told apart."""
    windows: List[Interval]
    """Of the steps."""
    unlaunched: int
    """Nanoseconds of kernels of unknown launch."""


def write(path: Path, shares: Sequence[Share], configuration: Configuration) -> Dict[str, Any]:
    """Write the merged trace to `path`; returns the `details` of the record."""
    traced = {share.rank: read(share) for share in shares}
    entries = breakdown.last_entries({rank: one.calls for rank, one in traced.items()})
    pieces = {
        rank: breakdown.without_waiting(one.pieces, entries[rank]) for rank, one in traced.items()
    }
    names = {rank: _name(rank, configuration) for rank in traced}
    trace.merge(path, {s.rank: s.events for s in shares}, pieces, names)
    details: Dict[str, Any] = {
        "profiled_steps": len(shares[0].step_s),
        "breakdown": [
            _breakdown(share, pieces[share.rank], traced[share.rank].unlaunched) for share in shares
        ],
        "overlap": [],
        "collectives": [],
        "ulysses": [],
    }
    details["adds_up"] = all(abs(one["off_by"]) <= ADDS_UP_WITHIN for one in details["breakdown"])
    for share in shares:
        one, steps = traced[share.rank], len(share.step_s)
        hidden = [
            breakdown.hidden(one.calls, entries[share.rank], pieces[share.rank], window)
            for window in one.windows
        ]
        details["overlap"].append(
            {
                "rank": share.rank,
                "transfer_s": sum(h.transfer for h in hidden) / steps,
                "hidden_s": sum(h.hidden for h in hidden) / steps,
            }
        )
        known = _known(one, entries[share.rank])
        mark = {"rank": share.rank}
        details["collectives"] += [{**mark, **row} for row in volume.table(known, steps)]
        if configuration.attention == "ulysses":
            rows = volume.against_theory(known, configuration, steps)
            details["ulysses"] += [{**mark, **row} for row in rows]
    details["bytes_agree"] = (
        all(row["agrees"] for row in details["ulysses"]) if details["ulysses"] else None
    )
    details["headline"] = headline(details)
    return details


def read(share: Share) -> Traced:
    """Label a rank's events, and find its collective calls and steps in them.

    On GPU a step's time is that of the kernels, on CPU that of the main thread.

    Raises:
        trace.TraceError: a call or a step has no region in the trace, or the rank computed on a
            GPU and the trace holds no kernel.
    """
    steps = [e for e in share.events if e.name == PREFIX + "step" and e.kind == "user_annotation"]
    windows = sorted((step.start, step.end) for step in steps)
    host = [e for e in share.events if e.kind in _HOST]
    regions = {labels.call_of(e.name): e for e in host if labels.is_collective(e.name)}
    if len(steps) != len(share.step_s) or len(regions) != len(share.calls):
        raise trace.TraceError(
            f"rank {share.rank}: the trace holds {len(steps)} of {len(share.step_s)} steps and "
            f"{len(regions)} of {len(share.calls)} collective calls"
        )
    phases = [made["phase"] for made in share.calls]
    made_by: Dict[labels.Key, str] = {}
    labelled: List[Labelled] = []
    launched: Dict[int, Labelled] = {}
    main = steps[0].thread
    for thread in [main, *sorted({e.thread for e in host} - {main})]:
        events = labels.nested([e for e in host if e.thread == thread])
        of_thread = labels.label(events, phases, made_by)
        launched.update(device.launches(events, of_thread))
        if thread == main:
            pieces = [p for w in windows for p in breakdown.timeline(of_thread, w)]
        labelled += of_thread
    kernels = [e for e in share.events if e.kind in device.KINDS]
    if share.on_gpu and not kernels:  # the host's times would pass for the GPU's
        raise trace.TraceError(
            f"rank {share.rank}: the profiler saw no kernel on the GPU: CUPTI recorded nothing, as "
            "under another profiler or where a container or the driver forbids it; "
            "scenario=train measures without it"
        )
    if kernels:
        pieces = [p for w in windows for p in device.pieces(kernels, launched, w)]
    calls = _calls(share, regions, host, device.call_spans(kernels, launched))
    return Traced(labelled, calls, pieces, windows, device.unlaunched(kernels, launched))


def _calls(
    share: Share,
    regions: Mapping[Optional[int], Event],
    host: Sequence[Event],
    on_device: Mapping[int, Interval],
) -> List[Call]:
    """The collective calls with their times: on the device, or where there is none, of the host."""
    waits = {labels.call_of(e.name): e for e in host if labels.is_wait(e.name)}
    calls = []
    for index, made in enumerate(share.calls):
        entered, left = regions[index].start, regions[index].end
        if index in on_device:
            entered, left = on_device[index]
        elif made["asynchronous"]:
            left = made["completed_ns"] or waits.get(index, regions[index]).end
        ranks = tuple(made["ranks"])
        calls.append(Call(made["name"], made["phase"], ranks, made["size"], entered, left))
    return calls


def headline(details: Dict[str, Any]) -> str:
    """The three largest parts of a step, means over ranks, and what disagrees."""
    total = dict.fromkeys(labels.CATEGORIES, 0.0)
    for one in details["breakdown"]:
        for category, value in one["seconds"].items():
            total[category] += value
    whole = sum(total.values()) or 1.0
    largest = sorted(total, key=lambda name: -total[name])[:3]
    parts = [f"{name.replace('_', ' ')} {100 * total[name] / whole:.0f} %" for name in largest]
    if not details["adds_up"]:
        parts.append("does not add up to the step")
    unknown = sum(one["unlaunched_s"] for one in details["breakdown"]) / whole
    if unknown > UNLAUNCHED_WITHIN:
        parts.append(f"kernels of unknown launch {100 * unknown:.0f} %")
    if details["bytes_agree"] is False:
        parts.append("bytes differ from theory")
    return ", ".join(parts)


def _breakdown(share: Share, pieces: Sequence[Piece], unlaunched: int) -> Dict[str, Any]:
    steps = len(share.step_s)
    seconds = {name: value / steps for name, value in breakdown.seconds(pieces).items()}
    step_s, sum_s = sum(share.step_s) / steps, sum(seconds.values())
    return {
        "rank": share.rank,
        "seconds": seconds,
        "sum_s": sum_s,
        "step_s": step_s,
        "off_by": sum_s / step_s - 1.0,
        "measured_step_s": share.measured_step_s,
        "unlaunched_s": unlaunched * 1e-9 / steps,
    }


def _known(traced: Traced, entries: Sequence[int]) -> List[volume.Known]:
    """The calls with the label and the backward node of their regions."""
    found: Dict[int, Labelled] = {}
    for one in traced.labelled:
        if one.call is not None:
            found.setdefault(one.call, one)
    return [
        volume.Known(call, found[index].label, entries[index], found[index].backward_of)
        for index, call in enumerate(traced.calls)
    ]


def _name(rank: int, configuration: Configuration) -> str:
    shard, replica = rank % configuration.sp, rank // configuration.sp
    return f"rank {rank} (shard {shard}, replica {replica})"
