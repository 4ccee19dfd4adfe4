"""A results folder of thousands of schema-valid records: `python -m tests.synthetic FOLDER`."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path

from bench.record import Record, Status
from tests.factories import environment, error, failed, gradient, ok, worker, write

SIDES = [
    (environment("torch-2.2", "2.2.2"), "all_gather"),
    (environment("torch-2.2", "2.2.2"), "weighted_all_reduce"),
    (environment(), "all_gather"),
    (environment(), "weighted_all_reduce"),
]
FAILURES = (Status.OOM, Status.HANG, Status.TIMEOUT, Status.CRASH, Status.ENVIRONMENT)


def sweep(count: int, seed: int = 0) -> Iterator[Record]:
    """`count` records: sides by split by ZeRO stage by sequence length, round after round.

    The oldest torch's all_gather raises where sp=2; one trial in 20 elsewhere ends in one of
    `FAILURES`, with a traceback of its own, and one in 30 is noisy.
    """
    draw = random.Random(seed)
    points = [
        {"seq_len": seq_len, "sp": sp, "world": world, "zero": zero}
        for seq_len in (512, 1024, 2048, 4096, 8192)
        for sp, world in ((2, 2), (2, 4), (4, 4))
        for zero in (0, 1, 2, 3)
    ]
    for index in range(count):
        round_, place = divmod(index, len(points) * len(SIDES))
        point = points[place // len(SIDES)]
        spec, loss = SIDES[place % len(SIDES)]
        fields = {**point, "environment": spec, "loss": loss, "round": round_}
        fields["worker"] = worker(str(spec.torch))
        if (spec.name, loss, point["sp"]) == ("torch-2.2", "all_gather", 2):
            yield failed(**fields)
        elif draw.random() < 0.05:
            yield failed(draw.choice(FAILURES), errors=[_own_error(draw, index)], **fields)
        else:
            scaled = {"verdict": "scaled", "scale": 2.0, "scale_label": "×2"}
            found = gradient(**(scaled if loss == "all_gather" else {}))
            noisy = ["load 3.1 on 2 cores"] if draw.random() < 1 / 30 else []
            step_s = point["seq_len"] / 8192 * draw.lognormvariate(0, 0.03)
            yield ok(step_s=step_s, gradient=found, noisy=noisy, **fields)


def _own_error(draw: random.Random, index: int) -> object:
    lines = [f'  File "model.py", line {draw.randrange(1000)}, in forward' for _ in range(60)]
    text = "\n".join(["Traceback (most recent call last):", *lines, f"RuntimeError: {index}"])
    return error(draw.randrange(4), "builtins.RuntimeError").model_copy(update={"traceback": text})


if __name__ == "__main__":
    write(Path(sys.argv[1]), *sweep(int(sys.argv[2]) if len(sys.argv) > 2 else 2000))
