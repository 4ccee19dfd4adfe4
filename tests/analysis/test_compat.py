"""The matrix of `compat`, in the terminal, as a figure and in the report."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from analysis import figures, sections
from analysis.answers import answers
from analysis.compat import Pair, matrices, stages_text
from analysis.frame import load
from analysis.sections import compat as section
from bench.record import Record, Status
from bench.trial import EnvironmentSpec
from tests.factories import failed, ok, write

REQUIRES = "count_used_parameters_in_backward requires internal PyTorch APIs"


def stage(zero: int, verdict: str | None = "match", scale: str = "×1", **fields: Any) -> dict:
    found = {"zero": zero, "status": "ok", "duration_s": 1.0, "reason": None}
    nothing = {"phase": None, "exception": None, "message": None}
    return {**found, **nothing, "verdict": verdict, "scale": scale, **fields}


def failing(zero: int, phase: str = "backward", message: str = REQUIRES) -> dict:
    failure = {"phase": phase, "exception": "AssertionError", "message": message}
    return stage(zero, None, "", status="error", reason=f"AssertionError in {phase}", **failure)


def trial(torch: str, deepspeed: str, *stages: dict, **fields: Any) -> Record:
    """A record of one pair; the environment's failure is `failure`."""
    failure = fields.pop("failure", None)
    bad = [one for one in stages if one["status"] != "ok"]
    status = Status.ENVIRONMENT if failure else Status.ERROR if bad else Status.OK
    if failure is None and bad:
        failure = {key: bad[0][key] for key in ("zero", "phase", "exception", "message")}
    spec = EnvironmentSpec(name=f"{torch}+{deepspeed}", torch=torch, deepspeed=deepspeed)
    values = {
        "environment": spec,
        "scenario": "compat",
        "samples": [],
        "gradient": None,
        "details": {"stages": list(stages), "failure": failure},
    }
    if status is Status.OK:
        return ok(**{**values, **fields})
    return failed(status, errors=[], **{**values, **fields})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two versions of torch, three of DeepSpeed, one pair not tried."""
    whole = [stage(0), stage(1), stage(2), stage(3, "scaled", "×1/2")]
    unresolved = {
        "zero": None,
        "phase": "resolve",
        "exception": None,
        "message": "error: No solution found",
    }
    unimportable = {
        "zero": None,
        "phase": "import",
        "exception": "ImportError",
        "message": "cannot import name 'custom_op'",
    }
    write(
        tmp_path,
        trial("2.13.0", "0.18.2", *whole),
        trial("2.2.2", "0.18.2", *whole),
        trial("2.2.2", "0.18.6", stage(0), *map(failing, (1, 2, 3))),
        trial("2.2.2", "0.19.8", failure=unimportable),
        trial("2.13.0", "0.19.8", failure=unresolved),
    )
    return tmp_path


def shown(folder: Path, **fields: Any) -> list[str]:
    """What the terminal shows, line by line."""
    text = io.StringIO()
    section.show(folder, load(folder), Console(file=text, width=120))
    return [line.rstrip() for line in text.getvalue().splitlines()]


def test_the_terminal_shows_every_cell_and_what_was_said(folder: Path) -> None:
    assert shown(folder) == [
        "Which DeepSpeed runs on which torch, by ZeRO stage",
        "DeepSpeed  torch 2.2.2                            torch 2.13.0",
        "0.18.2     ZeRO 0–2 ok                            ZeRO 0–2 ok",
        "           ZeRO 3 ok, gradient ×1/2               ZeRO 3 ok, gradient ×1/2",
        "0.18.6     ZeRO 0 ok                              -",
        "           ZeRO 1–3 backward: AssertionError [1]",
        "0.19.8     import: ImportError [2]                does not resolve [3]",
        "[1] backward: AssertionError: torch 2.2.2 with DeepSpeed 0.18.6 (ZeRO 1–3)",
        f"    {REQUIRES}",
        "[2] import: ImportError: torch 2.2.2 with DeepSpeed 0.19.8",
        "    cannot import name 'custom_op'",
        "[3] does not resolve: torch 2.13.0 with DeepSpeed 0.19.8",
        "    error: No solution found",
        "torch's NCCL code path emulated on gloo",
        "5 trials: 2 ok, 2 environment, 1 error; not ok: 3",
    ]


def test_rounds_that_differ_are_both_told(tmp_path: Path) -> None:
    write(
        tmp_path,
        trial("2.2.2", "0.18.2", stage(0)),
        trial("2.2.2", "0.18.2", failing(0), round=1),
    )
    [matrix] = matrices(tmp_path, load(tmp_path))
    outcomes = matrix.cells[Pair("2.2.2", "0.18.2")][0]
    assert {one.text for one in outcomes} == {"ok", "backward: AssertionError"}
    assert figures.alt_text(figures.compat(tmp_path, load(tmp_path))).startswith(
        "0 of 1 pair trains"
    )


def test_other_axes_make_matrices_of_their_own(tmp_path: Path) -> None:
    write(
        tmp_path,
        trial("2.2.2", "0.18.2", stage(0), loss="local"),
        trial("2.2.2", "0.18.2", stage(0, "scaled", "×2"), loss="all_gather"),
    )
    found = {one.variant: one for one in matrices(tmp_path, load(tmp_path))}
    assert set(found) == {"loss=local", "loss=all_gather"}
    assert "ZeRO 0 ok, gradient ×2" in " ".join(shown(tmp_path))


@pytest.mark.parametrize(
    ("verdict", "text"),
    [
        ("match", "ok"),
        ("wrong", "wrong gradient"),
        ("none", "no gradient"),
        (None, "ok"),
    ],
)
def test_a_stage_that_ran_has_its_verdict(verdict: str | None, text: str, tmp_path: Path) -> None:
    write(tmp_path, trial("2.2.2", "0.18.2", stage(0, verdict)))
    [matrix] = matrices(tmp_path, load(tmp_path))
    [outcome] = matrix.cells[Pair("2.2.2", "0.18.2")][0]
    assert (outcome.kind, outcome.text) == (verdict or "ran", text)


def test_a_hang_is_called_by_its_status(tmp_path: Path) -> None:
    hang = {"phase": "backward", "exception": None, "message": "no progress for 60 s"}
    write(tmp_path, trial("2.2.2", "0.18.2", stage(1, None, "", status="hang", **hang)))
    assert "0.18.2     ZeRO 1 backward: hang [1]" in shown(tmp_path)


def test_a_trial_that_was_refused_is_told(tmp_path: Path) -> None:
    reason = "options.zero=[7]: must be ZeRO stages"
    spec = EnvironmentSpec(name="a", torch="2.2.2", deepspeed="0.18.2")
    record = failed(environment=spec, scenario="compat", errors=[], reason=reason, details={})
    write(tmp_path, record)
    assert {"0.18.2     error [1]", f"    {reason}"} <= set(shown(tmp_path))


@pytest.mark.parametrize(
    ("stages", "text"),
    [([0, 1, 2], "ZeRO 0–2"), ([3], "ZeRO 3"), ([0, 2], "ZeRO 0, 2"), ([None], "environment")],
)
def test_stages_in_words(stages: list[int | None], text: str) -> None:
    assert stages_text(stages) == text


def test_the_figure_says_how_many_run(folder: Path) -> None:
    said = figures.alt_text(figures.compat(folder, load(folder)))
    assert said.startswith(
        "2 of 5 pairs train at every ZeRO stage that was tried, 2 at none; "
        "2 with a gradient that is not the reference's somewhere"
    )
    assert "torch 2.2.2 with DeepSpeed 0.18.6, ZeRO 1: backward: AssertionError" in said
    table = figures.compat_table(folder, load(folder))
    assert len(table) == 5
    assert set(table["at"]) == {"ZeRO 1", "ZeRO 2", "ZeRO 3", "environment"}
    assert "variant" not in table


def test_without_trials_of_it_the_figure_says_so(tmp_path: Path) -> None:
    write(tmp_path, ok())
    frame = load(tmp_path)
    assert "No pair of versions" in figures.alt_text(figures.compat(tmp_path, frame))
    assert list(figures.compat_table(tmp_path, frame)) == ["nothing failed"]


def test_the_report_holds_its_notebook_and_compares_nothing(folder: Path) -> None:
    frame = load(folder)
    assert sections.notebooks(frame) == ["compat"]
    assert answers(frame) == []


def test_the_answer_counts_pairs_and_names_what_failed(folder: Path) -> None:
    said = section.sentences(folder, load(folder))
    assert said[0] == (
        "2 of 5 pairs train at every ZeRO stage that was tried, 2 at none; "
        "2 with a gradient that is not the reference's somewhere."
    )
    assert "torch 2.2.2 with DeepSpeed 0.18.6 (ZeRO 1–3)." in " ".join(said[1:])
    assert len(said) == 4


def test_two_environments_with_the_same_versions_are_two_ways_to_try_them(tmp_path: Path) -> None:
    """Once they shared a cell, which then said both of one pair."""
    whole = trial("2.13.0", "0.18.2", stage(0))
    spec = whole.config.environment.model_copy(update={"name": "pinned"})
    other = trial("2.13.0", "0.18.2", failing(0), environment=spec)
    write(tmp_path, whole, other, trial("2.2.2", "0.18.2", stage(0)))
    found = {
        matrix.variant: {
            pair.torch: [o.kind for os in cell.values() for o in os]
            for pair, cell in matrix.cells.items()
        }
        for matrix in matrices(tmp_path, load(tmp_path))
    }
    assert found == {
        "": {"2.2.2": ["match"]},
        "environment=2.13.0+0.18.2": {"2.13.0": ["match"]},
        "environment=pinned": {"2.13.0": ["failed"]},
    }


def test_code_that_was_edited_is_a_matrix_of_its_own(tmp_path: Path) -> None:
    codes = [{"model": digit * 16} for digit in "ab"]
    stages = (stage(0), failing(0))
    trials = [
        trial("2.13.0", "0.18.2", one, code=code) for one, code in zip(stages, codes, strict=True)
    ]
    write(tmp_path, *trials)
    assert [matrix.variant for matrix in matrices(tmp_path, load(tmp_path))] == [
        "variant=model aaaaaa",
        "variant=model bbbbbb",
    ]
