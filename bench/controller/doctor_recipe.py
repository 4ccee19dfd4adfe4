"""From what was measured to the code to paste. Nothing here runs anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Optional

from bench.record import Record, Status

FOLDER = Path(__file__).resolve().parents[1] / "recipes"

PREFERENCE = (
    "weighted_all_reduce",
    "functional_all_reduce",
    "all_gather",
    "functional_collective",
    "local",
)
"""Which to take where several are right: those first whose value is the mean that one logs, and
among them those that ask least of torch. `local_mean` is no mean over a sequence at all."""

LARGEST_RATIO = 64
"""Scales up to this number, and their inverses, are taken for the whole ratios that they are near
to; the judge's labels do the same."""
NEAR = 1e-3


@dataclass(frozen=True)
class Cell:
    """What one loss aggregation gave at one ZeRO stage."""

    loss: str
    zero: int
    status: Status
    verdict: Optional[str] = None
    """`match`, `scaled`, `wrong` or `none`; None where there was nothing to judge."""
    scale: Optional[float] = None
    label: str = ""
    residual: Optional[float] = None
    error: Optional[str] = None
    """Name of the class of the most common exception, without its module."""
    reason: Optional[str] = None

    @classmethod
    def of(cls, loss: str, zero: int, record: Record) -> Cell:
        """What `record` says."""
        g = record.gradient
        kinds = Counter(one.type.rpartition(".")[2] for one in record.errors)
        error = kinds.most_common(1)[0][0] if kinds else None
        judged: dict[str, Any] = {}
        if g is not None:
            judged = {"verdict": g.verdict, "scale": g.scale, "label": g.scale_label}
            judged["residual"] = g.residual
        reason = record.reason or record.gradient_reason
        return cls(loss, zero, record.status, error=error, reason=reason, **judged)

    @property
    def right(self) -> bool:
        """Whether the gradient is the reference's."""
        return self.status is Status.OK and self.verdict == "match"

    @property
    def text(self) -> str:
        """`right`, `×2`, `wrong`, `none`, an exception's name, or how the trial ended."""
        if self.status is not Status.OK:
            return self.error or self.status.value
        if self.verdict == "scaled":
            return self.label
        return "right" if self.right else self.verdict or "not compared"


@dataclass(frozen=True)
class Candidate:
    """An aggregation, and what its loss must be multiplied by in autograd."""

    loss: str
    factor: Fraction


@dataclass(frozen=True)
class Recipe:
    """Code for one or several ZeRO stages, and what became of it when it was run as printed."""

    candidate: Candidate
    source: str
    proof: tuple[Cell, ...]
    """One for each stage that the text is meant for."""

    @property
    def right_at(self) -> list[int]:
        """The stages at which the text gave the reference gradient."""
        return [cell.zero for cell in self.proof if cell.right]


def candidates(cells: Iterable[Cell], zero: int) -> list[Candidate]:
    """What to try at a ZeRO stage, the best first: right ones, then those off by a factor."""
    known = {cell.loss: cell for cell in cells if cell.zero == zero}
    usable = [known[name] for name in PREFERENCE if name in known]
    right = [Candidate(cell.loss, Fraction(1)) for cell in usable if cell.right]
    scaled = [
        Candidate(cell.loss, 1 / ratio(cell.scale))
        for cell in usable
        if cell.status is Status.OK and cell.verdict == "scaled" and cell.scale
    ]
    return right + scaled


def ratio(scale: float) -> Fraction:
    """The small whole ratio (n or 1/n) that `scale` is near to, else `scale` to four digits."""
    for n in range(1, LARGEST_RATIO + 1):
        for value in (Fraction(n), Fraction(1, n)):
            if abs(scale / float(value) - 1.0) <= NEAR:
                return value
    return Fraction(f"{scale:.4g}")


def source(candidate: Candidate, zeros: Sequence[int], stack: str) -> str:
    """The text to paste; `stack` says in a few words where it was measured."""
    text = (FOLDER / f"{candidate.loss}.py").read_text()
    stages = ", ".join(map(str, zeros))
    head = f"# Gives the reference gradient with ZeRO {stages} on\n# {stack}.\n"
    if candidate.factor == 1:
        return head + text
    inner = text.replace("def aggregate(", "def mean_loss(")
    return f"{head}{inner}{_SCALED.format(factor=_number(candidate.factor))}"


def _number(factor: Fraction) -> str:
    """`2`, `1 / 2`, or a decimal number."""
    if factor.denominator == 1 or factor.numerator == 1:
        return str(factor).replace("/", " / ")
    return f"{float(factor):.6g}"


_SCALED = '''

def aggregate(
    loss: torch.Tensor, tokens: torch.Tensor, group: dist.ProcessGroup
) -> torch.Tensor:
    """Mean loss over the sequence; only its gradient is multiplied by a factor.

    The factor was measured here and may differ with other sizes of sp and dp: measure again.
    """
    value = mean_loss(loss, tokens, group)
    scaled = value * ({factor})
    return scaled + (value - scaled).detach()
'''
