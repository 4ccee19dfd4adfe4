"""Time of a step and of its phases: CUDA events on GPU, the monotonic clock on CPU."""

from __future__ import annotations

import time
from typing import Any, Dict, List

import torch

from bench.record import PHASES

_MARKS = len(PHASES) + 1  # the start, and the end of every phase


class CpuClock:
    """Nanosecond stamps; computations on CPU are over when their call returns."""

    def __init__(self) -> None:
        self._stamps: List[int] = []

    def mark(self) -> None:
        """Note the start of a step, or the end of a phase."""
        self._stamps.append(time.perf_counter_ns())

    def synchronize(self) -> None:
        """Nothing is in flight on CPU."""

    def seconds(self) -> Dict[str, List[float]]:
        """Seconds per step: of every phase, and of `step`, in order of the steps."""
        steps = _split(self._stamps)
        between = lambda start, stop: (stop - start) * 1e-9  # noqa: E731
        return _durations(steps, between)


class CudaClock:
    """Events on the current stream; read once, after the last step."""

    def __init__(self) -> None:
        self._events: List[torch.cuda.Event] = []

    def mark(self) -> None:
        """Record an event on the current stream."""
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self._events.append(event)

    def synchronize(self) -> None:
        """Wait until the device has done everything."""
        torch.cuda.synchronize()

    def seconds(self) -> Dict[str, List[float]]:
        """Seconds per step, as `CpuClock.seconds`."""
        torch.cuda.synchronize()
        between = lambda start, stop: start.elapsed_time(stop) * 1e-3  # noqa: E731
        return _durations(_split(self._events), between)


def _split(marks: List[Any]) -> List[List[Any]]:
    return [marks[i : i + _MARKS] for i in range(0, len(marks), _MARKS)]


def _durations(steps: List[List[Any]], between: Any) -> Dict[str, List[float]]:
    durations = {
        phase: [between(marks[i], marks[i + 1]) for marks in steps]
        for i, phase in enumerate(PHASES)
    }
    durations["step"] = [between(marks[0], marks[-1]) for marks in steps]
    return durations
