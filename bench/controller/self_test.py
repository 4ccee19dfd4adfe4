"""Does the judge see? Every mutation of `bench.worker.mutations`, run on an interpreter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import yaml

from bench.controller.config import CONF
from bench.controller.doctor import Question
from bench.record import Record, Status
from bench.trial import Trial

DEFAULT_LOSS, DEFAULT_ZERO = "local", 1
"""The pair that faults are put into unless the user names one; it must be right by itself."""
UNTOUCHED = "untouched"


@dataclass(frozen=True)
class Mutant:
    """A fault, the verdict that belongs to it, and the one that it got."""

    name: str
    expected: str
    """`match`, `wrong`, `none`, or `scaled ×2`; empty where the trial did not get that far."""
    found: str

    @property
    def caught(self) -> bool:
        """Whether the judge said what it had to."""
        return bool(self.expected) and self.expected == self.found


def mutations() -> list[str]:
    """The names that conf/experiment/mutations.yaml lists."""
    content = yaml.safe_load((CONF / "experiment" / "mutations.yaml").read_text())
    listed: str = content["hydra"]["sweeper"]["params"]["options.mutation"]
    return [name.strip() for name in listed.split(",")]


def self_test(
    question: Question, launch: Callable[[Trial], Record], note: Callable[[str], None]
) -> list[Mutant]:
    """Run them all; `note` is told each before it is run."""
    found = []
    for name in mutations():
        note(f"mutation {name}")
        trial = question.trial(
            scenario="mutation",
            loss=question.loss or DEFAULT_LOSS,
            zero=DEFAULT_ZERO if question.zero is None else question.zero,
            mask="none",
            options={"mutation": name},
        )
        found.append(_mutant(name, launch(trial)))
    return found


def _mutant(name: str, record: Record) -> Mutant:
    gradient = record.gradient
    if record.status is not Status.OK or gradient is None:
        return Mutant(name, "", f"{record.status.value}: {record.reason}")
    verdict: str = gradient.verdict
    if verdict == "scaled":
        verdict += f" {gradient.scale_label}"
    return Mutant(name, record.details["expected"], verdict)
