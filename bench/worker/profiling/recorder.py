"""Named regions and collective calls of a rank, while it is active; nothing of it stays after.

A step that is profiled is a slower one: calls are wrapped, and every operation is written down.
So steps are timed first and profiled then.
"""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional, Tuple

import deepspeed.sequence.layer as sequence_layer
import torch.distributed as dist
from torch.autograd import DeviceType
from torch.profiler import record_function

from bench.record import PHASES
from bench.worker.metrics.collectives import CollectiveCounter, handed_in_bytes
from bench.worker.model import Attention, FeedForward
from bench.worker.profiling.labels import PREFIX
from bench.worker.training import Clock

_REDUCING = ("allreduce_gradients", "average_tensor", "reduce_ipg_grads")
"""Methods of DeepSpeed's engine and of its ZeRO optimizers that reduce gradients, copies
included; a version that lacks one has its time in the rest of backward."""


@dataclass
class Made:
    """A collective call that this rank made; its times are in the trace."""

    name: str
    phase: str
    step: int
    ranks: Tuple[int, ...]
    size: int
    """Bytes handed in."""
    completed_ns: Optional[int] = None
    """When an asynchronous one was over, as `time.perf_counter_ns` says."""
    asynchronous: bool = False


def threads_of(profiler: Any) -> Dict[int, int]:
    """The system's number of each thread that torch's profiler numbered; `profiler` has ended.

    A backward node names the thread of its forward by the profiler's number, a line of the
    exported trace its own thread by the system's.
    """
    events = profiler.profiler.kineto_results.events()
    return {
        event.start_thread_id(): event.device_resource_id()
        for event in events
        if event.device_type() == DeviceType.CPU and event.sequence_nr() >= 0
    }


class Recorder(CollectiveCounter):
    """A context that names regions for the profiler and lists collective calls."""

    def __init__(self, engine: Any) -> None:
        super().__init__()
        self.step = 0
        self.made: List[Made] = []
        self._engine = engine

    def __enter__(self) -> Recorder:
        super().__enter__()
        self._name(sequence_layer, "single_all_to_all", "all_to_all")
        for owner in (self._engine, self._engine.optimizer):
            for method in _REDUCING:
                if hasattr(owner, method):
                    self._name(owner, method, "gradient_reduction")
        for module in self._engine.module.modules():
            if isinstance(module, Attention):
                self._replace(module, "_core", (_region("attention", module._core[0]),))
            elif isinstance(module, FeedForward):
                self._name(module, "forward", "mlp")
        return self

    def _name(self, owner: Any, attribute: str, region: str) -> None:
        self._replace(owner, attribute, _region(region, getattr(owner, attribute)))

    def _around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def recorded(*args: Any, **kwargs: Any) -> Any:
            size = handed_in_bytes(name, args, kwargs)
            made = Made(name, self.phase, self.step, _ranks(args, kwargs), size)
            index = len(self.made)
            self.made.append(made)
            with record_function(f"{PREFIX}collective/{index} {name}"):
                work = function(*args, **kwargs)
            return _Pending(work, made, index) if hasattr(work, "wait") else work

        return recorded


class _Pending:
    """The handle of an asynchronous collective, which notes when it is over."""

    def __init__(self, work: Any, made: Made, index: int) -> None:
        self._work, self._made, self._index = work, made, index
        made.asynchronous = True
        work.get_future().then(self._completed)

    def wait(self, *args: Any, **kwargs: Any) -> Any:
        with record_function(f"{PREFIX}wait/{self._index} {self._made.name}"):
            return self._work.wait(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._work, name)

    def _completed(self, future: Any) -> None:
        self._made.completed_ns = time.perf_counter_ns()


class RegionClock:
    """A clock of steps whose marks also open and close the regions of step and phases."""

    def __init__(self, clock: Clock) -> None:
        self.stamps: List[Tuple[str, int]] = []
        """Each region and when it was about to open, as `time.perf_counter_ns` says."""
        self._clock = clock
        self._marks = 0
        self._open: List[Any] = []

    def mark(self) -> None:
        """The start of a step, or the end of a phase."""
        phase = self._marks % (len(PHASES) + 1)
        self._marks += 1
        if phase == 0:
            self._begin("step")
            self._clock.mark()
        else:
            self._clock.mark()
            self._open.pop().__exit__(None, None, None)
        if phase < len(PHASES):
            self._begin(PHASES[phase])
        else:
            self._open.pop().__exit__(None, None, None)

    def synchronize(self) -> None:
        """Wait until the device has done everything."""
        self._clock.synchronize()

    def seconds(self) -> Dict[str, List[float]]:
        """Seconds per step, as the clock within says."""
        return self._clock.seconds()

    def _begin(self, name: str) -> None:
        region = record_function(PREFIX + name)
        self.stamps.append((PREFIX + name, time.perf_counter_ns()))
        region.__enter__()
        self._open.append(region)


def _region(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def named(*args: Any, **kwargs: Any) -> Any:
        with record_function(PREFIX + name):
            return function(*args, **kwargs)

    return named


def _ranks(args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Tuple[int, ...]:
    """Global ranks of the group that a call names; all where it names none."""
    group = kwargs.get("group")
    if group is None:
        group = next((one for one in args if isinstance(one, dist.ProcessGroup)), None)
    return tuple(dist.get_process_group_ranks(group or dist.group.WORLD))
