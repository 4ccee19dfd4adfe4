"""The server relays whatever its ranks write, and sees their end, not that of their pipes."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.worker.children import Child, Children
from tests.worker.serving import BIG

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(params=["announced", "polling"])
def way(request: pytest.FixtureRequest) -> Any:
    """How the server learns of the end of a process."""
    return request.param


def serve(case: str, way: str = "announced") -> list[dict[str, Any]]:
    """What a server answers whose two ranks run the function `case` of `tests.worker.serving`."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.worker.serving", case, way],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *answers, left = [json.loads(line) for line in done.stdout.splitlines()]
    assert left == {"op": "left", "processes": []}
    return answers


def reports(answers: list[dict[str, Any]], rank: int) -> list[str]:
    return [one["report"] for one in answers if one["op"] == "rank" and one["rank"] == rank]


def ends(answers: list[dict[str, Any]]) -> dict[int, tuple[Any, Any]]:
    exits = [one for one in answers if one["op"] == "exited"]
    return {one["rank"]: (one["signal"], one["exit_code"]) for one in exits}


def beats(answers: list[dict[str, Any]], field: str) -> list[Any]:
    """What was seen of rank 1, each value once."""
    seen = [one["beats"][1][field] for one in answers if one["op"] == "progress"]
    return list(dict.fromkeys(seen))


def test_a_rank_has_ended_though_something_holds_its_pipe(way: str) -> None:
    answers = serve("leaves_a_daemon", way)
    assert ends(answers) == {0: (None, 0), 1: (None, 0)}
    assert (reports(answers, 0), reports(answers, 1)) == (['"done"'], [])
    assert answers.index({"op": "exited", "rank": 0, "signal": None, "exit_code": 0}) > next(
        index for index, one in enumerate(answers) if one["op"] == "rank"
    )


def test_a_rank_that_closed_its_pipe_runs_on(way: str) -> None:
    answers = serve("closes_its_pipe", way)
    assert ends(answers) == {0: (None, 3), 1: (None, 3)}
    assert "still here" in beats(answers, "phase")


def test_nonsense_is_relayed_as_it_is() -> None:
    answers = serve("talks_nonsense")
    assert reports(answers, 1) == ["\\xff\\xfe", '{"op": "ended"}', ""]
    assert ends(answers) == {0: (None, 0), 1: (None, 0)}


def test_a_phase_that_is_cut_inside_a_character_is_told_without_it() -> None:
    answers = serve("has_a_long_phase")
    assert "é" * 9 + "x" in beats(answers, "phase")
    assert reports(answers, 1) == [json.dumps("é" * 9 + "x" + "é" * 9)]


def test_bytes_of_a_report_are_progress() -> None:
    answers = serve("reports_slowly")
    assert reports(answers, 0) == reports(answers, 1) == ['"slow"']
    assert len([count for count in beats(answers, "received") if count]) > 1


def test_a_large_report_arrives_whole() -> None:
    answers = serve("reports_much")
    [large] = reports(answers, 1)
    assert large == json.dumps("x" * BIG)
    assert reports(answers, 0) == []


def test_a_report_beyond_the_bound_is_cut_and_its_length_told() -> None:
    answers = serve("reports_too_much")
    long, short = (one for one in answers if one["op"] == "rank" and one["rank"] == 0)
    assert (long["report"], long["bytes"]) == ("z" * 1000, BIG)
    assert short["report"] == '"short"'


@pytest.mark.parametrize(
    ("case", "end"), [("dies_of_a_nameless_signal", (40, None)), ("raises", (None, 1))]
)
def test_every_end_is_told(case: str, end: tuple[Any, Any]) -> None:
    assert ends(serve(case)) == {0: end, 1: end}


def test_what_a_rank_wrote_before_it_ended_is_read_first() -> None:
    """Though its end is seen before its bytes are."""
    text = "said\n" * 5000
    with subprocess.Popen(["echo", "-n", text], stdout=subprocess.PIPE) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert process.stdout is not None
        child = Child.of(0, process.pid, os.dup(process.stdout.fileno()))
        answers: list[dict[str, Any]] = []
        with selectors.DefaultSelector() as selector:
            ranks = Children([child], selector, lambda **one: answers.append(one))
            ranks.look_after(child)
            assert not ranks.alive() and not selector.get_map()
        process.returncode = 0  # it has been waited for
    assert [one["report"] for one in answers[:-1]] == ["said"] * 5000
    assert answers[-1] == {"op": "exited", "rank": 0, "signal": None, "exit_code": 0}
