"""Whether the predicted peak of memory is the measured one, by component and in total.

    python -m benchmarks.memory [--lengths N …]

Real trials on CPU at three sequence lengths and two splits, then ZeRO stages, checkpointing and
tiles at the middle one. The model is wide enough (256 hidden, 8,192 words) for tensors to outweigh
what a process holds besides them. `bench.theory.peak_memory` knows nothing of these trials: its
terms are counted from code, and no figure in it is fitted.

Trials run under a `memory_limit` that is too high to matter: only then does the C library give
freed memory back at once, so that the peak counts what is used. Without a limit it keeps what was
freed, and a process was seen to hold a quarter more than it uses.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from analysis.statistics import median
from bench.controller.environments import provide
from bench.controller.hosts import Hosts
from bench.record import Record, Status
from bench.trial import ModelSpec, Trial
from benchmarks.launching import configuration
from benchmarks.report import Targets

WIDE = ModelSpec(name="wide", layers=4, hidden=256, heads=8, kv_heads=4, ffn=1024, vocab=8192)
LENGTHS = (2048, 4096, 8192)
SPLITS = (2, 4)
WORLD = 4
MIB = 2**20


def others() -> list[tuple[str, dict[str, Any]]]:
    """What else is predicted, each at one length."""
    checkpointed = WIDE.model_copy(update={"activation_checkpointing": True})
    tiled = WIDE.model_copy(update={"loss_tiles": 8})
    both = checkpointed.model_copy(update={"loss_tiles": 8})
    return [
        ("zero=0", {"zero": 0}),
        ("zero=2", {"zero": 2}),
        ("zero=3", {"zero": 3}),
        ("bfloat16", {"dtype": "bfloat16"}),
        ("checkpointing", {"model": checkpointed}),
        ("loss_tiles=8", {"model": tiled}),
        ("both", {"model": both}),
    ]


def main() -> None:
    """Measure, print a line per trial, then the targets."""
    parser = argparse.ArgumentParser(description="Predicted and measured peaks of memory.")
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS, help="tokens")
    lengths = sorted(parser.parse_args().lengths)
    middle = lengths[len(lengths) // 2]
    with tempfile.TemporaryDirectory(prefix="spbench-memory-") as folder, Hosts(provide) as hosts:

        def error_of(label: str, **fields: Any) -> float:
            values = {"model": WIDE, "world": WORLD, "zero": 1, "seq_len": middle, **fields}
            c = configuration(
                "torch-2.13", **values, steps=2, gradient_check="off", memory_limit=2**36
            )
            return _error(label, hosts.run(Trial(configuration=c, round=0), Path(folder)))

        claimed = [
            error_of(f"sp={sp} seq_len={seq_len}", sp=sp, seq_len=seq_len)
            for sp in SPLITS
            for seq_len in lengths
        ]
        rest = [error_of(label, **fields) for label, fields in others()]
    targets = Targets()
    name = "largest error at every length and split"
    targets.check(name, 100 * max(map(abs, claimed)), "<=", 15, "%")
    name = "median error over ZeRO stages, bfloat16, checkpointing and tiles"
    targets.check(name, 100 * median([abs(one) for one in rest]), "<=", 15, "%")
    targets.finish()


def _error(label: str, record: Record) -> float:
    """Relative error of the prediction; prints the trial's line."""
    if record.status is not Status.OK:
        raise SystemExit(f"{label}: {record.status.value}, {record.reason}")
    memory = record.details["memory"]
    measured = max(rank.peak_bytes for rank in record.memory)
    error = float(memory["predicted"] / measured - 1)
    parts = ", ".join(
        f"{name} {value / MIB:.0f}" for name, value in memory["components"].items() if value
    )
    print(
        f"{label:>20}: predicted {memory['predicted'] / MIB:6.1f} MiB ({memory['moment']}: "
        f"{parts}), measured {measured / MIB:6.1f} MiB, error {100 * error:+5.1f} %",
        flush=True,
    )
    return error


if __name__ == "__main__":
    main()
