"""The answers that a results folder holds, in sentences: comparisons, audits, and sections'."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis import sections
from analysis.audit import is_audit
from analysis.audit import sentences as audited
from analysis.compare import compare, natural_pairs, sentences
from analysis.reading import AnalysisError


@dataclass(frozen=True)
class Answer:
    """What one comparison says."""

    sides: str
    """`torch-2.13 all_gather against torch-2.2 weighted_all_reduce`."""
    sentences: tuple[str, ...]
    broken: str = ""
    """What could not be made, or not of all records, for a reason that nobody foresaw."""


def answers(frame: pd.DataFrame) -> list[Answer]:
    """For each natural pair of `analysis.frame.load`'s frame, what comparing it says.

    Of an audit, whose single steps are no measure of time: which gradients are right.
    Scenarios with a section of their own measure no step times, and are not compared.
    """
    frame = frame[~frame.scenario.isin(sections.found(frame))]
    if frame.empty:
        return []
    if is_audit(frame):
        return [Answer("Gradients", tuple(audited(frame)))]
    found = []
    for pair in natural_pairs(frame):
        sides = [" ".join(pair.candidate.values()), " ".join(pair.baseline.values())]
        try:
            said = sentences(compare(frame, pair.baseline, pair.candidate))
        except AnalysisError as error:
            said = [f"Not compared: {error}."]
        found.append(Answer(" against ".join(sides), tuple(said)))
    return found


def all_answers(folder: Path, frame: pd.DataFrame) -> list[Answer]:
    """`answers`, and before them those of the scenarios that have a section."""
    own = [
        Answer(one.scenario, (*one.sentences, *one.troubles), one.broken)
        for one in sections.sentences(folder, frame)
    ]
    return own + answers(frame)
