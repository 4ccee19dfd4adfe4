"""The lines that every benchmark ends with."""

from __future__ import annotations

import math

import pytest

from benchmarks.report import Targets


def finish(targets: Targets) -> int:
    with pytest.raises(SystemExit) as left:
        targets.finish()
    return left.value.code


def test_reached(capsys):
    targets = Targets()
    targets.check("reading", 3.65, "<=", 6, "s")
    targets.check("ratio", 20, ">=", 20)
    assert finish(targets) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "reading: 3.65 s (target <= 6 s): reached",
        "ratio: 20 (target >= 20): reached",
    ]


@pytest.mark.parametrize("value", [1.5, math.nan])
def test_one_that_is_missed_decides(capsys, value):
    targets = Targets()
    targets.check("memory", value, "<", 1.5, "GB")
    targets.check("reading", 1, "<=", 6, "s")
    assert finish(targets) == 1
    assert capsys.readouterr().out.count("missed") == 1
