"""How long ranks warm up before steps are timed: a rule, and the ranks' agreement on it.

The step whose gradient is compared leaves the allocator empty and a GPU that was idle while the
CPU compared. What follows until memory is allocated again and clocks are up is warm-up too.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple, Optional

from bench.trial import Configuration


class Rule(NamedTuple):
    """The least that must pass between the step that was compared and the first measured one."""

    steps: int
    seconds: float

    def asks_for_more(self, steps: int, seconds: float) -> bool:
        """Whether another step is due after `steps` steps that took `seconds` in all."""
        return steps < self.steps or seconds < self.seconds


NOTHING = Rule(steps=0, seconds=0.0)
ON_GPU = Rule(steps=2, seconds=3.0)


def rule_of(configuration: Configuration, seconds: Optional[float] = None) -> Rule:
    """`ON_GPU` where a trial's steps are timed on GPUs; `seconds` given go before, on CPU too.

    A single step is an audit's, not a sample; ranks that share a GPU have no valid timings.
    """
    if seconds is not None:
        return ON_GPU._replace(seconds=seconds) if seconds else NOTHING
    comm = configuration.comm
    timed = configuration.steps > 1 and not comm.oversubscribe
    return ON_GPU if comm.device == "cuda" and timed else NOTHING


class WarmUp:
    """Begins when it is made: after the step that was compared."""

    def __init__(self, rule: Rule, device: Any) -> None:  # torch.device; torch is imported late
        self._rule, self._device, self._start = rule, device, time.perf_counter()

    def asks_for_more(self, steps: int) -> bool:
        """Whether all ranks take another step after `steps`; every rank must call this.

        Rank 0's clock decides, for ranks' clocks differ and all must take as many steps.
        """
        if self._rule == NOTHING:
            return False
        more = self._rule.asks_for_more(steps, time.perf_counter() - self._start)
        return _as_rank_0_says(more, self._device)


def _as_rank_0_says(more: bool, device: Any) -> bool:
    import torch
    import torch.distributed as dist

    decision = torch.tensor([int(more)], device=device)
    dist.broadcast(decision, src=0)
    return bool(decision.item())
