"""One training step with a loss aggregation that is given as source text.

`options.source` is Python that defines `aggregate(loss, tokens, group)`: this rank's mean loss,
its number of valid labels, and the sequence-parallel group; it returns what is back-propagated.
Over no label the mean is NaN, as `torch.nn.functional.cross_entropy` gives it. The text runs as it
is, so what was judged is what can be pasted.
"""

from __future__ import annotations

import math
from typing import Any, Callable, Dict

import torch
import torch.distributed as dist
from torch import Tensor

from bench.worker.model import ShardLoss
from bench.worker.one_step import judged
from bench.worker.rank import Rank
from bench.worker.training import Trainer

Aggregate = Callable[[Tensor, Tensor, dist.ProcessGroup], Tensor]


def run(rank: Rank) -> Dict[str, Any]:
    """The judged step.

    Raises:
        ValueError: `options.source` defines no function `aggregate`.
    """
    rank.enter("source")
    aggregate = _function(str(rank.configuration.options.get("source", "")))

    class Pasted(Trainer):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self._aggregate = lambda shard, group: _call(aggregate, shard, group)

    return judged(rank, Pasted)


def _call(aggregate: Aggregate, shard: ShardLoss, group: dist.ProcessGroup) -> Tensor:
    nan = torch.zeros_like(shard.mean).masked_fill(shard.tokens == 0, math.nan)
    return aggregate(shard.mean + nan, shard.tokens, group)


def _function(source: str) -> Aggregate:
    names: Dict[str, Any] = {"__name__": "recipe"}
    exec(compile(source, "options.source", "exec"), names)  # what is to be judged
    if not callable(names.get("aggregate")):
        raise ValueError("options.source defines no function aggregate(loss, tokens, group)")
    function: Aggregate = names["aggregate"]
    return function
