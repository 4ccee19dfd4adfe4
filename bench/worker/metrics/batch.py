"""Seconds of one call, from a batch of calls that are made one after another.

A single call that is timed on its own has the start and the end of the measurement in it: on a
GPU the launch and the synchronisation, which take longer than a small collective does.
"""

from __future__ import annotations

import time
from typing import Any, Callable

import torch

CALLS = 20
"""In a batch, where a call is short."""


def seconds_per_call(work: Callable[[], Any], calls: int, device: torch.device) -> float:
    """Call `work` `calls` times; the seconds of one.

    On a GPU the calls are enqueued between two events, behind one more call, which is not timed:
    a collective ends nowhere before all ranks have begun it, so that no rank's lateness is timed.
    """
    return (_on_gpu if device.type == "cuda" else _on_cpu)(work, calls) / calls


def _on_gpu(work: Callable[[], Any], calls: int) -> float:
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    work()
    begin.record()
    for _ in range(calls):
        work()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) * 1e-3


def _on_cpu(work: Callable[[], Any], calls: int) -> float:
    begin = time.perf_counter()
    for _ in range(calls):
        work()
    return time.perf_counter() - begin
