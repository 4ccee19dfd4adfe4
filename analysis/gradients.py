"""How many trials have a right gradient, how many a wrong one, and of how many it is unknown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from bench.record import Status
from bench.verdicts import fault

REFERENCES = {
    "exact": "the exact float64 reference",
    "proxy": "the exact float64 reference of a two-layer proxy",
    "directional": "the loss along the gradient, directional",
}
"""What a verdict was judged by, by the trial's mode."""

RIGHT, WRONG, UNCHECKED = "right", "wrong", "unchecked"


@dataclass(frozen=True)
class Gradients:
    """What the gradients of some trials are worth; refused trials count nowhere."""

    right: int = 0
    wrong: Mapping[str, int] = field(default_factory=dict)
    """Trials by fault: `×2`, `wrong`, `no gradient`, … (`bench.verdicts.fault`)."""
    unchecked: Mapping[str, int] = field(default_factory=dict)
    """Trials whose gradient was not compared, by why."""
    reference: str = ""
    """What the verdicts were judged by; empty where there are none."""

    @property
    def total(self) -> int:
        """Trials that were run."""
        return self.right + sum(self.wrong.values()) + sum(self.unchecked.values())

    @property
    def kind(self) -> str:
        """`wrong` where any is wrong, else `right` where any is right, else `unchecked`."""
        return WRONG if self.wrong else RIGHT if self.right else UNCHECKED

    @property
    def fault(self) -> str:
        """All faults: `×2`, or `×2, wrong` where rounds differ; empty where nothing is wrong."""
        return ", ".join(self.wrong)


# A row of all columns costs a hundred times as much.
_READ = [
    *("status", "failure", "sketch", "first_loss_agrees", "gradient_reason", "gradient_verdict"),
    *("gradient_scale", "gradient_scale_label", "gradient_ranks_agree"),
]


def gradients_of(trials: pd.DataFrame) -> Gradients:
    """What the gradients of `analysis.frame.load`'s rows are worth together."""
    right, wrong, unchecked = 0, Counter[str](), Counter[str]()
    for trial in trials[_READ].itertuples(index=False):
        found = fault_of(trial)
        if found is not None:
            wrong[found] += 1
        elif isinstance(trial.gradient_verdict, str):
            right += 1
        elif trial.status != Status.UNSUPPORTED.value:
            unchecked[_why(trial)] += 1
    return Gradients(right, dict(wrong), dict(unchecked), reference_of(trials))


def fault_of(trial: Any) -> str | None:
    """What is wrong with a trial's gradient; None where nothing is, or nothing is known."""
    verdict = trial.gradient_verdict if isinstance(trial.gradient_verdict, str) else None
    label = trial.gradient_scale_label if isinstance(trial.gradient_scale_label, str) else None
    # Without a scale nothing could be compared, and so no rank with another.
    agree = None if pd.isna(trial.gradient_scale) else _known(trial.gradient_ranks_agree)
    return fault(verdict, label, agree, _known(trial.first_loss_agrees))


def reference_of(trials: pd.DataFrame) -> str:
    """What the verdicts among `trials` were judged by, in words; empty where there are none."""
    compared = trials[trials.gradient_verdict.notna()]
    pairs = zip(compared.gradient_mode.fillna("exact"), compared.reference, strict=True)
    return " and ".join(f"{REFERENCES.get(m, m)} ({name})" for m, name in dict.fromkeys(pairs))


def _known(value: Any) -> bool | None:
    return None if pd.isna(value) else bool(value)


def _why(trial: Any) -> str:
    if trial.status != Status.OK.value:
        return str(trial.failure or trial.status)
    if isinstance(trial.gradient_reason, str):
        return trial.gradient_reason.removeprefix("not compared: ")
    if isinstance(trial.sketch, str):
        return "only a sketch was kept"
    return "nobody asked for it"
