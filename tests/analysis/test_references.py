"""What tables, audits and sentences say of the definition that a gradient is not judged by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from analysis import references
from analysis.audit_table import as_json, beside_other, markdown
from analysis.compare import compare, sentences
from analysis.frame import load
from analysis.table import reasons, render, summary
from tests import factories
from tests.factories import gradient, other

OFF = {"verdict": "wrong", "relative_error": 0.0291, "residual": 0.029}


def frame(folder: Path, *, own: dict[str, Any] | None = None, **fields: Any) -> pd.DataFrame:
    """Of two aggregations; `local` is beside the other definition what `fields` say."""
    known = other(**{**OFF, **fields})
    local = gradient(other=known, **(own or {}))
    records = [
        factories.ok(round=n, loss=loss, gradient=local if loss == "local" else gradient())
        for n in range(3)
        for loss in ("local", "all_gather")
    ]
    factories.write(folder, *records)
    return load(folder)


def test_a_table_says_it_beside_the_verdict(tmp_path: Path) -> None:
    trials = frame(tmp_path)
    table = summary(trials).set_index("loss")
    assert table.gradient["local"] == "match ×1 (token_mean: 2.9 % off)"
    assert table.gradient["all_gather"] == "match ×1"
    console = Console(width=200, record=True)
    render(trials, console)
    text = " ".join(console.export_text().split())
    assert "token_mean: the same gradient beside that of the mean over all valid tokens" in text
    assert "verdicts are by replica_mean, the mean over replicas of each one's mean" in text


@pytest.mark.parametrize(
    ("own", "fields", "words"),
    [
        ({}, {}, "token_mean: 2.9 % off"),
        ({}, {"verdict": "match"}, ""),
        ({"verdict": "wrong"}, {"verdict": "match"}, "token_mean: match"),
        ({"verdict": "wrong"}, {}, ""),
        ({}, {"verdict": "scaled", "scale_label": "×2"}, "token_mean: ×2"),
        (
            {"verdict": "scaled", "scale_label": "×2"},
            {"relative_error": 1.001},
            "token_mean: ×2 and 2.9 % off",
        ),
        ({}, {"relative_error": 0.21}, "token_mean: 21 % off"),
        ({}, {"relative_error": None}, "token_mean: wrong"),
    ],
    ids=str,
)
def test_the_words(tmp_path: Path, own: dict[str, Any], fields: dict[str, Any], words: str) -> None:
    trials = frame(tmp_path, own=own, **fields)
    assert references.words(trials) == words
    assert bool(references.legend(trials)) == bool(words)


def test_an_audit_says_it_below_the_matrix(tmp_path: Path) -> None:
    trials = frame(tmp_path)
    assert "verdicts are by replica_mean" in markdown(trials)
    assert markdown(trials).count("where this says ×1: 2.9 % off") == 1
    assert as_json(trials).count("token_mean: 2.9 % off") == 1


def test_an_audit_of_both_definitions_has_a_line_for_each(tmp_path: Path) -> None:
    known = other(reference="replica_mean", verdict="match", scale_label="×1")
    tokens = gradient(verdict="wrong", other=known)
    factories.write(tmp_path, factories.ok(reference="token_mean", gradient=tokens))
    lines = beside_other(frame(tmp_path))
    assert len(lines) == 2
    first, second = sorted(lines)
    assert first.startswith("replica_mean: the same gradient")
    assert first.endswith(": where this says wrong: right")
    assert second.startswith("token_mean: the same gradient")
    assert second.endswith(": where this says ×1: 2.9 % off")


@pytest.mark.parametrize(
    ("own", "fields", "count"),
    [
        ({}, {"verdict": "match"}, 3),
        ({"verdict": "scaled", "scale_label": "×2"}, {"verdict": "scaled", "scale_label": "×2"}, 3),
        ({}, {}, 0),
        ({"verdict": "wrong"}, {}, 0),
        ({"verdict": "none"}, {"verdict": "none"}, 0),
    ],
    ids=str,
)
def test_where_rounding_hides_the_definition_it_is_said(
    tmp_path: Path, own: dict[str, Any], fields: dict[str, Any], count: int
) -> None:
    """In bfloat16 the definitions may be nearer than the tolerance: `match` is then of both."""
    trials = frame(tmp_path, own=own, **fields)
    said = [f"replica_mean and token_mean: in {count} of 6 trials their gradients differ by less"]
    found = references.alike(trials)
    assert [line[: len(said[0])] for line in found] == (said if count else [])
    assert all(line in markdown(trials) and line in reasons(trials) for line in found)


def test_a_comparison_says_it_in_a_sentence(tmp_path: Path) -> None:
    said = sentences(compare(frame(tmp_path), {"loss": "local"}, {"loss": "all_gather"}))
    assert "Beside token_mean the gradient of local is 2.9 % off." in said


def test_records_before_the_field_say_nothing(tmp_path: Path) -> None:
    trials = load(Path(__file__).resolve().parents[2] / "results" / "reference")
    assert set(trials.reference) == {"replica_mean"}
    assert trials.gradient_other.isna().all()
    assert references.legend(trials) == []
