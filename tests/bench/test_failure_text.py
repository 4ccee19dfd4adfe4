"""The line of an exception's message that says what is wrong."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from bench.failure_text import useful_line

TRACEBACK = """Traceback (most recent call last):
  File "/somewhere/engine.py", line 3, in step
    self.check()
  File "/somewhere/engine.py", line 9, in check
    assert not self.overflow
AssertionError"""


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")
    stage: int = 0


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        pytest.param("tuple index out of range", "tuple index out of range", id="one line"),
        pytest.param("\n====\n first\nsecond", "first", id="ruled"),
        pytest.param("Errors in state:\n\tmissing a", "Errors in state: missing a", id="colon"),
        pytest.param(
            "Error building extension 'x': [1/2] c++ x.cpp\nFAILED: x.o\n"
            "x.cpp:3:10: fatal error: mpi.h: No such file or directory\ncompilation terminated.",
            "x.cpp:3:10: fatal error: mpi.h: No such file or directory",
            id="compiler",
        ),
        pytest.param(
            "NCCL error in: Utils.hpp:273, unhandled system error\nncclSystemError: System call "
            "failed\nLast error:\nConnect to 10.0.0.1 failed",
            "NCCL error in: Utils.hpp:273, unhandled system error: Connect to 10.0.0.1 failed",
            id="nccl",
        ),
        pytest.param(
            "1 validation error for Z\nnonsense\n  extra fields not permitted (type=value_error)",
            "nonsense: extra fields not permitted",
            id="pydantic 1",
        ),
        pytest.param("x" * 300, "x" * 199 + "…", id="long"),
    ],
)
def test_the_useful_line(message: str, expected: str) -> None:
    assert useful_line(message) == expected


def test_pydantic_says_which_field_and_why() -> None:
    with pytest.raises(ValidationError) as one:
        Strict(nonsense=1)  # type: ignore[call-arg]
    assert useful_line(str(one.value)) == "nonsense: Extra inputs are not permitted"
    with pytest.raises(ValidationError) as two:
        Strict(nonsense=1, stage="x")  # type: ignore[call-arg, arg-type]
    assert useful_line(str(two.value)) == (
        "stage: Input should be a valid integer, unable to parse string as an integer (and 1 more)"
    )


def test_an_empty_message_is_the_statement_that_raised() -> None:
    assert useful_line("", TRACEBACK) == "assert not self.overflow"
    assert useful_line("", "") == ""
