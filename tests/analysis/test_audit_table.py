"""The audit matrix as people and programs read it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from matplotlib.colors import to_hex
from rich.console import Console

from analysis import figures
from analysis.answers import answers
from analysis.audit_table import as_json, markdown, render
from analysis.figures.style import FAILED_HATCH
from analysis.frame import load
from analysis.sections import GENERAL, notebooks
from tests.factories import environment, failed, gradient, ok, write

TWICE = gradient(verdict="scaled", scale=2.0, scale_label="×2")


@pytest.fixture
def frame(tmp_path: Path) -> Any:
    """Old torch fails with all_gather; on the new one it is scaled but at ZeRO 3."""
    old = environment("torch-2.2", "2.2.2")
    write(
        tmp_path,
        *(failed(environment=old, loss="all_gather", zero=z, steps=1) for z in (1, 3)),
        *(ok(environment=old, loss="local", zero=z, steps=1) for z in (1, 3)),
        ok(loss="all_gather", zero=1, steps=1, gradient=TWICE),
        ok(loss="all_gather", zero=3, steps=1),
        *(ok(loss="local", zero=z, steps=1) for z in (1, 3)),
    )
    return load(tmp_path)


def test_the_terminal_shows_a_matrix_for_each_version(frame: Any) -> None:
    console = Console(file=io.StringIO(), width=80)
    render(frame, console)
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    assert max(map(len, lines)) <= 80
    start = lines.index("torch-2.13 (torch 2.13.0, DeepSpeed 0.18.2)")
    assert [line.split() for line in lines[start + 1 : start + 4]] == [
        ["loss", "split", "mask", "ZeRO", "1", "ZeRO", "3"],
        ["all_gather", "sp=2", "dp=2", "ragged", "×2", "×1"],
        ["local", "sp=2", "dp=2", "ragged", "×1", "×1"],
    ]
    assert "IndexError: IndexError in backward, ranks 2,3" in lines
    assert "comm nccl_over_gloo: torch's NCCL code path emulated on gloo" in lines
    assert lines[-1] == "8 trials: 6 ok, 2 error; not ok: 2; ✗ wrong gradient: 1"


def test_markdown_is_a_table_for_each_version(frame: Any) -> None:
    assert markdown(frame).splitlines()[2:6] == [
        "| loss | split | mask | ZeRO 1, 3 |",
        "| --- | --- | --- | --- |",
        "| all_gather | sp=2 dp=2 | ragged | IndexError |",
        "| local | sp=2 dp=2 | ragged | ×1 |",
    ]
    assert "| all_gather | sp=2 dp=2 | ragged | ×2 | ×1 |" in markdown(frame)
    assert "emulated on gloo" in markdown(frame)


def test_json_has_every_case(frame: Any) -> None:
    found = json.loads(as_json(frame))["cells"]
    assert len(found) == 8
    assert {
        "environment": "torch-2.13",
        "loss": "all_gather",
        "split": "sp=2 dp=2",
        "mask": "ragged",
        "zero": 1,
        "kind": "scaled",
        "text": "×2",
        "detail": "",
        "beside_other": "",
        "trials": 1,
    } in found


def test_an_audit_is_answered_in_gradients_and_not_in_times(frame: Any) -> None:
    [answer] = answers(frame)
    assert answer.sentences == (
        "torch-2.2, right in every case at ZeRO 1, 3: local.",
        "torch-2.13, right in every case at ZeRO 1: local; at ZeRO 3: all_gather, local.",
    )


def test_the_report_of_an_audit_has_no_notebook_on_times(frame: Any, tmp_path: Path) -> None:
    assert notebooks(frame) == ["gradient_error"]
    write(tmp_path / "timed", ok())
    assert notebooks(load(tmp_path / "timed")) == list(GENERAL)
    write(tmp_path / "timed", ok(steps=1, loss="local"))
    assert notebooks(load(tmp_path / "timed")) == list(GENERAL)


def test_predictions_need_eight_amounts_of_work(tmp_path: Path) -> None:
    write(tmp_path, *(ok(seq_len=64 * length) for length in range(1, 8)))
    assert notebooks(load(tmp_path)) == list(GENERAL)
    write(tmp_path, ok(seq_len=64 * 8))
    assert notebooks(load(tmp_path)) == [*GENERAL, "prediction"]


def test_the_figure_has_a_panel_for_each_version_and_says_what_is_right(frame: Any) -> None:
    figure = figures.gradient_matrix(frame)
    assert figures.alt_text(figure).startswith("Right in every case: local. ")
    old, new = figure.axes
    assert [tick.get_text() for tick in new.get_xticklabels()] == ["ZeRO 1", "ZeRO 3"]
    assert [tile.get_hatch() for tile in old.patches] == [FAILED_HATCH, ""]
    yellow = to_hex("#F2C14E")
    assert [to_hex(tile.get_facecolor()) == yellow for tile in new.patches] == [
        True, False, False, False,
    ]  # fmt: skip


def test_the_figure_says_so_where_no_aggregation_is_right_everywhere(tmp_path: Path) -> None:
    write(tmp_path, ok(zero=1, gradient=TWICE), ok(zero=3), ok(zero=2, gradient=TWICE))
    title = figures.alt_text(figures.gradient_matrix(load(tmp_path)))
    assert title.startswith(
        "No loss aggregation is right at every ZeRO stage: at ZeRO 1, 2 none; at ZeRO 3 all_gather"
    )
