"""Counts collectives and their bytes, by phase, while it is active.

The functions of `torch.distributed` are wrapped only for the one step that is counted, which
is never a measured one: counting costs no time where time is taken. Functional collectives
(`torch.distributed._functional_collectives`) do not pass through these and are not counted.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from typing import Any, Callable, Dict, Iterator, List, Tuple

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as functional

from bench.record import CollectiveCount

# name of the collective -> position of the tensor (or list) that the rank hands in
_INPUT = {
    "all_reduce": 0,
    "all_gather": 1,
    "all_gather_into_tensor": 1,
    "all_to_all": 1,
    "all_to_all_single": 1,
    "broadcast": 0,
    "reduce": 0,
    "reduce_scatter": 1,
    "reduce_scatter_tensor": 1,
}
# what DeepSpeed's backend keeps of them in attributes of its own
_KEPT_BY_DEEPSPEED = {
    "all_gather_function": "all_gather_into_tensor",
    "reduce_scatter_function": "reduce_scatter_tensor",
}


class CollectiveCounter:
    """A context in which this process's collectives are counted under `phase`."""

    def __init__(self) -> None:
        self.phase = "setup"
        self._counts: Dict[Tuple[str, str], List[int]] = defaultdict(lambda: [0, 0])
        self._replaced: List[Tuple[Any, str, Any]] = []

    def __enter__(self) -> CollectiveCounter:
        for name in _INPUT:
            if hasattr(dist, name):
                self._replace(dist, name, self._around(name, getattr(dist, name)))
        view: Any = functional.dist
        if view is not dist:  # the emulation of NCCL does this one itself
            self._replace(
                view, "reduce_scatter", self._around("reduce_scatter", view.reduce_scatter)
            )
        backend = _deepspeed_backend()
        for attribute, name in _KEPT_BY_DEEPSPEED.items():
            if getattr(backend, attribute, None) is not None:
                self._replace(backend, attribute, self._around(name, getattr(backend, attribute)))
        return self

    def __exit__(self, *exception: Any) -> None:
        for owner, name, original in reversed(self._replaced):
            setattr(owner, name, original)
        self._replaced.clear()

    def counts(self, rank: int) -> List[CollectiveCount]:
        """What was counted, in order of the first call."""
        return [
            CollectiveCount(rank=rank, phase=phase, collective=name, calls=calls, bytes=size)
            for (phase, name), (calls, size) in self._counts.items()
        ]

    def _replace(self, owner: Any, name: str, function: Any) -> None:
        self._replaced.append((owner, name, getattr(owner, name)))
        setattr(owner, name, function)

    def _around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def counted(*args: Any, **kwargs: Any) -> Any:
            count = self._counts[self.phase, name]
            count[0] += 1
            count[1] += handed_in_bytes(name, args, kwargs)
            return function(*args, **kwargs)

        return counted


def handed_in_bytes(name: str, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> int:
    """Bytes of the tensors that the rank hands in to a call of collective `name`."""
    return sum(_sizes(_input(name, args, kwargs)))


def _input(name: str, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Any:
    position = _INPUT[name]
    if len(args) > position:
        return args[position]
    keys = ("tensor", "input", "input_tensor", "input_list", "input_tensor_list")
    return next((kwargs[key] for key in keys if key in kwargs), None)


def _sizes(value: Any) -> Iterator[int]:
    if isinstance(value, torch.Tensor):
        yield value.numel() * value.element_size()
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _sizes(item)


def _deepspeed_backend() -> Any:
    import deepspeed.comm.comm as comm  # imported late: only ranks that train have it set up

    return comm.cdb
