"""Capacity: the longest sequence that trains, by doubling, then bisection.

Every attempt is a trial of `train`, a warm-up step and a measured one, in fresh ranks. The
search begins at `seq_len` and ends when the longest length that trained and the shortest that
ran out of memory are `options.resolution` tokens apart, or when `options.most` trained.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from bench import theory
from bench.controller.drivers import Launch, Note
from bench.record import Record, Status
from bench.trial import Configuration, Trial

RESOLUTION_TOKENS = 512
MOST_TOKENS = 1 << 24
"""Where the search ends when nothing else ends it."""


@dataclass
class Bracket:
    """What is known of the longest sequence, in units of `step` tokens."""

    step: int
    first: int
    most: int
    fits: int = 0
    """The most units that trained."""
    fails: int | None = None
    """The fewest that did not; None: none so far."""

    def next(self) -> int | None:
        """Units to try next; None when the search is over."""
        if self.fails is None:
            if self.fits >= self.most:
                return None
            return min(self.most, 2 * self.fits) if self.fits else self.first
        return (self.fits + self.fails) // 2 if self.fails - self.fits > 1 else None

    def learn(self, units: int, fitted: bool) -> None:
        """Take in how an attempt ended."""
        if fitted:
            self.fits = units
        else:
            self.fails = units

    def __str__(self) -> str:
        low = f"{self.fits * self.step:,}"
        if self.fails is None:
            return f"from {low} tokens on"
        return f"between {low} and {self.fails * self.step:,} tokens"


@dataclass
class Search:
    """The attempts so far, and the record of the last that trained."""

    bracket: Bracket
    attempts: list[dict[str, Any]] = field(default_factory=list)
    fitted: Record | None = None
    ended: Record | None = None
    """An attempt that neither trained nor ran out of memory: the search ends with it."""


def run(trial: Trial, launch: Launch, note: Note) -> Record:
    """Search, and return the trial's record; its `details` hold every attempt.

    The record is `ok` with the longest length, `oom` when not even the resolution's fits, and
    otherwise has the status of the attempt that ended the search.
    """
    started, clock = datetime.now(timezone.utc), time.monotonic()
    c = trial.configuration
    search = Search(bracket_of(c))
    note(f"the longest sequence is {search.bracket}")
    while search.ended is None and (units := search.bracket.next()) is not None:
        _attempt(search, trial, units, launch)
        last = search.attempts[-1]
        note(
            f"{last['seq_len']:,} tokens {last['status']}; the longest sequence is {search.bracket}"
        )
    return _record(
        trial, search, started.isoformat(timespec="milliseconds"), time.monotonic() - clock
    )


def bracket_of(c: Configuration) -> Bracket:
    """The search that a configuration asks for; every length is a multiple of sp."""
    resolution = int(c.options.get("resolution", RESOLUTION_TOKENS))
    step = -(-resolution // c.sp) * c.sp
    most = max(1, int(c.options.get("most", MOST_TOKENS)) // step)
    return Bracket(step, first=min(most, max(1, c.seq_len // step)), most=most)


def predicted_longest(c: Configuration, step: int, most: int) -> int | None:
    """The longest sequence that fits by theory [tokens], a multiple of `step`.

    None without a `memory_limit`: what a GPU has is for its ranks to find out.
    """
    if c.memory_limit is None:
        return None
    return theory.longest_sequence(theory.training_of(c), c.memory_limit, step, most)


def launched(c: Configuration) -> Configuration:
    """The training that every attempt is, but for its length."""
    fields = {"scenario": "train", "options": {}, "warmup_steps": 1, "steps": 1}
    return c.model_copy(update={**fields, "gradient_check": "off"})


def _attempt(search: Search, trial: Trial, units: int, launch: Launch) -> None:
    """Launch one length, and take in what happened."""
    seq_len = units * search.bracket.step
    inner = launched(trial.configuration).model_copy(update={"seq_len": seq_len})
    made = launch(Trial(configuration=inner, round=trial.round, attempt=trial.attempt))
    search.attempts.append(
        {
            "seq_len": seq_len,
            "status": made.status.value,
            "reason": made.reason,
            "predicted": _predicted(inner),
            "peak_bytes": max((rank.peak_bytes for rank in made.memory), default=None),
            "seconds": round(made.duration_s, 3),
            "log": made.log,
        }
    )
    if made.status is Status.OK:
        search.fitted = made
        search.bracket.learn(units, True)
    elif made.status is Status.OOM:
        search.bracket.learn(units, False)
    else:
        search.ended = made


def _predicted(c: Configuration) -> dict[str, Any]:
    """The peak that theory expects of an attempt [bytes]: all that is allocated counts."""
    peak = theory.peak_memory(theory.training_of(c))
    return {"moment": peak.moment, "bytes": peak.total, "components": peak.components()}


def _record(trial: Trial, search: Search, started: str, duration_s: float) -> Record:
    """The trial's own record of the whole search."""
    c, bracket, ended = trial.configuration, search.bracket, search.ended
    longest = bracket.fits * bracket.step
    predicted = predicted_longest(c, bracket.step, bracket.most * bracket.step)
    details = {
        "headline": _headline(longest, bracket, predicted),
        "longest": longest,
        "shortest_failed": None if bracket.fails is None else bracket.fails * bracket.step,
        "resolution": bracket.step,
        "predicted": predicted,
        "attempts": search.attempts,
    }
    fields: dict[str, Any] = {"details": details}
    if search.fitted is not None:
        fields |= {"memory": search.fitted.memory, "worker": search.fitted.worker}
        fields |= {"log": search.fitted.log}
    if ended is not None:
        status, reason = ended.status, f"at {search.attempts[-1]['seq_len']} tokens: {ended.reason}"
        fields |= {"errors": ended.errors, "ranks": ended.ranks, "log": ended.log}
        fields["worker"] = ended.worker or fields.get("worker")
    elif longest == 0:
        status, reason = Status.OOM, f"not even {bracket.step} tokens fit; {_last_reason(search)}"
    else:
        status, reason = Status.OK, None
    return Record.of(trial, status, started, duration_s, reason=reason, **fields)


def _headline(longest: int, bracket: Bracket, predicted: int | None) -> str:
    more = " or more" if bracket.fails is None else ""
    said = f", predicted {predicted:,}" if predicted is not None else ""
    return f"longest {longest:,} tokens{more}{said}"


def _last_reason(search: Search) -> str:
    return str(search.attempts[-1]["reason"])
