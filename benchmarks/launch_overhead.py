"""Time per trial beyond its steps: the warm server against `python -m torch.distributed.run`.

    python -m benchmarks.launch_overhead [--torchruns N] [--warm N]

Both sides run the same trial (4 ranks, ZeRO 1, the tiny model, gradient check included) in the
same environment, a torchrun between two blocks of warm trials. A trial's overhead is the wall
time of all of it, from the request to the result, less the time of its steps on the slowest
rank. The first step, in which the gradient is checked, counts as a median step: the check is
overhead. The first trial of a server, which starts it, is shown and left out: a sweep has one.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from analysis.statistics import median
from bench.controller.environments import provide
from bench.controller.hosts import Hosts
from bench.record import RankSamples, Status
from bench.trial import Trial
from benchmarks.launching import configuration, torchrun
from benchmarks.report import Targets

TORCHRUNS, WARM_PER_BLOCK = 3, 5
ENVIRONMENT = "torch-2.13"


def overhead(wall_s: float, samples: list[RankSamples]) -> float:
    """Seconds of a trial that are not steps of its slowest rank."""
    return wall_s - max(median(s.step_s) + sum(s.warmup_s[1:]) + sum(s.step_s) for s in samples)


def main() -> None:
    """Measure both sides, print them and the targets."""
    parser = argparse.ArgumentParser(description="Time per trial beyond its steps.")
    parser.add_argument("--torchruns", type=int, default=TORCHRUNS)
    parser.add_argument("--warm", type=int, default=WARM_PER_BLOCK, help="trials per torchrun")
    chosen = parser.parse_args()
    c = configuration(ENVIRONMENT)
    warm: list[float] = []
    cold: list[float] = []
    with tempfile.TemporaryDirectory() as folder, Hosts(provide) as hosts:

        def run_warm(round_index: int) -> float:
            start = time.perf_counter()
            record = hosts.run(Trial(configuration=c, round=round_index), Path(folder))
            wall = time.perf_counter() - start
            if record.status is not Status.OK:
                raise SystemExit(f"the trial ended as {record.status.value}: {record.reason}")
            return overhead(wall, record.samples)

        print(f"first trial, which starts the server: {run_warm(0):.2f} s beyond its steps")
        run_warm(1)  # with the modules that the first one taught the server
        for block in range(chosen.torchruns):
            warm += [run_warm(2 + block * chosen.warm + i) for i in range(chosen.warm)]
            start = time.perf_counter()
            samples = torchrun(provide(c.environment), c, "train")
            wall = time.perf_counter() - start
            cold.append(overhead(wall, [RankSamples.model_validate(s) for s in samples]))
    print("warm server, s:", " ".join(f"{seconds:.3f}" for seconds in warm))
    print("torchrun, s:   ", " ".join(f"{seconds:.2f}" for seconds in cold))
    targets = Targets()
    targets.check("launch overhead of the warm server", median(warm), "<=", 0.8, "s")
    targets.check("torchrun / warm server", median(cold) / median(warm), ">=", 20.0, "times")
    targets.finish()


if __name__ == "__main__":
    main()
