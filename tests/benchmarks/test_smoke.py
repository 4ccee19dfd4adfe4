"""Every benchmark runs to its end, at a size that says nothing about its targets."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.analysis.sides import question

ROOT = Path(__file__).resolve().parents[2]
PARTS = {
    "__init__",
    "coverage_cases",
    "fuzz_overrides",
    "fuzz_records",
    "fuzzing",
    "launching",
    "leftovers",
    "report",
    "standalone",
}
"""Modules that scripts use; they have no `main` of their own, or only a rank runs it."""

SMOKE = {
    "controller": ["1", "--records", "60"],
    "coverage": ["3"],
    "faults": ["3", "--seed", "1"],
    "fuzz": ["--overrides", "40", "--records", "10"],
    "independence": [],
    "instrumentation": ["--rounds", "2", "--steps", "1"],
    "launch_overhead": ["--torchruns", "1", "--warm", "1"],
    "memory": ["--lengths", "128"],
    "mutants": ["--only", "ranks that differ are no fault"],
    "prediction": ["recorded", "--record", "rounds=1", "steps=1", "seq_len=64,128,256"],
    "published": [],
    "records": ["40"],
    "reference": ["question", "--records", "pruned", "--figures", "drawn"],
    "validity": ["--rounds", "3", "--steps", "1", "--seq-len", "64", "--blocks", "9"],
}
"""The arguments of each."""


def run(script: str, folder: Path, *arguments: str) -> tuple[list[str], list[str]]:
    """Run `script` in `folder` as a user does; gives the lines it printed, and its targets.

    `arguments` are those of SMOKE unless others are given.

    The exit code must be 1 where a target was missed, which is no fault here, and else 0.
    """
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{script}", *(arguments or SMOKE[script])],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stdout.splitlines()
    verdicts = [re.fullmatch(r"(.*): \S+.* \(target .*\): (reached|missed)", one) for one in lines]
    found = [verdict for verdict in verdicts if verdict is not None]
    assert done.returncode == any(one[2] == "missed" for one in found), done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return lines, [one[1] for one in found]


def test_every_script_is_run() -> None:
    names = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    assert names - PARTS == set(SMOKE), "give a new script its arguments in SMOKE, and a test"
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert set(SMOKE) <= tested


def test_controller(tmp_path: Path) -> None:
    lines, targets = run("controller", tmp_path)
    assert re.match(r"44 records of \d,\d{3} bytes; 1 blocks of 32 trials", lines[0])
    assert targets == [
        "controller time at the 10th trial",
        "controller time at the 60th trial",
        "their difference, without composing",
    ]


def test_coverage(tmp_path: Path) -> None:
    lines, targets = run("coverage", tmp_path)
    assert lines[0] == "3 comparisons for each number of rounds; shares in %"
    assert [int(line.split()[0]) for line in lines[2:16]] == [*range(3, 13), 15, 20, 25, 30]
    judged = [f"coverage at {rounds} rounds" for rounds in (*range(8, 13), 15, 20, 25, 30)]
    sides = [
        f"coverage at {rounds} rounds, sides correlated by {correlation}"
        for correlation in (0.3, 0.5)
        for rounds in (5, 10, 20, 30)
    ]
    assert targets[:-5] == [*(name for name in judged for _ in range(2)), *sides]
    assert all(name.startswith("points as one, ") for name in targets[-5:])
    assert sum("correlated noise of" in line for line in lines) == 2


def attacked(lines: list[str], targets: list[str], *halves: str) -> None:
    """Assert that `fuzz` gave `halves` and found nothing; how long a command took is no fault."""
    shown = [line for line in lines if line.startswith(halves)]
    assert len(shown) == len(halves) and shown[0] == lines[0]
    found = [line for line in lines if line.endswith(": missed") and "slowest" not in line]
    assert len(targets) == 5 * len(halves) and not found, "\n".join(lines)


def test_fuzz(tmp_path: Path) -> None:
    attacked(*run("fuzz", tmp_path), "40 lists of overrides, ", "10 records files, ")


def test_independence(tmp_path: Path) -> None:
    lines, targets = run("independence", tmp_path)
    assert re.match(r"\d+ A/A pairs in \d+ series", lines[0]) and targets == []
    assert [line.split(":")[0] for line in lines[-3:]] == [
        f"windows of {rounds} rounds" for rounds in (3, 5, 10)
    ]


def test_mutants(tmp_path: Path) -> None:
    lines, targets = run("mutants", tmp_path)
    assert re.fullmatch(
        r"killed +\d+\.\d s  bench/verdicts.py: ranks that differ are no fault", lines[0]
    )
    assert lines[1] == "1 mutants: 1 killed"
    assert targets == ["mutants that live without a reason", "mutants that could not be tried"]


def test_published(tmp_path: Path) -> None:
    lines, targets = run("published", tmp_path)
    assert lines[0] == "# Published results, checked" and targets == []


def test_records(tmp_path: Path) -> None:
    lines, targets = run("records", tmp_path)
    assert lines[0].startswith("40 records, ")
    assert lines[2].startswith("Record.model_validate, 40 records scaled to 40: ")
    assert targets == ["reading 40 records", "peak memory of the reading processes"]


def test_reference(tmp_path: Path) -> None:
    question(tmp_path / "question")
    lines, targets = run("reference", tmp_path)
    assert re.match(r"pruned/records-reference\.jsonl: 0\.\d\d MB", lines[0]) and targets == []
    drawn = {str(path.relative_to(tmp_path)) for path in (tmp_path / "drawn").glob("*.svg")}
    assert set(lines[1:]) == drawn and len(drawn) == 6


@pytest.mark.environment
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_memory(tmp_path: Path) -> None:
    lines, targets = run("memory", tmp_path)
    assert sum("predicted" in line and "measured" in line for line in lines) == 2 + 7
    assert targets == [
        "largest error at every length and split",
        "median error over ZeRO stages, bfloat16, checkpointing and tiles",
    ]


@pytest.mark.environment
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_instrumentation(tmp_path: Path) -> None:
    lines, targets = run("instrumentation", tmp_path)
    assert lines[0].endswith("; 2 rounds of 1 steps on each side")
    assert targets == ["cost of instrumentation"]


@pytest.mark.environment
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_launch_overhead(tmp_path: Path) -> None:
    lines, targets = run("launch_overhead", tmp_path)
    assert len(lines[1].removeprefix("warm server, s: ").split()) == 1
    assert targets == ["launch overhead of the warm server", "torchrun / warm server"]


@pytest.mark.environment
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_faults(tmp_path: Path) -> None:
    lines, targets = run("faults", tmp_path)
    assert [line.split(":")[0].strip() for line in lines[:3]] == ["1", "2", "3"]
    assert any(line.startswith("20 records: ") for line in lines)
    assert not any(line.endswith(": missed") for line in lines), lines
    assert targets[:3] == ["faults", "lost trials", "trials recorded twice"]
    assert targets[-4:] == [
        "processes left",
        "scratch folders left",
        "files in shared memory left",
        "locks left",
    ]


@pytest.mark.environment
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_prediction(tmp_path: Path) -> None:
    lines, targets = run("prediction", tmp_path)
    assert any(line.startswith("18 configurations on 4 ranks") for line in lines)
    ways = ("256 tokens", "sp=1 dp=4", "sp=2 dp=2", "sp=4 dp=1")
    assert targets == [f"left out {way}: median error" for way in ways]


@pytest.mark.environment
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_validity(tmp_path: Path) -> None:
    lines, targets = run("validity", tmp_path)
    assert any(line.startswith("108 trials, 0 not ok, ") for line in lines)
    assert targets == [
        "A/A: no difference seen",
        "10 % slower: found",
        "5 % slower: found",
        "intervals that hold the truth",
    ]
