"""Bandwidth and latency of the collectives of sequence parallelism at its own sizes.

The tensors are those of Ulysses' all-to-all, `[b, S/P, H, d]` of the configured model, once per
sequence length. What each rank hands in is the size; nccl-tests' factors turn it into bandwidths
(`bench.theory.bandwidth`). Forward and backward are timed apart, in batches of calls
(`bench.worker.metrics.batch`) and by the slowest rank, and every result is checked.
"""

from __future__ import annotations

import statistics
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from bench.theory.bandwidth import algorithm_bandwidth, bus_bandwidth
from bench.trial import DTYPE_BYTES, Configuration
from bench.worker.collectives.calls import Place
from bench.worker.collectives.catalogue import KNOWN, function_of
from bench.worker.collectives.variant import Variant
from bench.worker.mesh import barrier
from bench.worker.metrics.batch import CALLS, seconds_per_call

WARMUP, REPETITIONS = 3, 10
BATCH_S = {"cpu": 0.01, "cuda": 0.1}
"""Of a batch, about: a call that takes longer is a batch of its own."""


class Timed(NamedTuple):
    """A collective to time."""

    collective: str
    theory: str
    """Its name in `bench.theory.bandwidth.BUS_FACTORS`."""
    variant: Variant = Variant()


_TIMED = (
    Timed("ds._SeqAllToAll", "all_to_all", Variant(scatter="heads")),
    Timed("nn.all_to_all_single", "all_to_all"),
    Timed("nn.all_gather", "all_gather"),
    Timed("nn.all_reduce", "all_reduce"),
)


def measure(
    configuration: Configuration, groups: Sequence[Sequence[int]], device: torch.device
) -> Iterator[Dict[str, Any]]:
    """One row a collective, sequence length and direction; every rank must call this.

    A row has `collective`, `direction`, `seq_len`, `bytes` and `count` that a rank hands in,
    `dtype`, `ranks` of the group, `seconds` of a call (the slowest rank's median over batches),
    `algorithm_bandwidth` and `bus_bandwidth` [bytes/s], `wrong` elements, and `error` in place of
    the last four where the collective raised.
    """
    c = configuration
    made = [(list(ranks), dist.new_group(list(ranks))) for ranks in groups]
    ranks, group = next((r, g) for r, g in made if dist.get_rank() in r)
    for seq_len in seq_lens(c):
        shape = (c.micro_batch, seq_len // c.sp, c.model.heads, c.model.head_dim)
        given = torch.full(shape, 1.0, dtype=getattr(torch, c.dtype), device=device)
        for timed in _TIMED:
            place = Place(group, tuple(ranks), ranks.index(dist.get_rank()), timed.variant)
            base = {
                "collective": timed.collective,
                "seq_len": seq_len,
                "bytes": given.numel() * DTYPE_BYTES[c.dtype],
                "count": given.numel(),
                "dtype": c.dtype,
                "ranks": len(ranks),
            }
            for direction, measured in _directions(timed, given, place).items():
                yield {**base, "direction": direction, **measured}


def seq_lens(configuration: Configuration) -> List[int]:
    """`options.seq_lens`, or the configured length; those that sp divides."""
    given = configuration.options.get("seq_lens", [configuration.seq_len])
    lengths = [given] if isinstance(given, int) else list(given)
    for length in lengths:
        if isinstance(length, bool) or not isinstance(length, int) or length <= 0:
            raise ValueError(f"options.seq_lens={given}: must be numbers of tokens from 1 on")
        if length % configuration.sp:
            raise ValueError(f"options.seq_lens={given}: {length} does not divide by sp")
    return lengths


def _directions(timed: Timed, given: Tensor, place: Place) -> Dict[str, Dict[str, Any]]:
    """What was measured, `forward` and `backward`."""
    call, function = KNOWN[timed.collective].call, function_of(timed.collective)
    x = given.flatten(0, 1) if timed.collective != "ds._SeqAllToAll" else given
    x = x.detach().requires_grad_()
    size = given.numel() * given.element_size()
    found: Dict[str, Dict[str, Any]] = {}
    try:
        outputs = call(function, [x], place)
        found["forward"] = _timed(lambda: call(function, [x], place), x, place, timed, size)
        total = place.size if timed.theory == "all_reduce" else 1
        found["forward"]["wrong"] = sum(int((one != total).sum()) for one in outputs)
        upstream = [torch.ones_like(one) for one in outputs]

        def backward() -> List[Tensor]:
            return list(torch.autograd.grad(outputs, [x], upstream, retain_graph=True))

        gradient = backward()
        found["backward"] = _timed(backward, x, place, timed, size)
        right = 1 if timed.theory == "all_to_all" else place.size
        found["backward"]["wrong"] = sum(int((one != right).sum()) for one in gradient)
    except (RuntimeError, IndexError, ValueError, AssertionError) as error:
        # all members raise alike, or hang and are ended from outside: nothing to unwind here
        direction = "backward" if "forward" in found else "forward"
        found[direction] = {"error": f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"}
    return found


def _timed(
    work: Callable[[], Any], x: Tensor, place: Place, timed: Timed, size: int
) -> Dict[str, Any]:
    for _ in range(WARMUP):
        work()
    once = _slowest(_once(work, 1, x, place), x, place)
    calls = min(CALLS, max(1, int(BATCH_S[x.device.type] / once)))
    times = [_once(work, calls, x, place) for _ in range(REPETITIONS)]
    seconds = _slowest(statistics.median(times), x, place)
    return {
        "seconds": seconds,
        "algorithm_bandwidth": algorithm_bandwidth(timed.theory, size, seconds, place.size),
        "bus_bandwidth": bus_bandwidth(timed.theory, size, seconds, place.size),
    }


def _once(work: Callable[[], Any], calls: int, x: Tensor, place: Place) -> float:
    """Seconds of one of `calls` calls on this rank, which all ranks of the group begin together."""
    barrier(x.device, place.group)
    if x.device.type == "cuda":
        torch.cuda.synchronize(x.device)
    return seconds_per_call(work, calls, x.device)


def _slowest(seconds: float, x: Tensor, place: Place) -> float:
    """The slowest rank's seconds; the same number on every rank of the group."""
    slowest = torch.tensor([seconds], dtype=torch.float64, device=x.device)
    dist.all_reduce(slowest, op=dist.ReduceOp.MAX, group=place.group)
    return float(slowest)
