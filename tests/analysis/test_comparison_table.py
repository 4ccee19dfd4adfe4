"""Comparisons on paper, and for other programs."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import pytest
from rich.console import Console

from analysis.compare import compare
from analysis.comparison import Comparison
from analysis.comparison_export import as_csv, as_json
from analysis.comparison_table import grids, markdown, render
from tests.analysis.sides import OLD_ALL_GATHER, UPGRADE, WORKAROUND, frame_of, question, timed


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
    # 1,024 tokens in 1, 1.3 and 0.8 s: 1,024 / 1.04^(1/3) on average
    assert list(map(list, speed.rows)) == [
        ["512", "1,011", "2,021", "2.000", "2.000–2.000", "3", "faster ✗"],
        ["2,048", "4,043", "4,043", "1.000", "1.000–1.000", "3", "no difference seen ✗"],
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


def test_the_shown_speeds_are_those_that_the_ratio_is_made_of(tmp_path: Path) -> None:
    # Medians of its own rounds: 1,024 / 1.0 and 1,024 / 1.3, though both are alike in each round.
    records = [*timed(WORKAROUND, 1.0, 3), *timed(UPGRADE, 1.0, 2)[1:]]
    comparison = compare(frame_of(tmp_path, records), WORKAROUND, UPGRADE)
    [point] = comparison.points
    assert point.baseline.tokens_per_s is not None and point.candidate.tokens_per_s is not None
    assert point.baseline.tokens_per_s.value != pytest.approx(point.candidate.tokens_per_s.value)
    [speed, *_] = grids(comparison)
    assert list(speed.rows[0]) == ["788", "788", "1.000", "", "1", "too few rounds"]  # 1,024 / 1.3
    [row] = csv.DictReader(io.StringIO(as_csv([comparison])))
    assert float(row["baseline_paired_tokens_per_s"]) == pytest.approx(1024 / 1.3)
    assert float(row["baseline_tokens_per_s"]) == pytest.approx(1024)


def test_a_mean_of_ratios_is_shown_as_a_ratio_of_means(tmp_path: Path) -> None:
    # Twice as fast in one round, half as fast in the other: 1,024 * (1 * 4)^(1/2) on both sides.
    sides = ((WORKAROUND, (1.0, 0.25)), (UPGRADE, (0.5, 0.5)))
    records = [
        record.model_copy(update={"round": r})
        for side, steps in sides
        for r, step_s in enumerate(steps)
        for record in timed(side, step_s, 1)
    ]
    [speed, *_] = grids(compare(frame_of(tmp_path, records), WORKAROUND, UPGRADE))
    assert list(speed.rows[0][:3]) == ["2,048", "2,048", "1.000"]


def test_without_a_common_round_each_side_shows_its_own_median(tmp_path: Path) -> None:
    records = [*timed(WORKAROUND, 1.0, 1), *timed(UPGRADE, 1.0, 2)[1:]]
    [speed, *_] = grids(compare(frame_of(tmp_path, records), WORKAROUND, UPGRADE))
    assert list(speed.rows[0][:5]) == ["(1,024)", "(788)", "", "", "0"]
    assert "in brackets: median of a side's own rounds" in speed.title


def test_the_correlation_of_rounds_stands_beside_the_verdict(tmp_path: Path) -> None:
    # Deviations of -4.5 … 4.5 hundredths: 57.75 / 82.5.
    records = [
        *timed(WORKAROUND, 1.0, 10),
        *(timed(UPGRADE, math.exp(-0.01 * r), 10)[r] for r in range(10)),
    ]
    comparison = compare(frame_of(tmp_path, records), WORKAROUND, UPGRADE)
    [speed, *_] = grids(comparison)
    assert list(zip(speed.header[-3:], speed.rows[0][-3:], strict=True)) == [
        ("rounds", "10"), ("corr.", "+0.70*"), ("verdict", "no difference seen"),
    ]  # fmt: skip
    [row] = csv.DictReader(io.StringIO(as_csv([comparison])))
    assert float(row["correlation"]) == pytest.approx(0.7)
    assert float(row["rounds_effective"]) == pytest.approx(10 * 0.3 / 1.7)
    assert (row["rounds_dependent"], float(row["correlation_p_value"]) < 0.01) == ("True", True)
    [one] = json.loads(as_json([comparison]))
    assert one["points"][0]["ratio"]["correlation"]["value"] == pytest.approx(0.7)


def test_statuses_stand_where_there_is_no_number(failing: Comparison) -> None:
    speed, details = grids(failing)
    assert list(speed.rows[0]) == ["512", "error 3", "(2,048)", "", "", "0", "no number"]
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
    assert "| 512 | 1,011 | 2,021 | 2.000 | 2.000–2.000 | 3 | faster ✗ |" in lines
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
