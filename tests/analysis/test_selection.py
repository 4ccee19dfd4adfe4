"""Selectors as users write them, and the pairs that a folder was made for."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.comparison import Pair
from analysis.reading import AnalysisError
from analysis.selection import natural_pairs, parse_selector, select
from tests import factories
from tests.analysis.sides import (
    BETWEEN,
    OLD_ALL_GATHER,
    UPGRADE,
    WORKAROUND,
    broken,
    frame_of,
    question,
    timed,
)


def test_a_selector_is_pairs_of_key_and_value() -> None:
    text = "environment=torch-2.2 loss=all_gather 'options.note=two words'"
    assert parse_selector(text, "baseline") == {
        "environment": "torch-2.2",
        "loss": "all_gather",
        "options.note": "two words",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("torch-2.2", "candidate: 'torch-2.2' is not key=value"),
        ("loss=", "candidate: 'loss=' is not key=value"),
        ("", "candidate: empty"),
        ("loss='all", 'candidate: "loss=\'all" cannot be split into words'),
    ],
)
def test_what_is_no_selector(text: str, message: str) -> None:
    with pytest.raises(AnalysisError) as error:
        parse_selector(text, "candidate")
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("selector", "message"),
    [
        ({"enviroment": "torch-2.2"}, "enviroment: unknown axis; did you mean 'environment'?"),
        ({"xyz": "1"}, "xyz: unknown axis; allowed: seq_len, environment, loss"),
        (
            {"environment": "torch-2.31"},
            "environment=torch-2.31: no trial here has it; allowed: torch-2.2, torch-2.13; "
            "did you mean 'torch-2.13'?",
        ),
        ({"seq_len": "64"}, "seq_len=64: no trial here has it; allowed: 512, 2048"),
    ],
)
def test_bad_selectors_name_what_is_allowed(
    tmp_path: Path, selector: dict[str, str], message: str
) -> None:
    with pytest.raises(AnalysisError) as error:
        select(question(tmp_path), selector, "baseline")
    assert str(error.value) == f"baseline: {message}"


def test_values_that_never_meet(tmp_path: Path) -> None:
    frame = frame_of(tmp_path, [*timed(WORKAROUND, 1.0), *timed(UPGRADE, 1.0)])
    with pytest.raises(AnalysisError, match="environment=torch-2.2 and loss=all_gather together"):
        select(frame, OLD_ALL_GATHER, "baseline")


@pytest.mark.parametrize(
    ("axis", "text"),
    [
        ("seq_len", "512"),
        ("learning_rate", "1e-4"),
        ("gradient_check", "auto"),
        ("model.activation_checkpointing", "False"),
        ("model.activation_checkpointing", "false"),
        ("options.busy_s", "none"),
        ("memory_limit", "none"),
        ("dtype", "float32"),
    ],
)
def test_values_as_people_write_them(tmp_path: Path, axis: str, text: str) -> None:
    records = [*timed(UPGRADE, 1.0, 1), *timed(UPGRADE, 1.0, 1, seq_len=64, memory_limit=2**30)]
    records += timed(UPGRADE, 1.0, 1, seq_len=128, options={"busy_s": 0.5}, gradient_check="off")
    records += timed(UPGRADE, 1.0, 1, seq_len=256, learning_rate=1e-3, dtype="bfloat16")
    checkpointed = factories.TINY.model_copy(update={"activation_checkpointing": True})
    records += timed(UPGRADE, 1.0, 1, seq_len=32, model=checkpointed)
    chosen = select(frame_of(tmp_path, records), {axis: text}, "baseline")
    assert 512 in set(chosen.seq_len)
    assert len(chosen) < 5


def test_the_question_comes_first(tmp_path: Path) -> None:
    assert natural_pairs(question(tmp_path)) == [
        Pair(WORKAROUND, UPGRADE),
        Pair(OLD_ALL_GATHER, UPGRADE),
    ]


def test_every_newer_torch_is_an_upgrade(tmp_path: Path) -> None:
    middle = {"environment": "torch-2.3", "loss": "all_gather"}
    records = [*timed(UPGRADE, 1.0), *timed(WORKAROUND, 1.0), *timed(middle, 1.0)]
    assert natural_pairs(frame_of(tmp_path, records)) == [
        Pair(WORKAROUND, UPGRADE),
        Pair(WORKAROUND, middle),
    ]


def test_versions_are_ordered_by_number_even_if_nothing_ran(tmp_path: Path) -> None:
    records = [*broken(UPGRADE, worker=None), *broken(WORKAROUND, worker=None)]
    assert natural_pairs(frame_of(tmp_path, records)) == [Pair(WORKAROUND, UPGRADE)]


def test_one_environment_compares_aggregations_with_the_workaround(tmp_path: Path) -> None:
    local = {"environment": "torch-2.13", "loss": "local"}
    records = [*timed(local, 1.0), *timed(UPGRADE, 1.0), *timed(BETWEEN, 1.0)]
    workaround = {"loss": "weighted_all_reduce"}
    assert natural_pairs(frame_of(tmp_path, records)) == [
        Pair(workaround, {"loss": "all_gather"}),
        Pair(workaround, {"loss": "local"}),
    ]


def test_the_same_torch_under_two_names_is_no_upgrade(tmp_path: Path) -> None:
    records = [
        record
        for name in ("a", "b")
        for loss in ("all_gather", "weighted_all_reduce")
        for record in timed({"environment": name, "loss": loss}, 1.0)
    ]
    assert natural_pairs(frame_of(tmp_path, records)) == [
        Pair({"environment": "a"}, {"environment": "b"})
    ]


def test_otherwise_an_axis_of_two_values(tmp_path: Path) -> None:
    records = [
        record
        for seq_len in (64, 128, 256)
        for zero in (1, 3)
        for record in timed(UPGRADE, 1.0, seq_len=seq_len, zero=zero)
    ]
    assert natural_pairs(frame_of(tmp_path, records)) == [Pair({"zero": "1"}, {"zero": "3"})]


def test_nothing_varies(tmp_path: Path) -> None:
    assert natural_pairs(frame_of(tmp_path, timed(UPGRADE, 1.0))) == []
