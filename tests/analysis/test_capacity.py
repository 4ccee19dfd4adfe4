"""What is shown of searches for the longest sequence."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from analysis import figures
from analysis.capacity import attempts, searches
from analysis.frame import load
from analysis.sections import capacity, notebooks
from bench.record import Record, Status
from tests.factories import failed, ok, write

COMPONENTS = {
    "weights": 100,
    "gradients": 0,
    "optimizer": 200,
    "buffers": 0,
    "activations": 300,
    "logits": 400,
}


def attempt(seq_len: int, status: str = "ok", peak: int | None = 1200) -> dict[str, Any]:
    predicted = {"moment": "loss", "bytes": 1000, "components": COMPONENTS}
    return {
        "seq_len": seq_len,
        "status": status,
        "reason": None,
        "predicted": predicted,
        "peak_bytes": peak,
        "seconds": 1.0,
        "log": None,
    }


def search(sp: int, longest: int, predicted: int, **fields: Any) -> Record:
    details = {
        "longest": longest,
        "shortest_failed": longest + 512,
        "resolution": 512,
        "predicted": predicted,
        "attempts": [attempt(longest), attempt(longest + 512, "oom", None)],
    }
    values = {"scenario": "capacity", "samples": [], "memory_limit": 2**30, "details": details}
    return ok(sp=sp, **{**values, **fields})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    nothing = {"longest": 0, "shortest_failed": 512, "resolution": 512, "predicted": 512}
    nothing["attempts"] = [attempt(512, "oom", None)]
    refused = failed(
        Status.OOM, sp=4, scenario="capacity", details=nothing, memory_limit=2**30, zero=3
    )
    write(tmp_path, search(1, 2048, 2048), search(2, 4096, 4608), refused)
    return tmp_path


def test_searches(folder: Path) -> None:
    table = searches(folder, load(folder))
    assert table[["sp", "longest", "shortest_failed", "predicted"]].values.tolist() == [
        [1, 2048, 2560, 2048],
        [2, 4096, 4608, 4608],
        [4, 0, 512, 512],
    ]
    assert table.line.tolist() == ["zero=1", "zero=1", "zero=3"]
    assert table.attempts.tolist() == [2, 2, 1]


def test_only_attempts_that_trained_have_a_peak(folder: Path) -> None:
    table = attempts(folder, load(folder))
    assert table[["sp", "seq_len", "measured", "logits"]].values.tolist() == [
        [1, 2048, 1200, 400],
        [2, 4096, 1200, 400],
    ]


def test_the_terminal_shows_every_search(folder: Path) -> None:
    stream = io.StringIO()
    frame = load(folder)
    capacity.show(folder, frame, Console(file=stream, width=160))
    shown = stream.getvalue()
    assert "+12.5 %" in shown  # 4,608 beside 4,096
    assert "+0.0 %" in shown
    assert "oom: the trial ended as oom" in shown
    assert notebooks(frame) == ["capacity"]


def test_the_frontier_names_the_longest(folder: Path) -> None:
    said = figures.alt_text(figures.frontier(searches(folder, load(folder))))
    assert said.startswith("The longest sequence that trains is 4,096 tokens, at sp=2")
    assert "zero=3" not in said.split(". ")[1]
    assert "limited to 1,024 MiB" in said


def test_components_beside_the_measured_peak(folder: Path) -> None:
    figure = figures.memory_components(attempts(folder, load(folder)))
    said = figures.alt_text(figure)
    assert said.startswith("The measured peak is 1.20 times the predicted one")
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    assert sum(heights) == pytest.approx(2 * 1000 / 2**20)


def test_a_folder_without_a_search_is_blank_and_no_error(tmp_path: Path) -> None:
    write(tmp_path, ok())
    frame = load(tmp_path)
    said = figures.alt_text(figures.frontier(searches(tmp_path, frame)))
    assert said.startswith("No sequence trained")
    said = figures.alt_text(figures.memory_components(attempts(tmp_path, frame)))
    assert said.startswith("No peak memory")


def test_every_search_is_a_sentence(folder: Path) -> None:
    assert capacity.sentences(folder, load(folder)) == [
        "At sp=1, zero=1, 2,048 tokens train, 2,560 run out of memory; theory expects 2,048.",
        "At sp=2, zero=1, 4,096 tokens train, 4,608 run out of memory; theory expects 4,608.",
        "At sp=4, zero=3, the search ended with oom: the trial ended as oom.",
    ]


def test_searches_under_two_limits_are_two_lines(tmp_path: Path) -> None:
    """Once they were two rows `sp=2`, and a point of the figure half-way between them."""
    write(
        tmp_path,
        search(2, 2048, 2048, memory_limit=2**30),
        search(2, 8192, 8192, memory_limit=2**32),
        search(4, 16384, 8192, memory_limit=2**32),
    )
    frame = load(tmp_path)
    table = searches(tmp_path, frame)
    assert table[["line", "sp", "longest"]].to_numpy().tolist() == [
        ["memory_limit=1,024 MiB", 2, 2048],
        ["memory_limit=4,096 MiB", 2, 8192],
        ["memory_limit=4,096 MiB", 4, 16384],
    ]
    figure = figures.frontier(table)
    drawn = {tuple(line.get_ydata()) for line in figure.axes[0].lines if line.get_marker() == "o"}
    assert drawn == {(2048.0,), (8192.0, 16384.0)}
    assert len(set(capacity.sentences(tmp_path, frame))) == 3
    assert set(attempts(tmp_path, frame).line) == set(table.line)
    bars = figures.alt_text(figures.memory_components(attempts(tmp_path, frame)))
    assert "memory_limit=1,024 MiB, sp=2" in bars and "memory_limit=4,096 MiB, sp=2" in bars


def test_a_line_of_the_frontier_is_at_lengths_that_were_found(tmp_path: Path) -> None:
    """Of two rounds the lower one: nobody measured the length between them."""
    write(tmp_path, search(2, 2048, 2048), search(2, 4096, 2048, round=1))
    frame = load(tmp_path)
    figure = figures.frontier(searches(tmp_path, frame))
    [line] = [one for one in figure.axes[0].lines if one.get_marker() == "o"]
    assert list(line.get_ydata()) == [2048.0]


def test_ranks_are_named_where_one_sp_was_searched_on_several(tmp_path: Path) -> None:
    write(tmp_path, search(2, 2048, 2048, world=2), search(2, 4096, 4096, world=4))
    table = searches(tmp_path, load(tmp_path))
    assert table[["line", "longest"]].to_numpy().tolist() == [["world=2", 2048], ["world=4", 4096]]
