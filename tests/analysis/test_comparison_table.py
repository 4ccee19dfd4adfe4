"""Comparisons on paper, and for other programs."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from analysis.compare import compare
from analysis.comparison import Comparison
from analysis.comparison_export import as_csv, as_json
from analysis.comparison_table import grids, markdown, render
from tests.analysis.sides import OLD_ALL_GATHER, UPGRADE, WORKAROUND, question


@pytest.fixture
def upgrade(tmp_path: Path) -> Comparison:
    return compare(question(tmp_path), WORKAROUND, UPGRADE)


@pytest.fixture
def failing(tmp_path: Path) -> Comparison:
    return compare(question(tmp_path), OLD_ALL_GATHER, UPGRADE)


def test_a_row_a_point(upgrade: Comparison) -> None:
    speed, details, parts = grids(upgrade)
    assert speed.header[-7:] == [
        "seq_len", "baseline", "candidate", "ratio", "95 %", "rounds", "verdict",
    ]  # fmt: skip
    assert list(map(list, speed.rows)) == [
        ["512", "1,024", "2,048", "2.000", "2.000–2.000", "3", "faster"],
        ["2,048", "4,096", "4,096", "1.000", "1.000–1.000", "3", "no difference seen"],
    ]
    assert list(details.rows[0]) == [
        "512", "-500.00", "-200.00", "-50.00", "-150.00", "-100.00", "1.000", "match | ×2",
    ]  # fmt: skip
    assert list(parts.header) == [
        "seq_len", "total", "torch-2.2 → torch-2.13", "weighted_all_reduce → all_gather",
    ]  # fmt: skip
    assert list(parts.rows[0]) == [
        "512", "2.000 (2.000–2.000)", "1.250 (1.250–1.250)", "1.600 (1.600–1.600)",
    ]  # fmt: skip
    assert parts.rows[-1][0] == "all"


def test_statuses_stand_where_there_is_no_number(failing: Comparison) -> None:
    speed, details = grids(failing)
    assert list(speed.rows[0]) == ["512", "error 3", "2,048", "", "", "0", "no number"]
    assert list(details.rows[0]) == ["512", *[""] * 6, "– | ×2"]


@pytest.mark.parametrize("width", [60, 80, 200])
def test_numbers_stay_whole_on_any_terminal(upgrade: Comparison, width: int) -> None:
    text = io.StringIO()
    render(upgrade, Console(file=text, width=width, _environ={}))
    shown = text.getvalue()
    for number in ("2.000–2.000", "-500.00", "+0.00", "candidate minus baseline [ms]"):
        assert number in shown
    assert "Upgrading is torch-2.13" in shown


def test_markdown_has_tables_and_sentences(upgrade: Comparison) -> None:
    lines = markdown(upgrade).splitlines()
    assert lines[0] == ("## torch-2.13 with all_gather against torch-2.2 with weighted_all_reduce")
    assert "| 512 | 1,024 | 2,048 | 2.000 | 2.000–2.000 | 3 | faster |" in lines
    assert any(line.endswith("| match \\| ×2 |") for line in lines)
    assert "- The workaround's gradient is right and all_gather's is twice too large." in lines


def test_csv_has_a_row_a_point(upgrade: Comparison, failing: Comparison) -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv([upgrade, failing]))))
    assert [row["seq_len"] for row in rows] == ["512", "2048"] * 2
    first, _, third, _ = rows
    assert first["baseline"] == "environment=torch-2.2 loss=weighted_all_reduce"
    assert float(first["ratio"]) == pytest.approx(2.0)
    assert float(first["environment_effect"]) == pytest.approx(1.25)
    assert float(first["loss_effect_low"]) == pytest.approx(1.6)
    assert float(first["step_difference_s"]) == pytest.approx(-0.5)
    assert (third["baseline_statuses"], third["ratio"]) == ("error 3", "")


def test_json_is_complete(upgrade: Comparison, failing: Comparison) -> None:
    one, two = json.loads(as_json([upgrade, failing]))
    assert one["points"][0]["axes"] == {"seq_len": 512}
    assert one["points"][0]["ratio"]["value"] == pytest.approx(2.0)
    assert one["decomposition"]["first"]["axis"] == "environment"
    assert one["sentences"][0].startswith("Upgrading is")
    assert two["points"][0]["baseline"]["failure"] == "IndexError in backward, ranks 2,3"
    assert two["decomposition"] is None
