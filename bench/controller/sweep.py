"""Runs the trials of a sweep: interleaved rounds, resume, one record for each trial."""

from __future__ import annotations

import functools
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Optional, Protocol

from bench.controller.config import Settings
from bench.controller.expected import Expected, lines
from bench.controller.ledger import Entry, Ledger
from bench.controller.messages import ConfigurationError
from bench.controller.order import by_environment, interleave, round_of
from bench.controller.precision import Widths, widths
from bench.controller.problem import ControllerProblem
from bench.controller.torch_gpus import needed
from bench.identity import UNKNOWN
from bench.plain import plain_text
from bench.record import MachineProvenance, RankError, Record, Status
from bench.record_files import not_counted, refuse_newer_schema
from bench.trial import Configuration, EnvironmentSpec, Trial
from bench.whole_file import OF_THE_NAME

WAIT_S = 0.2
"""Between looks at a trial that another sweep is running."""


class Launcher(AbstractContextManager["Launcher"], Protocol):
    """What a sweep needs of `bench.controller.hosts.Hosts`: a context manager that runs trials."""

    def leave(self, key: str) -> None:
        """End whatever runs in the environment of `key`, which is to be removed."""
        ...

    def run(self, trial: Trial, folder: Path, note: Callable[[str], None]) -> Record:
        """Run `trial`; whatever happens, there is a record. `note` is told where it stands."""
        ...


class Watch(Protocol):
    """What a sweep needs of `bench.controller.provenance.MachineWatch`."""

    def begin(self) -> None:
        """Called before a trial."""
        ...

    def finish(self) -> tuple[MachineProvenance, list[str]]:
        """The machine during the trial, and why it was not quiet."""
        ...


class Display(AbstractContextManager["Display"], Protocol):
    """Shows a sweep to a person: see `bench.controller.progress`."""

    def begin(self, trial: Trial) -> None:
        """`trial` starts now."""
        ...

    def note(self, trial: Trial, text: str) -> None:
        """Where `trial`, which takes several launches, stands."""
        ...

    def done(self, trial: Trial, record: Optional[Record]) -> None:
        """`trial` has a final record; None when another sweep wrote it."""
        ...

    def waiting(self, trial: Trial) -> None:
        """Only trials that other sweeps are running are left, `trial` among them."""
        ...

    def precision(self, found: Widths, total: int) -> None:
        """The rounds so far gave these intervals; with those added, there are `total` trials."""
        ...


@dataclass(frozen=True)
class Summary:
    """How a sweep ended."""

    folder: Path
    planned: int
    """Trials of the whole sweep."""
    resumed: int
    """Those that had a final record before."""
    statuses: Mapping[Status, int]
    """Of all trials that have a final record by now."""

    @property
    def complete(self) -> bool:
        """Whether every trial has a final record."""
        return sum(self.statuses.values()) == self.planned

    @property
    def not_ok(self) -> int:
        """Trials with another status than `ok`."""
        return sum(self.statuses.values()) - self.statuses.get(Status.OK, 0)


class Schedule:
    """The trials of a sweep in their order, and which of them are left to do.

    With `precision`, rounds are added to those planned, one at a time, for the configurations
    that still need them. Which those are follows from the records alone, so that a resumed
    sweep, and one side by side with it, add the same.

    Raises `RecordsError` when a newer spbench wrote into the folder. Writes nothing.
    """

    def __init__(self, configurations: Sequence[Configuration], settings: Settings) -> None:
        self.settings = settings
        self._by_hash = {one.hash: one for one in configurations}
        self._expected = Expected(settings.retry_unknown_code)
        self.ledger = Ledger(settings.results, self._counts)
        refuse_newer_schema(settings.results, self.ledger.skipped)
        self.trials: list[Trial] = []
        self.left: list[Trial] = []
        self._configurations = configurations
        self._rounds = settings.rounds
        self._add(interleave(configurations, settings.rounds, settings.seed))
        while not self.left and self.grow():
            pass  # rounds that an earlier sweep added

    def remarks(self) -> list[str]:
        """A line for each reason why trials that have a record run again, or might.

        Lines of the folder that are no record are one of them: whose they were is not known.

        To be asked for before the sweep runs: what it writes itself counts.
        """
        nearest = []
        for trial in self.trials:
            if (known := self.ledger.all(trial.key)) and self.ledger.find(trial.key) is None:
                nearest.append(self._expected.nearest(trial.configuration, known))
        found = [self.ledger.find(trial.key) for trial in self.trials]
        unknown = sum(one is not None and one.identity.code == UNKNOWN for one in found)
        damaged = not_counted(self.settings.results, self.ledger.skipped)
        return [*damaged, *lines(nearest, unknown, len(self.trials))]

    def numbered(self, trial: Trial) -> Trial:
        """`trial` as an attempt that no record in the folder is named by."""
        attempt = max(trial.attempt, self.ledger.next_attempt(trial.key))
        return trial.model_copy(update={"attempt": attempt})

    def _counts(self, config_hash: str, entry: Entry) -> bool:
        return self._expected.difference(self._by_hash[config_hash], entry) is None

    @property
    def environments(self) -> dict[EnvironmentSpec, int]:
        """What the trials that are left need, and those that may be added.

        The value is how many GPUs torch has to be able to use there.
        """
        if self.left and self.settings.precision is not None:
            configurations = list(self._configurations)
        else:
            configurations = [trial.configuration for trial in self.left]
        gpus: dict[EnvironmentSpec, int] = {}
        for one in configurations:
            if not one.unsupported_reasons():
                gpus[one.environment] = max(gpus.get(one.environment, 0), needed(one))
        return gpus

    def widths(self) -> Optional[Widths]:
        """How precise the configurations are by now; None where `precision` is not asked for."""
        goal = self.settings.precision
        if goal is None:
            return None
        return widths(self._configurations, self.ledger, goal, self._rounds)

    def grow(self) -> list[Trial]:
        """Add a round for the configurations that need one; empty when there is none to add.

        To be called when all trials so far have a final record.
        """
        found = self.widths()
        if found is None or self._rounds >= self.settings.max_rounds:
            return []
        wanting = found.wanting
        order = round_of(self._configurations, self._rounds, self.settings.seed)
        self._rounds += 1
        return self._add(trial for trial in order if trial.key[0] in wanting)

    def _add(self, trials: Iterable[Trial]) -> list[Trial]:
        if self.settings.keep is not None:
            trials = by_environment(trials)
        added = [self._attempt(trial) for trial in trials]
        self.trials += added
        self.left += [trial for trial in added if not self.ledger.settles(trial)]
        return added

    def _attempt(self, trial: Trial) -> Trial:
        entry = self.ledger.find(trial.key)
        if entry is None or entry.status in self.settings.retry:
            return self.numbered(trial)
        return trial.model_copy(update={"attempt": entry.attempt})

    def summary(self) -> Summary:
        """How it stands now."""
        entries = [self.ledger.find(trial.key) for trial in self.trials]
        return Summary(
            folder=self.settings.results,
            planned=len(self.trials),
            resumed=len(self.trials) - len(self.left),
            statuses=Counter(entry.status for entry in entries if entry is not None),
        )


