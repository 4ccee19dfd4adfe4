"""What is wrong with a trial's gradient, in a word: one rule for displays, tables and gates.

Shared by the controller and the analysis; standard library only.
"""

from __future__ import annotations

from typing import Optional

SIGN = "✗"
"""Stands before whatever was measured with a gradient that is not right."""
STYLE = "black on yellow"
"""How that is coloured on a terminal: no status has this colour."""

FIRST_LOSS = "first loss"
"""The forward pass is wrong, which a direction along the gradient found would not show."""
NO_GRADIENT = "no gradient"


def fault(
    verdict: Optional[str],
    scale_label: Optional[str],
    ranks_agree: Optional[bool] = None,
    first_loss_agrees: Optional[bool] = None,
) -> Optional[str]:
    """`×2`, `wrong`, `no gradient`, …: what is wrong with a gradient; None where nothing is known.

    The arguments are the fields of a record's `gradient` and `first_loss`; None where there are
    none, so that a gradient that nobody compared has no fault.
    """
    found = {"scaled": scale_label or "scaled", "wrong": "wrong", "none": NO_GRADIENT}
    faults = [found[verdict]] if verdict in found else []
    if verdict is not None and verdict != "none" and ranks_agree is False:
        faults.append("ranks differ")
    if first_loss_agrees is False:
        faults.append(FIRST_LOSS)
    return ", ".join(faults) or None


def in_words(fault: str) -> str:
    """A fault as part of a sentence: `2 × too large`, `1/2 of what it should be`."""
    return ", ".join(map(_one_in_words, fault.split(", ")))


_WORDS = {
    "wrong": "wrong in direction",
    NO_GRADIENT: "missing",
    FIRST_LOSS: "of another forward pass (the first loss is not that of one device)",
    "ranks differ": "not the same on all ranks",
}


def _one_in_words(fault: str) -> str:
    number = fault.lstrip("×")
    if not number[:1].isdigit() and number[:1] != "-":
        return _WORDS.get(fault, fault)
    larger = "/" not in number and float(number) > 1
    return f"{number} × too large" if larger else f"{number} of what it should be"
