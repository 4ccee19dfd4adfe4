"""Train the decoder with DeepSpeed: time per phase, memory, gradient error of the first step.

`options.busy_s` makes every measured step that many seconds longer: each rank computes nothing
in a busy loop at the start of the optimizer phase. A calibration aid: with a slowdown of known
size one sees which differences a comparison finds (`benchmarks/validity.py`).

`options.warm_up_s` replaces the 3 s of `bench.worker.warm_up`, on CPU too; 0: no further warm-up.
"""

from __future__ import annotations

import time
from typing import Any, Callable, Dict, List, Optional, Tuple

import torch
from torch import Tensor

from bench import theory
from bench.record import PHASES, CollectiveCount, RankSamples
from bench.worker import plugins, warm_up
from bench.worker.mesh import Mesh
from bench.worker.metrics import clock, memory, snapshot
from bench.worker.metrics.clipping import ClippingWatch
from bench.worker.metrics.collectives import CollectiveCounter
from bench.worker.rank import Rank
from bench.worker.reference import Reference
from bench.worker.training import Clock, Trainer

OPTIONS = ("busy_s", "memory_snapshot", "warm_up_s")


def run(rank: Rank) -> Dict[str, Any]:
    """Warm-up steps, of which the first is checked and counted, then the measured ones.

    Returns the fields `samples`, `memory`, `gradient`, `collectives` and `details` of this rank.

    Raises:
        ValueError: `options` has another key than `OPTIONS`, or `busy_s` or `warm_up_s` is no
            number from 0 on.
    """
    options = rank.configuration.options
    _refuse_unknown(options)
    busy_s = _seconds(options, "busy_s") or 0.0
    rule = warm_up.rule_of(rank.configuration, _seconds(options, "warm_up_s"))
    with snapshot.kept(rank, bool(options.get("memory_snapshot"))):
        _, fields = measure(rank, busy_s, rule)
        return fields


def measure(
    rank: Rank, busy_s: float = 0.0, rule: Optional[warm_up.Rule] = None
) -> Tuple[Trainer, Dict[str, Any]]:
    """The trainer after its warm-up and measured steps, and the fields that `run` returns.

    `busy_s` is how many seconds each measured step is made longer; `rule` says how long to warm
    up after the step that is compared, if not as the configuration demands.
    """
    c = rank.configuration
    cuda = rank.device.type == "cuda"
    alone = not c.comm.oversubscribe
    meter = memory.CudaMemory(alone) if cuda else memory.CpuMemory(rank.shared_bytes)
    mesh = Mesh.of(rank)
    memory.limit(rank.device.type, c.memory_limit)  # the stacks of gloo's threads do not count
    reference = Reference(rank.reference, c.model)
    trainer = Trainer(c, mesh, reference, rank.device, rank.beat)
    make_clock = clock.CudaClock if cuda else clock.CpuClock

    losses: List[Tensor] = []
    warmup = make_clock()
    checked, collectives = _first_step(rank, trainer, mesh, warmup, losses)
    first = trainer.shard_loss
    if cuda:
        torch.cuda.empty_cache()  # of what the gradient check took; the next step allocates anew
    warming = warm_up.WarmUp(warm_up.rule_of(c) if rule is None else rule, rank.device)
    while len(losses) < c.warmup_steps or warming.asks_for_more(len(losses) - 1):
        losses.append(trainer.step(rank.entering(len(losses)), warmup, _nothing))
    meter.reset_peak()
    measured = make_clock()
    slow_down = busy(busy_s, measured)
    for _ in range(c.steps):
        losses.append(trainer.step(rank.entering(len(losses)), measured, slow_down))
    rank.enter("results")
    seconds = measured.seconds()
    samples = RankSamples(
        rank=rank.index,
        warmup_s=warmup.seconds()["step"],
        step_s=seconds["step"],
        phases_s={phase: seconds[phase] for phase in PHASES},
        losses=torch.stack(losses).double().cpu().tolist(),
    )
    if checked.get("gradient"):
        checked["gradient"]["loss"] = samples.losses[0]
    return trainer, {
        "samples": samples.model_dump(),
        "memory": meter.read(rank.index).model_dump(),
        "collectives": [count.model_dump() for count in collectives],
        "details": {"memory": _predicted_memory(rank)},
        "first_loss": None if first is None else [part.double().item() for part in first],
        **checked,
    }


def _predicted_memory(rank: Rank) -> Dict[str, Any]:
    """The peak that theory expects, by component [bytes], to be read beside `memory`."""
    # on CPU the peak counts pages that were written to, and few of the reduce bucket's are
    training = theory.training_of(rank.configuration, whole_bucket=rank.device.type == "cuda")
    peak = theory.peak_memory(training)
    return {"moment": peak.moment, "predicted": peak.total, "components": peak.components()}


def _first_step(
    rank: Rank, trainer: Trainer, mesh: Mesh, warmup: Clock, losses: List[Tensor]
) -> Tuple[Dict[str, Any], List[CollectiveCount]]:
    """The step that is compared with the reference and whose collectives are counted."""
    checked: Dict[str, Any] = {}
    watch = ClippingWatch(trainer.engine, rank.device)

    with CollectiveCounter() as counter:

        def enter(phase: str) -> None:
            counter.phase = phase
            rank.enter(phase, 0)

        def check() -> None:
            enter("gradient")
            watch.before_optimizer()
            if rank.request.check not in ("off", "proxy"):  # a proxy is another trial
                mode = plugins.load("checking", rank.request.check)
                checked.update(mode.check(rank, trainer, mesh))

        losses.append(trainer.step(enter, warmup, check))
        enter("gradient")
        checked["clipping"] = watch.found().model_dump()
    counts = [count for count in counter.counts(rank.index) if count.phase in PHASES]
    return checked, counts


def _refuse_unknown(options: Dict[str, Any]) -> None:
    for name in options:
        if name not in OPTIONS:
            allowed = ", ".join(OPTIONS)
            raise ValueError(f"options.{name}: unknown to scenario train; allowed: {allowed}")


def _seconds(options: Dict[str, Any], name: str) -> Optional[float]:
    seconds = options.get(name)
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds >= 0:
        raise ValueError(f"options.{name}={seconds}: must be a number of seconds from 0 on")
    return float(seconds)


def busy(seconds: float, measured: Clock) -> Callable[[], None]:
    """A busy loop of known length; nothing where that is 0."""
    if not seconds:
        return _nothing

    def loop() -> None:
        measured.synchronize()  # what a GPU still computes must not hide the loop
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass

    return loop


def _nothing() -> None:
    """Nothing happens between backward and the optimizer of an ordinary step."""
