"""What each moment of a rank was spent on, told from the names and the nesting of its events.

An event takes the label of the event around it unless its own name says otherwise. A node of
the backward graph takes the label of the operation that made it: the profiler gives both the
same sequence number. Every thread counts on its own: on a GPU, backward runs on a thread of
autograd's, and what activation checkpointing computes again there is numbered anew from 0. So
only the thread and the number together tell which operation made a node.
"""

from __future__ import annotations

from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

Key = Tuple[Optional[int], int]
"""An operation with a backward: its thread, and its number among that thread's."""

CATEGORIES = (
    "attention",
    "matrix",
    "all_to_all",
    "gradient_reduction",
    "parameter_gathering",
    "loss_aggregation",
    "optimizer",
    "waiting",
    "rest",
    "idle",
)
"""Where a step's time goes. `matrix`: matrix products outside attention; `waiting`: inside a
collective until the last rank has entered it; `idle`: only on GPU, no kernel at all."""

PREFIX = "spbench/"
"""Of the regions that spbench itself names."""
_COLLECTIVE, _WAIT = PREFIX + "collective/", PREFIX + "wait/"

_REGIONS = {
    "attention": "attention",
    "all_to_all": "all_to_all",
    "gradient_reduction": "gradient_reduction",
    "aggregate": "loss_aggregation",
    "optimizer": "optimizer",
}
_MATRIX = frozenset(
    f"aten::{name}" for name in ("mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "_scaled_mm")
)
_NODE = "autograd::engine::evaluate_function: "
_TO_BACKWARD = ("attention", "loss_aggregation", "all_to_all")
"""What a node inherits from the operation that made it; the rest is told by its operations."""
_REDUCTIONS = ("all_reduce", "reduce", "reduce_scatter", "reduce_scatter_tensor")


class Event(NamedTuple):
    """One event of a trace, on the clock that all ranks share."""

    name: str
    start: int
    """[ns]"""
    end: int
    thread: int
    kind: str
    """`cpu_op`, `user_annotation`, `kernel`, …"""
    sequence: Optional[int] = None
    """Sequence number of an operation with a backward, and of its node."""
    node: bool = False
    """Whether it runs in backward."""
    forward_thread: Optional[int] = None
    """Of a node: the thread of the operation that made it; None: the profiler saw no such one."""
    correlation: Optional[int] = None
    """Ties a kernel to its launch."""
    order: int = 0
    """Of events that began together, the outer has the lower."""

    @property
    def key(self) -> Optional[Key]:
        """What an operation and the node that it made have in common."""
        if self.sequence is None:
            return None
        return (self.forward_thread if self.node else self.thread, self.sequence)


class Labelled(NamedTuple):
    """An event's span and what it was spent on."""

    start: int
    end: int
    label: str
    call: Optional[int]
    """Index of the collective call that it belongs to."""
    backward_of: str
    """Name of the innermost backward node around it; empty outside of backward."""


def nested(events: Sequence[Event]) -> List[Event]:
    """The events of one thread in order of their start, what is outside first."""
    return sorted(events, key=lambda e: (e.start, -e.end, e.order))


def label(
    events: Sequence[Event], phases: Sequence[str], made_by: Optional[Dict[Key, str]] = None
) -> List[Labelled]:
    """Label the host events of one thread, which come in the order of `nested`.

    `phases` has, for each collective call, the phase in which it was made. `made_by` (key: label)
    learns what makes nodes; a thread that runs backward alone is given what the forward's thread
    taught it.
    """
    made_by = {} if made_by is None else made_by
    found: List[Labelled] = []
    stack: List[Labelled] = []
    for event in events:
        while stack and stack[-1].end <= event.start:
            stack.pop()
        around = stack[-1] if stack else Labelled(event.start, event.end, "rest", None, "")
        # stamps of whole microseconds let a child seem to outlive its parent
        end = min(event.end, around.end) if stack else event.end
        one = Labelled(event.start, end, *_meaning(event, around, made_by, phases))
        if event.key is not None and not event.node:
            made_by[event.key] = one.label
        found.append(one)
        stack.append(one)
    return found


def is_collective(name: str) -> bool:
    """Whether a region is a collective call (`spbench/collective/3 all_reduce`)."""
    return name.startswith(_COLLECTIVE)


def is_wait(name: str) -> bool:
    """Whether a region waits for an asynchronous call (`spbench/wait/3 all_reduce`)."""
    return name.startswith(_WAIT)


def call_of(name: str) -> Optional[int]:
    """Index of the collective call that a region stands for."""
    for start in (_COLLECTIVE, _WAIT):
        if name.startswith(start):
            return int(name[len(start) :].split(" ", 1)[0])
    return None


def purpose(name: str, phase: str, around: str) -> str:
    """What a collective call serves, where the region around it does not say.

    In forward and backward of ZeRO 3, and after ZeRO's step, parameters are gathered; what is
    reduced in backward are gradients.
    """
    if around in ("all_to_all", "loss_aggregation", "gradient_reduction"):
        return around
    if name.startswith("all_gather") or name == "broadcast":
        return "parameter_gathering"
    if name.startswith("all_to_all"):
        return "all_to_all"
    if phase == "backward" and name in _REDUCTIONS:
        return "gradient_reduction"
    return around


def _meaning(
    event: Event, around: Labelled, made_by: Dict[Key, str], phases: Sequence[str]
) -> Tuple[str, Optional[int], str]:
    """Label, call and backward node of an event inside `around`."""
    name = event.name
    call = call_of(name)
    if call is not None:
        what = purpose(name.split(" ", 1)[-1], phases[call], around.label)
        return what, call, around.backward_of
    if name.startswith(PREFIX):
        label_ = _REGIONS.get(name[len(PREFIX) :], around.label)
        return label_, around.call, around.backward_of
    if name.startswith(_NODE):
        made = made_by.get(event.key, "") if event.key is not None else ""
        label_ = made if made in _TO_BACKWARD else around.label
        return label_, around.call, name[len(_NODE) :]
    if name in _MATRIX and around.label == "rest":
        return "matrix", around.call, around.backward_of
    return around.label, around.call, around.backward_of
