"""Turn a recorded sweep into results/reference: small enough for git, and free of this machine's
paths.

    ./run_sweep.sh +experiment=upgrade_or_workaround results=/tmp/reference
    python -m benchmarks.reference /tmp/reference [--records FOLDER] [--figures FOLDER]

The records go to results/reference, the figures to docs/figures, unless the options say otherwise.
Pruned is what no figure, table or sentence uses: times are rounded to 1 µs and the gradient's
numbers to 7 digits; what each configuration repeats in every round (counts of collectives) and
each environment in every trial (warnings) stays once; the losses of single ranks, how the ranks
of trials that are ok ended, and the logs are left behind; folders in tracebacks are shortened.
Statuses, errors, gradients, memory and every sample of time stay. No trial is dropped.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from analysis import figures
from analysis.compare import natural_pairs
from analysis.frame import load, records, samples
from bench.controller.environments import cache_dir
from bench.record import Record, Status

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "results" / "reference"
FIGURES = ROOT / "docs" / "figures"
MOST_BYTES = 2 * 10**6

FOLDERS = re.compile(r'(?<=")/[^"\n]*/(?=(?:bench|site-packages)/)')
"""Of spbench and of an environment's libraries, as a traceback quotes them."""


def pruned(folder: Path) -> Iterator[Record]:
    """The counted records of a sweep as they go into git, in the order of their start."""
    frame = load(folder)
    seen: set[str] = set()
    whole = sorted(records(folder, frame), key=lambda record: str(record["started"]))
    for content in whole:
        content = _without_paths(content)
        content["log"] = None
        if content["config_hash"] in seen:
            content["collectives"] = []
        elif content["collectives"]:
            seen.add(content["config_hash"])
        worker = content["worker"]
        if worker is not None:
            worker["late_imports"] = []
            environment = f"warnings of {content['config']['environment']['name']}"
            if environment in seen:
                worker["warnings"] = []
            seen.add(environment)
        for rank in content["samples"]:
            rank["losses"] = []
            rank["warmup_s"], rank["step_s"] = _rounded(rank["warmup_s"]), _rounded(rank["step_s"])
            rank["phases_s"] = {phase: _rounded(s) for phase, s in rank["phases_s"].items()}
        if content["gradient"] is not None:
            content["gradient"] = {k: _digits(v) for k, v in content["gradient"].items()}
        if content["status"] == Status.OK.value:
            content["ranks"] = []
        yield Record.model_validate(content)


def write_records(folder: Path, target: Path) -> Path:
    """Write the pruned records of `folder` into `target`; returns the file.

    Raises SystemExit when they are too many for git.
    """
    lines = [record.model_dump_json() + "\n" for record in pruned(folder)]
    size = sum(len(line.encode()) for line in lines)
    if size > MOST_BYTES:
        raise SystemExit(
            f"{len(lines)} records take {size / 1e6:.1f} MB, more than {MOST_BYTES / 1e6:.0f} MB: "
            "record fewer rounds (rounds=N)"
        )
    target.mkdir(parents=True, exist_ok=True)
    path = target / "records-reference.jsonl"
    path.write_text("".join(lines), encoding="utf-8")
    return path


def write_figures(folder: Path, target: Path) -> list[Path]:
    """The figures of a folder as SVG, and their alternative texts beside them; returns the SVGs."""
    frame = load(folder)
    drawn = {
        "throughput": figures.throughput(frame),
        "phases": figures.phases(frame),
        "memory": figures.memory(frame),
        "gradient_audit": figures.gradient_audit(frame),
        "step_times": figures.step_times(frame, samples(folder)),
    }
    for pair in natural_pairs(frame)[:1]:
        drawn["cost"] = figures.cost(frame, pair.baseline, pair.candidate)
    target.mkdir(parents=True, exist_ok=True)
    for name, figure in drawn.items():
        figure.savefig(target / f"{name}.svg", metadata={"Date": None, "Creator": None})
    alts = {name: figures.alt_text(figure) for name, figure in drawn.items()}
    text = json.dumps(alts, indent=1, ensure_ascii=False)
    (target / "alternative_texts.json").write_text(text + "\n", encoding="utf-8")
    return [target / f"{name}.svg" for name in drawn]


def _without_paths(value: Any) -> Any:
    """`value` with the folders of this machine replaced wherever they stand in a text."""
    if isinstance(value, dict):
        return {key: _without_paths(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_without_paths(entry) for entry in value]
    if isinstance(value, str):
        value = FOLDERS.sub("", value)
        for folder, name in ((str(cache_dir()), "CACHE"), (str(Path.home()), "~")):
            value = value.replace(folder, name)
    return value


def _rounded(seconds: list[float]) -> list[float]:
    return [round(value, 6) for value in seconds]


def _digits(value: Any) -> Any:
    return float(f"{value:.7g}") if isinstance(value, float) else value


def main() -> None:
    """Prune the folder that the argument names, and draw the figures of what is left."""
    parser = argparse.ArgumentParser(description="Prune a recorded sweep for git.")
    parser.add_argument("results", type=Path, help="a recorded sweep")
    parser.add_argument("--records", type=Path, default=REFERENCE, metavar="FOLDER")
    parser.add_argument("--figures", type=Path, default=FIGURES, metavar="FOLDER")
    chosen = parser.parse_args()
    path = write_records(chosen.results, chosen.records)
    print(f"{os.path.relpath(path)}: {path.stat().st_size / 1e6:.2f} MB")
    for figure in write_figures(chosen.records, chosen.figures):
        print(os.path.relpath(figure))


if __name__ == "__main__":
    main()
