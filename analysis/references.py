"""A gradient beside the reference of the other definition (`reference`), in words."""

from __future__ import annotations

from typing import Any

import pandas as pd

OTHER = {"replica_mean": "token_mean", "token_mean": "replica_mean"}
MEANING = {
    "replica_mean": "the mean over replicas of each one's mean over its valid tokens",
    "token_mean": "the mean over all valid tokens of the batch",
}


READ = [
    *("reference", "gradient_verdict", "gradient_scale_label", "gradient_other"),
    *("gradient_other_scale_label", "gradient_other_residual", "gradient_other_relative_error"),
]
"""The columns of a trial that `beside` reads."""


def beside(trial: Any) -> str:
    """`token_mean: 2.9 % off`, `token_mean: ×2 and 2.9 % off`, of a row of `load`'s frame.

    Empty where both definitions are one, or say the same.
    """
    verdict = trial.gradient_other
    if not isinstance(verdict, str) or verdict == trial.gradient_verdict != "scaled":
        return ""
    words = verdict
    if verdict == "scaled":
        words = str(trial.gradient_other_scale_label)
        if words == trial.gradient_scale_label:
            return ""
    elif verdict == "wrong":
        words = _off(trial) or verdict
    return f"{OTHER[trial.reference]}: {words}"


def _off(trial: Any) -> str:
    """How far a gradient is from the other reference; empty where that is not known.

    One that is a multiple of its own reference is about the same multiple of the other.
    """
    scaled = trial.gradient_verdict == "scaled"
    found = trial.gradient_other_residual if scaled else trial.gradient_other_relative_error
    if pd.isna(found):
        return ""
    factor = f"{trial.gradient_scale_label} and " if scaled else ""
    return f"{factor}{100 * found:.2g} % off"


def legend(frame: pd.DataFrame) -> list[str]:
    """What such words mean, where `beside` has any for `frame`."""
    told = frame[[bool(beside(trial)) for trial in frame[READ].itertuples(index=False)]]
    return [
        f"{OTHER[name]}: the same gradient beside that of {MEANING[OTHER[name]]}; verdicts are by "
        f"{name}, {MEANING[name]}"
        for name in told.reference.unique()
    ]


def alike(frame: pd.DataFrame) -> list[str]:
    """That verdicts do not tell which definition a gradient is of, where rounding hides it."""
    same = frame.gradient_other.notna() & (frame.gradient_other == frame.gradient_verdict)
    hidden = same & (frame.gradient_verdict == "match")
    hidden |= same & (frame.gradient_other_scale_label == frame.gradient_scale_label)
    hidden &= frame.gradient_verdict.isin(["match", "scaled"])
    if not hidden.any():
        return []
    where = f"in {hidden.sum():,} of {len(frame):,} trials"
    return [
        f"replica_mean and token_mean: {where} their gradients differ by less than counts as "
        "rounding, and a verdict by one holds for both"
    ]


def words(frame: pd.DataFrame) -> str:
    """`beside` of all trials of `frame`, each once."""
    return "; ".join(dict.fromkeys(filter(None, map(beside, frame[READ].itertuples(index=False)))))
