"""Reading 100,000 records into a DataFrame, beside reading them by `Record.model_validate`.

    python -m benchmarks.records [COUNT]

Writes synthetic records of realistic size (4 ranks, 2 + 5 steps, full provenance) into a
temporary folder, reads them in fresh processes, and removes them.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from bench.record import PHASES, Record
from bench.record_files import read_records
from benchmarks.report import Targets
from tests import factories

COUNT = 100_000
ROUNDS = 50
FILES = 8
PLAIN_COUNT = 2_000
"""Records that the plain way reads; its time is scaled to COUNT."""


def main() -> None:
    """Write, read both ways, print the targets."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else COUNT
    with tempfile.TemporaryDirectory(prefix="spbench-records-") as name:
        all_of_them, sample = Path(name, "all"), Path(name, "sample")
        size = write(all_of_them, count)
        plain_count = min(count, PLAIN_COUNT)
        write(sample, plain_count)
        print(f"{count:,} records, {size / count:,.0f} bytes each, {size / 2**20:,.0f} MiB in all")
        seconds, peak = in_fresh_process("load", all_of_them)
        plain, _ = in_fresh_process("plain", sample)
    plain *= count / plain_count
    print(f"analysis.frame.load: {seconds:.2f} s, peak {peak / 2**20:,.0f} MiB")
    print(
        f"Record.model_validate, {plain_count:,} records scaled to {count:,}: {plain:.1f} s, "
        f"{plain / seconds:.1f} times as long"
    )
    targets = Targets()
    targets.check(f"reading {count:,} records", seconds, "<=", 6, "s")
    targets.check("peak memory of the reading processes", peak / 1e9, "<", 1.5, "GB")
    targets.finish()


def write(folder: Path, count: int) -> int:
    """Write `count` records into `folder` as FILES writers would; returns their size [bytes]."""
    folder.mkdir()
    lines = synthetic(count)
    per_file = -(-count // FILES)
    for index in range(FILES):
        with (folder / f"records-bench-{index}.jsonl").open("wb") as file:
            for _, line in zip(range(per_file), lines):
                file.write(line)
    return sum(path.stat().st_size for path in folder.iterdir())


def synthetic(count: int) -> Iterator[bytes]:
    """Lines of records: `count / ROUNDS` configurations, times drawn from a lognormal."""
    rng = np.random.default_rng(0)
    made = 0
    for seq_len in range(4, 4 * count, 4):
        template = orjson.loads(template_of(seq_len).model_dump_json())
        for round_ in range(ROUNDS):
            if made == count:
                return
            made += 1
            yield orjson.dumps(with_times(template, round_, rng)) + b"\n"


def template_of(seq_len: int) -> Record:
    """A record with everything in it that a real one has."""
    messages = [f"UserWarning: {'library text ' * 8}{i}" for i in range(3)]
    worker = factories.worker().model_copy(update={"warnings": messages, "torch_git": "0" * 40})
    counts = [
        {"rank": r, "phase": phase, "collective": name, "calls": 8, "bytes": 65536}
        for r in range(4)
        for phase, name in (
            ("forward", "all_to_all_single"),
            ("aggregate", "all_gather"),
            ("backward", "all_to_all_single"),
            ("optimizer", "all_reduce"),
        )
    ]
    ranks = range(4)
    return factories.ok(
        seq_len=seq_len,
        worker=worker,
        collectives=counts,
        samples=[factories.samples(r, [1.0] * 5) for r in ranks],
        log=f"logs/{seq_len}.log",
    )


def with_times(template: dict[str, Any], round_: int, rng: np.random.Generator) -> dict[str, Any]:
    """`template` as another round, with its own raw samples."""
    seconds = rng.lognormal(-3, 0.1, size=(4, 1 + len(PHASES), 5)).tolist()
    losses = rng.normal(5.5, 0.1, size=(4, 7)).tolist()
    samples = [
        {
            "rank": rank,
            "warmup_s": times[0][:2],
            "step_s": times[0],
            "phases_s": dict(zip(PHASES, times[1:], strict=True)),
            "losses": loss,
        }
        for rank, (times, loss) in enumerate(zip(seconds, losses, strict=True))
    ]
    trial_id = f"{template['config_hash']}-r{round_}-a0"
    return {**template, "round": round_, "trial_id": trial_id, "samples": samples}


def in_fresh_process(way: str, folder: Path) -> tuple[float, float]:
    """Seconds and peak memory [bytes] of reading `folder` one way in a new process."""
    command = [sys.executable, "-m", "benchmarks.records", "--read", way, str(folder)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    seconds, peak = output.split()
    return float(seconds), float(peak)


def read(way: str, folder: Path) -> None:
    """Print seconds, imports included, and the peak memory of the reading processes [bytes]."""
    start = time.perf_counter()
    if way == "load":
        from analysis.frame import load

        load(folder)
    else:
        import pandas as pd

        rows = [Record.model_validate(raw.content).model_dump() for raw in read_records(folder)]
        pd.json_normalize(rows)
    seconds = time.perf_counter() - start
    print(seconds, peak_of_tree())


def peak_of_tree() -> int:
    """Upper bound of what this process and its children held at once [bytes].

    The kernel keeps the peak of the largest child; all of them are counted as large.
    """
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    largest_child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return (own + largest_child * (os.cpu_count() or 1)) * 1024


if __name__ == "__main__":
    if sys.argv[1:2] == ["--read"]:
        read(sys.argv[2], Path(sys.argv[3]))
    else:
        main()
