"""From what was measured to the code to paste. Nothing here runs anything."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Optional

from bench.record import OtherReference, RankError, Record, Status
from bench.trial import ReferenceName

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

TOKEN_MEAN = "token_mean"
"""The text for the mean over all valid tokens of the batch; no aggregation of a sweep."""
OWN_SHARE = ("weighted_all_reduce", "local")
"""Aggregations in which autograd sees each rank's own share of the loss, as in `TOKEN_MEAN`."""

LARGEST_RATIO = 64
"""Scales up to this number, and their inverses, are taken for the whole ratios that they are near
to; the judge's labels do the same."""
NEAR = 1e-3
ULYSSES = "deepspeed/sequence/"
"""Part of the paths of DeepSpeed's Ulysses, as they stand in tracebacks."""
WIDTH = 98
REFERENCE_WORDS: dict[ReferenceName, str] = {
    "replica_mean": "mean over replicas of each one's mean over its valid tokens",
    "token_mean": "mean over all valid tokens of the batch",
}
"""What "right" refers to: the loss whose gradient it is."""


def masks(sp: int) -> tuple[str, ...]:
    """What a recipe is proven on: shards with unequal numbers of labels, then one with none."""
    return ("ragged",) if sp == 1 else ("ragged", "empty_shard")


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
    reference: ReferenceName = "replica_mean"
    """What `verdict` and `scale` refer to."""
    mask: str = "ragged"
    finite: bool = True
    """False: the loss that was back-propagated is NaN or infinite."""
    phase: Optional[str] = None
    """Where the exception was raised."""
    in_ulysses: bool = False
    """Whether it was raised while DeepSpeed's Ulysses was imported."""
    other: Optional[OtherReference] = None
    """The same gradient beside the other definition; None where both are one."""

    @classmethod
    def of(cls, loss: str, zero: int, record: Record) -> Cell:
        """What `record` says."""
        g, c = record.gradient, record.config
        known: dict[str, Any] = {"reference": c.reference, "mask": c.mask}
        if record.errors:
            known |= _raised(record.errors)
        if g is not None:
            known |= {"verdict": g.verdict, "scale": g.scale, "label": g.scale_label}
            known |= {"residual": g.residual, "other": g.other}
            known["finite"] = g.loss is not None and math.isfinite(g.loss)
        reason = record.reason or record.gradient_reason
        return cls(loss, zero, record.status, reason=reason, **known)

    def by(self, reference: ReferenceName) -> Cell:
        """The same, judged beside the reference of this definition."""
        if self.other is None or reference == self.reference:
            return self
        o = self.other
        judged: dict[str, Any] = {"verdict": o.verdict, "scale": o.scale, "label": o.scale_label}
        return replace(self, reference=reference, residual=o.residual, other=None, **judged)

    @property
    def right(self) -> bool:
        """Whether the gradient is the reference's."""
        return self.status is Status.OK and self.verdict == "match" and self.finite

    @property
    def text(self) -> str:
        """`right`, `×2`, `wrong`, `none`, an exception's name, or how the trial ended."""
        if self.status is not Status.OK:
            return self.error or self.status.value
        if not self.finite:
            return "loss NaN"
        if self.verdict == "scaled":
            return self.label
        return "right" if self.right else self.verdict or "not compared"


def _raised(errors: Sequence[RankError]) -> dict[str, Any]:
    """What the most common exception of a trial says."""
    kind, _ = Counter(one.type for one in errors).most_common(1)[0]
    first = next(one for one in errors if one.type == kind)
    return {
        "error": kind.rpartition(".")[2],
        "phase": first.phase,
        "in_ulysses": first.phase == "setup" and ULYSSES in first.traceback,
    }


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
    """One for each stage that the text is meant for, and each mask that it was run with."""
    reference: ReferenceName = "replica_mean"
    """Whose gradient it is to give."""

    @property
    def stages(self) -> list[int]:
        """The stages that the text is meant for."""
        return list(dict.fromkeys(cell.zero for cell in self.proof))

    @property
    def right_at(self) -> list[int]:
        """The stages at which the text gave the reference gradient with every mask."""
        wrong = {cell.zero for cell in self.proof if not cell.right}
        return [zero for zero in self.stages if zero not in wrong]


def candidates(
    cells: Iterable[Cell], zero: int, reference: ReferenceName = "replica_mean"
) -> list[Candidate]:
    """What to try at a ZeRO stage, the best first: right ones, then those off by a factor.

    `TOKEN_MEAN` back-propagates each rank's own share, so that it needs the factor of those that
    do the same.
    """
    known = {cell.loss: cell.by("replica_mean") for cell in cells if cell.zero == zero}
    names = PREFERENCE if reference == "replica_mean" else OWN_SHARE
    usable = [known[name] for name in names if name in known]
    found = [Candidate(cell.loss, Fraction(1)) for cell in usable if cell.right]
    found += [
        Candidate(cell.loss, 1 / ratio(cell.scale))
        for cell in usable
        if cell.status is Status.OK and cell.verdict == "scaled" and cell.scale
    ]
    if reference == "replica_mean":
        return found
    return [Candidate(TOKEN_MEAN, factor) for factor in dict.fromkeys(c.factor for c in found)]


def ratio(scale: float) -> Fraction:
    """The small whole ratio (n or 1/n) that `scale` is near to, else `scale` to four digits."""
    for n in range(1, LARGEST_RATIO + 1):
        for value in (Fraction(n), Fraction(1, n)):
            if abs(scale / float(value) - 1.0) <= NEAR:
                return value
    return Fraction(f"{scale:.4g}")


def source(candidate: Candidate, zeros: Sequence[int], stack: str) -> str:
    """The text to paste; `stack` says in a few words where it was measured."""
    reference: ReferenceName = "token_mean" if candidate.loss == TOKEN_MEAN else "replica_mean"
    stages = ", ".join(map(str, zeros))
    said = f"Gives the gradient of the {REFERENCE_WORDS[reference]}, with ZeRO {stages} on {stack}."
    head = textwrap.fill(said, WIDTH, initial_indent="# ", subsequent_indent="# ")
    text = (FOLDER / f"{candidate.loss}.py").read_text()
    if candidate.factor != 1:
        text = text.replace("def aggregate(", "def mean_loss(")
        text += _SCALED.format(factor=_number(candidate.factor))
    return f"{head}\n{text}"


def _number(factor: Fraction) -> str:
    """`2`, `1 / 2`, or a decimal number."""
    if factor.denominator == 1 or factor.numerator == 1:
        return str(factor).replace("/", " / ")
    return f"{float(factor):.6g}"


_SCALED = '''

def aggregate(
    loss: torch.Tensor, tokens: torch.Tensor, group: dist.ProcessGroup
) -> torch.Tensor:
    """The mean loss as above; only its gradient is multiplied by a factor.

    The factor was measured here and may differ with other sizes of sp and dp: measure again.
    """
    value = mean_loss(loss, tokens, group)
    scaled = value * ({factor})
    return scaled + (value - scaled).detach()
'''