def create(folder: Path) -> None:
    """Make the results folder; `ConfigurationError` when there can be none of that name.

    Raises OSError for what is no fault of the name: a full disk, a folder above it that cannot be
    written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno not in OF_THE_NAME:
            raise
        raise ConfigurationError(
            f"results={folder}: cannot be created ({error.strerror}); "
            "choose another with results=FOLDER"
        ) from error


def run(schedule: Schedule, launcher: Launcher, display: Display, watch: Watch) -> Summary:
    """Run what is left of `schedule`, and wait for what other sweeps are running of it.

    A `KeyboardInterrupt` passes through; the trial that it hits leaves no record.
    """
    try:
        trials = list(schedule.left)
        while trials:
            _settle_all(trials, schedule, launcher, display, watch)
            found = schedule.widths()
            trials = schedule.grow()
            if found is not None:
                display.precision(found, len(schedule.trials))
    finally:
        schedule.ledger.close()
    return schedule.summary()


def _settle_all(
    trials: Sequence[Trial], schedule: Schedule, launcher: Launcher, display: Display, watch: Watch
) -> None:
    waiting = [t for t in trials if not _settle(t, schedule, launcher, display, watch)]
    while waiting:  # a sweep that dies releases its claim: then the trial is ours
        display.waiting(waiting[0])
        time.sleep(WAIT_S)
        waiting = [t for t in waiting if not _settle(t, schedule, launcher, display, watch)]


def _settle(
    trial: Trial, schedule: Schedule, launcher: Launcher, display: Display, watch: Watch
) -> bool:
    """See to it that `trial` has a final record; False when another sweep is running it."""
    ledger = schedule.ledger
    with ledger.claim(trial) as claimed:
        # Looked up after the claim: whoever held it before has written its record by now.
        ledger.refresh()
        if ledger.settles(trial):
            display.done(trial, None)
            return True
        if not claimed:
            return False
        trial = schedule.numbered(trial)
        display.begin(trial)
        note = functools.partial(display.note, trial)
        record = _record(trial, schedule.settings, launcher, watch, note)
        ledger.append(record)
    display.done(trial, record)
    return True


def _launched(
    trial: Trial, folder: Path, launcher: Launcher, note: Callable[[str], None]
) -> Record:
    """The record that `launcher` gives; one that says what was wrong with spbench where it fails.

    The machine's faults, and what the person in front of it does, are no trial's.
    """
    started, clock = datetime.now(timezone.utc), time.monotonic()
    try:
        record = launcher.run(trial, folder, note)
        if not isinstance(record, Record):
            raise TypeError(f"scenario={trial.configuration.scenario} gave no record: {record!r}")
    except (OSError, ControllerProblem):
        raise
    except Exception as fault:  # noqa: BLE001 (the sweep goes on)
        said = "".join(traceback.format_exception(type(fault), fault, fault.__traceback__))
        error = RankError(
            rank=0,
            type=type(fault).__name__,
            message=plain_text(str(fault)),
            traceback=plain_text(said),
            phase="controller",
        )
        return Record.of(
            trial,
            Status.ERROR,
            started.isoformat(timespec="milliseconds"),
            time.monotonic() - clock,
            reason=f"spbench itself failed: {error.type}: {error.message}",
            errors=[error],
        )
    return record


def _record(
    trial: Trial,
    settings: Settings,
    launcher: Launcher,
    watch: Watch,
    note: Callable[[str], None],
) -> Record:
    reasons = trial.configuration.unsupported_reasons()
    if reasons:
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        refused = Record.of(trial, Status.UNSUPPORTED, now, 0.0, reason="; ".join(reasons))
        return refused.model_copy(update={"experiment": settings.experiment})
    watch.begin()
    record = _launched(trial, settings.results, launcher, note)
    machine, noisy = watch.finish()
    noisy = [*record.noisy, *noisy]
    seen = {"machine": machine, "noisy": noisy, "experiment": settings.experiment}
    return record.model_copy(update=seen)
