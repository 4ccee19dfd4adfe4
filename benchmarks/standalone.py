"""A rank without the harness's server, as `python -m torch.distributed.run` starts it.

Runs inside a measured environment. Arguments: a configuration as JSON, the reference folder,
and what to do:

    train          the `train` scenario; prints its samples as JSON, one line per rank
    instrument N K N rounds of K bare and K instrumented steps, interleaved; rank 0 prints the
                   seconds of all steps as JSON: [[bare …, instrumented …] per round]
"""

from __future__ import annotations

import json
import mmap
import os
import sys
import tempfile
from pathlib import Path

import deepspeed
import torch.distributed as dist

from bench.theory import gradient_mode
from bench.trial import Configuration
from bench.worker import plugins
from bench.worker.metrics.instrumentation import interleaved
from bench.worker.rank import HEARTBEAT, Rank, Request, join


def main() -> None:
    """Set up as a forked rank does, then do what the arguments say."""
    configuration = Configuration.model_validate_json(sys.argv[1])
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    rank = _join(configuration, Path(sys.argv[2]))
    if sys.argv[3] == "train":
        result = plugins.load("scenarios", "train").run(rank)
        _print(result["samples"])
    else:
        measured = interleaved(rank, rounds=int(sys.argv[4]), steps=int(sys.argv[5]))
        if rank.index == 0:
            _print(measured)
    dist.destroy_process_group()


def _join(configuration: Configuration, reference: Path) -> Rank:
    request = Request(
        configuration=configuration,
        scratch=Path(tempfile.mkdtemp(prefix=f"spbench-{os.getpid()}-")),
        log=reference,
        reference=reference,
        store_port=int(os.environ["MASTER_PORT"]),
        threads=max(1, len(os.sched_getaffinity(0)) // configuration.world),
        check=gradient_mode(configuration),
    )
    beats = mmap.mmap(-1, configuration.world * HEARTBEAT.size)
    rank = Rank(int(os.environ["RANK"]), request, beats)
    join(rank, lambda: next(dist.rendezvous("env://"))[0])
    return rank


def _print(value: object) -> None:
    sys.stdout.write("RESULT " + json.dumps(value) + "\n")  # one write: ranks share the pipe
    sys.stdout.flush()


if __name__ == "__main__":
    main()
