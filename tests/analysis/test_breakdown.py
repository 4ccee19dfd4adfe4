"""Profiles in tables, figures and the command line, on a record whose numbers are by hand."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from analysis.answers import all_answers
from analysis.breakdown import CATEGORIES, one, profiles, shares
from analysis.figures import alt_text, breakdown, overlap_table, volume_table
from analysis.frame import AnalysisError, load
from analysis.sections import profile as section
from tests.conftest import ROOT
from tests.factories import failed, ok, write


def details(**fields: Any) -> dict[str, Any]:
    """Two ranks of 10 ms: rank 0 attends for 8 and waits for 2, rank 1 the other way round."""
    found: dict[str, Any] = {
        "headline": "attention 50 %",
        "profiled_steps": 3,
        "trace": "traces/trial.json.gz",
        "adds_up": True,
        "bytes_agree": True,
        "breakdown": [
            {
                "rank": rank,
                "seconds": {**dict.fromkeys(CATEGORIES, 0.0), "attention": a, "waiting": w},
                "sum_s": 0.010,
                "step_s": 0.010,
                "off_by": 0.0,
                "measured_step_s": 0.009,
            }
            for rank, a, w in ((0, 0.008, 0.002), (1, 0.002, 0.008))
        ],
        "overlap": [
            {"rank": 0, "transfer_s": 0.003, "hidden_s": 0.001},
            {"rank": 1, "transfer_s": 0.001, "hidden_s": 0.0},
        ],
        "collectives": [
            {
                "rank": 0,
                "category": "all_to_all",
                "phase": "forward",
                "collective": "all_to_all_single",
                "group": 2,
                "calls": 8.0,
                "bytes": 786432.0,
                "transfer_s": 0.003,
                "waiting_s": 0.002,
                "algorithm_bandwidth": 262144000.0,
                "bus_bandwidth": 131072000.0,
            }
        ],
        "ulysses": [
            {
                "rank": rank,
                "pass": "forward",
                "calls": 8.0,
                "expected_calls": 8,
                "bytes": 393216.0,
                "expected_bytes": 393216,
                "agrees": True,
            }
            for rank in (0, 1)
        ],
    }
    return {**found, **fields}


def folder_with(path: Path, **fields: Any) -> Path:
    """A folder with one profiled trial, its trace, and one that failed."""
    profiled = ok(scenario="profile", world=2, details=details(**fields))
    write(path, profiled, failed(scenario="profile", world=2, zero=2))
    (path / "traces").mkdir()
    (path / "traces" / "trial.json.gz").touch()
    return path


def trace(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "spbench", "trace", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_frames_have_a_row_for_each_fact(tmp_path: Path) -> None:
    found = profiles(folder_with(tmp_path))
    attention = found.breakdown[found.breakdown.category == "attention"]
    assert attention.seconds.tolist() == [0.008, 0.002]
    assert found.overlap.hidden_s.sum() == 0.001
    assert found.ulysses.bytes.tolist() == [393216.0] * 2
    assert found.collectives.bus_bandwidth.tolist() == [131072000.0]
    assert {len(part.trial_id.unique()) for part in found} == {1}  # not the one that failed


def test_shares_are_means_over_ranks() -> None:
    assert shares(details()) == {"attention": pytest.approx(0.5), "waiting": pytest.approx(0.5)}


def test_the_section_tells_shares_failures_and_disagreement(tmp_path: Path) -> None:
    rows = details()["ulysses"]
    rows[1].update(bytes=393212.0, agrees=False)
    folder = folder_with(tmp_path, ulysses=rows, bytes_agree=False)
    console = Console(width=100, record=True, quiet=False)
    section.show(folder, load(folder), console)
    text = console.export_text()
    assert " 50.0" in text
    assert "25.0 %" in text  # hidden: 1 of 4 ms
    assert "error: IndexError in backward" in text
    assert "rank 1, forward: 8 all-to-alls with 393,212 bytes sent; theory says 8 with" in text
    assert "all-to-all bytes equal theory's in 0 of 1" in " ".join(text.split())


def test_figure_and_tables(tmp_path: Path) -> None:
    folder = folder_with(tmp_path)
    frame, found = load(folder), profiles(folder)
    words = alt_text(breakdown(frame, found.breakdown))
    assert words.startswith("Attention takes 50 % of a step")
    assert volume_table(frame, found.ulysses)["ranks"].tolist() == ["0, 1"]
    assert volume_table(frame, found.ulysses)["agree"].tolist() == ["yes"]
    assert overlap_table(frame, found.overlap)["hidden share"].tolist() == ["25.0 %"]


def test_without_profiles_figure_and_tables_say_so(tmp_path: Path) -> None:
    write(tmp_path, failed(scenario="profile"))
    frame, found = load(tmp_path), profiles(tmp_path)
    assert alt_text(breakdown(frame, found.breakdown)).startswith("No profile")
    assert list(volume_table(frame, found.ulysses)) == ["no trial used Ulysses"]
    assert list(overlap_table(frame, found.overlap)) == ["no trial was profiled"]


def test_the_command_prints_one_trial_and_where_its_trace_is(tmp_path: Path) -> None:
    done = trace(folder_with(tmp_path))
    assert done.returncode == 0, done.stderr
    lines = {line.split("  ")[0].strip(): line.split() for line in done.stdout.splitlines()}
    assert lines["attention"][1:5] == ["8.00", "2.00", "50.0", "%"]
    assert lines["waiting for others"][3:7] == ["2.00", "8.00", "50.0", "%"]
    assert str(tmp_path / "traces" / "trial.json.gz") in done.stdout.replace("\n", "")


def test_a_trial_by_its_beginning(tmp_path: Path) -> None:
    folder = folder_with(tmp_path)
    frame = load(folder)
    profiled = frame[frame.status == "ok"].trial_id.iloc[0]
    assert one(folder, profiled[:6])["trial_id"] == profiled
    with pytest.raises(AnalysisError, match="has 2 trials of that beginning"):
        one(folder, "")
    with pytest.raises(AnalysisError, match=r"trial=zz: .* has no trial of that beginning"):
        one(folder, "zz")


def test_without_a_trace_there_is_one_line(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "profiled")
    frame = load(folder)
    broken = frame[frame.status == "error"].trial_id.iloc[0]
    done = trace(folder, broken)
    assert done.returncode == 2
    assert done.stderr == (
        f"spbench: trial={broken} has no trace (scenario profile, status error); "
        "`spbench sweep scenario=profile` leaves one for every trial that is ok\n"
    )
    (folder / "traces" / "trial.json.gz").unlink()
    with pytest.raises(AnalysisError, match=r"its trace .*trial.json.gz is gone; run it again"):
        one(folder)
    write(tmp_path / "plain", ok())
    with pytest.raises(AnalysisError, match="has no profiled trial; `spbench sweep scenario=pro"):
        one(tmp_path / "plain")


def test_the_answer_in_sentences(tmp_path: Path) -> None:
    folder = folder_with(tmp_path)
    [answer] = all_answers(folder, load(folder))
    assert answer.sides == "profile"
    assert answer.sentences == (
        "Attention: 50 % of a step, mean over ranks.",
        "Waiting: 50 % of a step, mean over ranks.",
        "The all-to-alls' calls and bytes are those of theory in 1 of 1 trials.",
        "Of the transfer, 25 % is hidden behind computation.",
    )
