"""Drivers: scenarios whose trial takes more than one launch of ranks, one file a scenario.

A trial of most scenarios is one launch: the ranks do it all. Where fresh ranks are needed
several times (the longest sequence that fits, a collective that hangs and must not take the
others with it), `bench/controller/drivers/<scenario>.py` defines

    run(trial: Trial, launch: Launch, note: Note) -> Record

`launch(trial)` runs a trial of another scenario, or the ranks of this one, in fresh processes
and returns its record, whatever happened. `note(text)` tells the person who waits where it
stands. The record that `run` returns is the trial's own; what it learnt from the launches is
in its `details`. A driver whose ranks run another scenario than the trial's also has

    launched(configuration: Configuration) -> Configuration

with that scenario and all else that decides which code they run.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any, Optional

from bench.record import Record
from bench.trial import Configuration, Trial

Launch = Callable[[Trial], Record]
Note = Callable[[str], None]
Driver = Callable[[Trial, Launch, Note], Record]


def find(scenario: str) -> Optional[Driver]:
    """The driver of `scenario`; None where its trial is a single launch."""
    module = _module(scenario)
    driver: Optional[Driver] = None if module is None else module.run
    return driver


def launched(configuration: Configuration) -> Configuration:
    """What the ranks of a trial of `configuration` run, as far as it decides their code."""
    module = _module(configuration.scenario)
    told: Any = getattr(module, "launched", None)
    launches: Configuration = configuration if told is None else told(configuration)
    return launches


def _module(scenario: str) -> Any:
    name = f"{__name__}.{scenario}"
    return None if importlib.util.find_spec(name) is None else importlib.import_module(name)
