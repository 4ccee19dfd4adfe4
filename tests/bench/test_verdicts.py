"""What is wrong with a gradient, in a word."""

from __future__ import annotations

from typing import Optional

import pytest

from bench.verdicts import fault, in_words


@pytest.mark.parametrize(
    ("verdict", "label", "agree", "first_loss", "expected"),
    [
        ("match", "×1", True, True, None),
        ("match", "×1", True, None, None),
        (None, None, None, None, None),
        ("scaled", "×2", True, None, "×2"),
        ("wrong", "0.73", True, None, "wrong"),
        ("none", "", False, None, "no gradient"),
        ("match", "×1", False, None, "ranks differ"),
        ("scaled", "×2", False, None, "×2, ranks differ"),
        ("match", "×1", True, False, "first loss"),
        (None, None, None, False, "first loss"),
    ],
)
def test_faults(
    verdict: Optional[str],
    label: Optional[str],
    agree: Optional[bool],
    first_loss: Optional[bool],
    expected: Optional[str],
) -> None:
    assert fault(verdict, label, agree, first_loss) == expected


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ("×2", "2 × too large"),
        ("×4", "4 × too large"),
        ("×1/2", "1/2 of what it should be"),
        ("×0", "0 of what it should be"),
        ("wrong", "wrong in direction"),
        ("no gradient", "missing"),
        ("0.861", "0.861 of what it should be"),
        ("1.5", "1.5 × too large"),
        ("×2, ranks differ", "2 × too large, not the same on all ranks"),
    ],
)
def test_a_fault_in_words(found: str, expected: str) -> None:
    assert in_words(found) == expected
