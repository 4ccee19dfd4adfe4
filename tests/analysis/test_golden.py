"""Golden values: what differs from them, and what says nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from analysis.golden import check, golden, read, write
from analysis.reading import AnalysisError
from bench.record import RankMemory, Record
from tests.analysis.sides import DRIFT, TWICE, frame_of
from tests.factories import failed, machine, ok

TOLERANCES = {"tokens_per_s": 0.1, "peak_memory": 0.05}


def rounds(count: int = 3, step_s: float = 0.5, **fields: Any) -> list[Record]:
    return [ok(round=r, step_s=step_s * DRIFT[r % 3], **fields) for r in range(count)]


def checked(folder: Path, before: list[Record], now: list[Record]) -> tuple[list[str], list[str]]:
    """Differences and notes of `now` beside the golden values of `before`, by way of a file."""
    path = folder / "golden.yaml"
    write(path, golden(frame_of(folder / "before", before), TOLERANCES))
    found = check(read(path), frame_of(folder / "now", now))
    return [one.text for one in found.differences], [one.text for one in found.notes]


def test_the_same_sweep_differs_in_nothing(tmp_path: Path) -> None:
    both = [*rounds(), *rounds(seq_len=2048)]
    assert checked(tmp_path, both, both) == ([], [])


# 2 replicas of 512 tokens in 0.5 s: 2,048 tokens/s at the median round, whose drift is 1.
@pytest.mark.parametrize(
    ("now", "expected"),
    [
        pytest.param(rounds(step_s=0.5 / 0.92), [], id="8 % slower"),
        pytest.param(
            rounds(step_s=0.5 / 0.8),
            ["1,638.4 tokens/s instead of 2,048.0 (-20.0%, ± 10 % allowed)"],
            id="20 % slower",
        ),
        pytest.param(
            rounds(step_s=0.25),
            ["4,096.0 tokens/s instead of 2,048.0 (+100.0%, ± 10 % allowed)"],
            id="faster",
        ),
        pytest.param(
            rounds(memory=[RankMemory(rank=0, peak_bytes=5 * 2**20, baseline_bytes=0)]),
            ["5.0 MiB at the peak instead of 4.0 (+25.0%, ± 5 % allowed)"],
            id="memory",
        ),
        pytest.param(
            rounds(gradient=TWICE), ["gradient scaled ×2 instead of match ×1"], id="gradient"
        ),
        pytest.param(
            rounds(gradient=None), ["gradient not compared instead of match ×1"], id="unchecked"
        ),
        pytest.param(
            [failed(round=r) for r in range(3)],
            ["ended as error instead of ok (IndexError in backward, ranks 2,3)"],
            id="failed",
        ),
        pytest.param(rounds(seq_len=2048), ["was not run"], id="not run"),
    ],
)
def test_what_differs(tmp_path: Path, now: list[Record], expected: list[str]) -> None:
    assert checked(tmp_path, rounds(), now)[0] == expected


def test_one_round_that_is_wrong_is_a_difference(tmp_path: Path) -> None:
    now = rounds()
    now[1] = now[1].model_copy(update={"gradient": TWICE})
    assert checked(tmp_path, rounds(), now)[0] == [
        "gradient match ×1, scaled ×2 instead of match ×1"
    ]


def test_a_failure_that_is_gone_is_a_difference(tmp_path: Path) -> None:
    found, _ = checked(tmp_path, [failed(round=r) for r in range(3)], rounds())
    assert found == ["ended as ok instead of error", "gradient match ×1 instead of not compared"]


def test_few_rounds_and_other_machines_say_nothing_of_time(tmp_path: Path) -> None:
    slow = rounds(step_s=5.0)
    assert checked(tmp_path / "few", rounds(), slow[:2]) == (
        [],
        ["time not judged: 2 rounds, 3 are needed"],
    )
    other = machine().model_copy(update={"cpu": "another"})
    found, notes = checked(tmp_path / "other", rounds(), rounds(step_s=5.0, machine=other))
    assert found == []
    assert notes == ["not judged: measured on CPU, 2 cores, now on another, 2 cores"]


def test_a_point_is_found_by_its_axes_where_the_hash_differs(tmp_path: Path) -> None:
    content = golden(frame_of(tmp_path / "a", rounds(gradient=TWICE)), TOLERANCES)
    content["points"][0]["config_hash"] = "0" * 16
    found = check(content, frame_of(tmp_path / "b", rounds()))
    assert [one.text for one in found.differences] == ["gradient match ×1 instead of scaled ×2"]
    assert [one.text for one in found.notes] == [
        "found by its axes: the configuration's hash differs"
    ]


def test_a_point_may_have_a_tolerance_of_its_own(tmp_path: Path) -> None:
    content = golden(frame_of(tmp_path / "a", rounds()), TOLERANCES)
    content["points"][0]["tolerances"] = {"tokens_per_s": "60%"}
    assert check(content, frame_of(tmp_path / "b", rounds(step_s=1.0))).differences == ()


@pytest.mark.parametrize("name", ["golden.yaml", "golden.json"])
def test_a_file_comes_back_as_it_was_written(tmp_path: Path, name: str) -> None:
    content = golden(frame_of(tmp_path, [*rounds(), *rounds(sp=4)]), TOLERANCES)
    write(tmp_path / name, content)
    assert read(tmp_path / name) == content
    assert [point["axes"] for point in content["points"]] == [
        {"sp": 2, "dp": 2},
        {"sp": 4, "dp": 1},
    ]


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("{", "neither YAML nor JSON"),
        ("a: 1", "holds no golden values"),
        ("- 1", "holds no golden values"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path: Path, text: str, fragment: str) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(text)
    with pytest.raises(AnalysisError, match=fragment) as refused:
        read(path)
    assert "\n" not in str(refused.value)
    with pytest.raises(AnalysisError, match="cannot be read"):
        read(tmp_path / "nowhere.yaml")
