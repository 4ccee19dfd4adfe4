"""A stand whose launcher answers at once, for the tests of the rows."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.controller.selfcheck.stand import Stand
from bench.record import Record, Status
from bench.trial import Configuration, Trial
from tests import factories

H100 = ("NVIDIA H100 80GB HBM3",)
Answer = Callable[[Configuration], dict[str, Any]]


class Launcher:
    """Answers every trial with a record that is ok, but for what `answer` says."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.variables: list[dict[str, str]] = []

    def __enter__(self) -> Launcher:
        self.variables.append(dict(os.environ))
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing runs."""

    def run(self, trial: Trial, folder: Path, note: object) -> Record:
        c = trial.configuration
        fields = {"gradient": factories.gradient(), "worker": factories.worker()}
        fields |= self._answer(c)
        status = fields.pop("status", Status.OK)
        return Record.of(trial, status, factories.STARTED, 1.0, **fields)


def stand(
    tmp_path: Path,
    answer: Answer = lambda _: {},
    gpus: tuple[str, ...] = (),
    sketch_scale: Callable[[Path, Path], float] = lambda candidate, baseline: 2.0,
) -> Stand:
    launcher = Launcher(answer)
    python = Path("/opt/python")
    return Stand(python, gpus, tmp_path, launcher, sketch_scale, servers=lambda: launcher)


def scaled(scale: float, label: str = "×2", **fields: Any) -> dict[str, Any]:
    return {
        "gradient": factories.gradient(verdict="scaled", scale=scale, scale_label=label, **fields)
    }


def details(**content: Any) -> Answer:
    return lambda _: {"details": content}
