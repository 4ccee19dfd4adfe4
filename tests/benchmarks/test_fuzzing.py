"""That the fuzzers' count sees every kind of fault."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import pytest
import typer

from benchmarks import fuzzing
from benchmarks.fuzzing import Tally, ended, spbench


def leave(code: int, *said: str) -> Callable[[], None]:
    """A command that prints `said` on standard error and ends with `code`."""

    def run() -> None:
        for line in said:
            print(line, file=sys.stderr)
        raise typer.Exit(code)

    return run


def fail() -> None:
    raise LookupError("of ours")


def counted(call: Callable[[], None]) -> Tally:
    tally = Tally()
    tally.count("it", ended(call))
    return tally


@pytest.mark.parametrize(
    ("call", "kind", "why"),
    [
        (fail, "tracebacks", "LookupError: of ours"),
        (leave(7), "tracebacks", "exit code 7"),
        (leave(2, "one", "two"), "printed", "2 lines of refusal: ['one', 'two']"),
        (leave(2), "printed", "0 lines of refusal: []"),
        (leave(0, "red \x1b[31m"), "printed", "control characters in 'red \\x1b[31m\\n'"),
    ],
)
def test_a_fault_is_counted(call: Callable[[], None], kind: str, why: str) -> None:
    tally = counted(call)
    assert [why in fault.why for fault in getattr(tally, kind)] == [True]
    assert tally.faults == getattr(tally, kind)


@pytest.mark.parametrize("call", [leave(0, "a", "b"), leave(2, "no"), leave(3, "no"), leave(1)])
def test_an_end_that_is_allowed_is_none(call: Callable[[], None]) -> None:
    assert counted(call).faults == []


def test_what_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzzing, "LIMIT_S", 1)
    [fault] = counted(lambda: time.sleep(60)).faults
    assert "still running after 1 s" in fault.why


def test_a_command_that_takes_long_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzzing, "SLOW_S", -1.0)
    assert "s of CPU" in counted(leave(1)).slow[0].why


def test_the_tallies_of_several_processes_add_up() -> None:
    tally = counted(fail)
    tally.add(counted(leave(2, "no")))
    tally.add(counted(leave(7)))
    assert tally.exits == {2: 1, 7: 1}
    assert len(tally.tracebacks) == 2


def test_the_command_line_is_run_as_it_is() -> None:
    done = spbench("show", "no-such-folder")
    assert (done.exit_code, len(done.errors.splitlines())) == (2, 1)
