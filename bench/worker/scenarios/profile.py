"""Train as `train` does, then profile a few steps more: where the time of a step goes.

The measured steps run first and untouched; the profiled ones (`options.profiled_steps`) never
enter a throughput. Rank 0 leaves `traces/<trial_id>.json.gz`, one Chrome trace of all ranks, and
in the record's `details` the breakdown, the collectives, and Ulysses's bytes beside theory's.

`options.straggler_s` makes the last rank that many seconds later than the others in every
profiled step, by a busy loop before the optimizer: with a straggler of known size one sees what
the breakdown makes of it.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any, Dict, Tuple

import torch
from torch.profiler import ProfilerActivity, profile

from bench.worker.mesh import barrier
from bench.worker.metrics import clock
from bench.worker.profiling import report, trace
from bench.worker.profiling.recorder import Recorder, RegionClock, threads_of
from bench.worker.rank import Rank
from bench.worker.scenarios import train
from bench.worker.training import Trainer

PROFILED_STEPS = 3


def run(rank: Rank) -> Dict[str, Any]:
    """What `train` returns, and on rank 0 `details`: see `bench.worker.profiling.report`.

    Raises:
        ValueError: `options` has another key than `profiled_steps` (a whole number from 1 on)
            and `straggler_s` (a number from 0 on).
    """
    steps, late_s = _options(rank.configuration.options)
    trainer, fields = train.measure(rank)
    rank.enter("profile")
    late_s *= rank.index == rank.configuration.world - 1
    _profile(rank, trainer, steps, late_s, fields["samples"])
    barrier(rank.device)  # every rank's share is on the disk
    if rank.index:
        return fields
    rank.enter("breakdown")
    found = [_share(rank, index) for index in range(rank.configuration.world)]
    path = trace_path(rank)
    details = report.write(path, found, rank.configuration)
    details["trace"] = str(path.relative_to(path.parents[1]))
    return {**fields, "details": {**fields["details"], **details}}


def trace_path(rank: Rank) -> Path:
    """Of the merged trace: beside the logs, named by the trial."""
    log = rank.request.log
    return log.parents[1] / "traces" / f"{log.stem}.json.gz"


def _profile(
    rank: Rank, trainer: Trainer, steps: int, late_s: float, samples: Dict[str, Any]
) -> None:
    """Run `steps` steps under the profiler and leave this rank's share of the findings."""
    cuda = rank.device.type == "cuda"
    done = len(samples["losses"])
    timer = RegionClock(clock.CudaClock() if cuda else clock.CpuClock())
    dawdle = train.busy(late_s, timer)
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * cuda
    with Recorder(trainer.engine) as recorder, profile(activities=activities) as profiler:
        for index in range(steps):
            recorder.step = index

            def enter(phase: str, step: int = done + index) -> None:
                recorder.phase = phase
                rank.enter(phase, step)

            trainer.step(enter, timer, dawdle)
        if cuda:
            torch.cuda.synchronize()
    rank.enter("trace")
    profiler.export_chrome_trace(str(_scratch(rank, rank.index, "trace")))
    share = {
        "stamps": timer.stamps,
        "threads": list(threads_of(profiler).items()),
        "step_s": timer.seconds()["step"],
        "measured_step_s": statistics.median(samples["step_s"]),
        "calls": [vars(made) for made in recorder.made],
    }
    _scratch(rank, rank.index, "calls").write_text(json.dumps(share))


def _share(rank: Rank, index: int) -> report.Share:
    """What rank `index` left."""
    rank.enter("breakdown")
    share = json.loads(_scratch(rank, index, "calls").read_text())
    events = trace.read(_scratch(rank, index, "trace"), share["stamps"], dict(share["threads"]))
    on_gpu = rank.device.type == "cuda"
    step_s, measured_step_s = share["step_s"], share["measured_step_s"]
    return report.Share(index, events, share["calls"], step_s, measured_step_s, on_gpu)


def _scratch(rank: Rank, index: int, kind: str) -> Path:
    return rank.request.scratch / f"{kind}-{index}.json"


def _options(options: Dict[str, Any]) -> Tuple[int, float]:
    """Number of profiled steps, and seconds that the last rank is late."""
    for name in options:
        if name not in ("profiled_steps", "straggler_s"):
            raise ValueError(
                f"options.{name}: unknown to scenario profile; allowed: profiled_steps, straggler_s"
            )
    steps = options.get("profiled_steps", PROFILED_STEPS)
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"options.profiled_steps={steps}: must be a whole number from 1 on")
    late_s = options.get("straggler_s", 0.0)
    if isinstance(late_s, bool) or not isinstance(late_s, (int, float)) or not late_s >= 0:
        raise ValueError(f"options.straggler_s={late_s}: must be a number of seconds from 0 on")
    return steps, float(late_s)
