"""A gradient beside the reference of the other definition (`reference`), in words."""

from __future__ import annotations

from typing import Any

import pandas as pd

OTHER = {"replica_mean": "token_mean", "token_mean": "replica_mean"}
MEANING = {
    "replica_mean": "the mean over replicas of each one's mean over its valid tokens",
    "token_mean": "the mean over all valid tokens of the batch",
}


def beside(trial: Any) -> str:
    """`token_mean: 2.9 % off`, of a row of `analysis.frame.load`'s frame.

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
    elif verdict == "wrong" and pd.notna(trial.gradient_other_residual):
        words = f"{100 * trial.gradient_other_residual:.2g} % off"
    return f"{OTHER[trial.reference]}: {words}"


def legend(frame: pd.DataFrame) -> list[str]:
    """What such words mean, where `beside` has any for `frame`."""
    told = frame[[bool(beside(trial)) for trial in frame.itertuples()]]
    return [
        f"{OTHER[name]}: the same gradient beside that of {MEANING[OTHER[name]]}; verdicts are by "
        f"{name}, {MEANING[name]}"
        for name in told.reference.unique()
    ]


def words(frame: pd.DataFrame) -> str:
    """`beside` of all trials of `frame`, each once."""
    return "; ".join(dict.fromkeys(filter(None, map(beside, frame.itertuples()))))
