"""What a person sees of a running sweep: a live display, or a line for each trial."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Optional

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from bench import theory
from bench.console import Console
from bench.controller.precision import Widths
from bench.printable import one_line
from bench.record import MODE_MARKS, Record, Status
from bench.rounds import slowest
from bench.trial import Configuration, Trial
from bench.verdicts import SIGN, STYLE, fault

LAST_RESULTS = 5

STYLES = {
    Status.OK: "green",
    Status.UNSUPPORTED: "dim",
    Status.ERROR: "red",
    Status.CRASH: "red",
    Status.OOM: "magenta",
    Status.HANG: "yellow",
    Status.TIMEOUT: "yellow",
    Status.ENVIRONMENT: "red",
}


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of nested mappings; a named part (a model) is its name."""
    for key, value in values.items():
        if isinstance(value, Mapping) and "name" in value:
            yield prefix + key, value["name"]
            rest = {name: inner for name, inner in value.items() if name != "name"}
            yield from flat(rest, f"{prefix}{key}.")
        elif isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def axes(configurations: Sequence[Configuration]) -> list[str]:
    """The dotted keys whose values differ among `configurations`.

    What follows from a name that differs too (the sizes of a model) is left out.
    """
    seen: dict[str, Counter[str]] = {}
    for configuration in configurations:
        for key, value in flat(configuration.model_dump(exclude={"limits"})):
            seen.setdefault(key, Counter())[repr(value)] += 1
    # An option that only some of them set has one value, but fewer of it.
    everywhere = len(configurations)
    varying = [key for key, values in seen.items() if everywhere not in values.values()]
    return [key for key in varying if key.partition(".")[0] not in varying or "." not in key]


def describe(trial: Trial, varying: Sequence[str]) -> str:
    """`torch-2.2 sp=2 loss=all_gather r0`: the environment, the axes and the round."""
    attempt = f" attempt {trial.attempt + 1}" if trial.attempt else ""
    return f"{name_of(trial.configuration, varying)} r{trial.round}{attempt}"


def name_of(configuration: Configuration, varying: Sequence[str]) -> str:
    """`torch-2.2 sp=2 loss=all_gather`: the environment and the axes."""
    values = dict(flat(configuration.model_dump(exclude={"limits"})))
    parts = [f"{key}={values.get(key)}" for key in varying if key != "environment"]
    return " ".join([configuration.environment.name, *parts])


def outcome(record: Record) -> str:
    """`error IndexError in backward on ranks 2, 3 (1.2 s)`: how a trial ended, in short."""
    took = f"({record.duration_s:.1f} s)"
    if record.status is Status.OK:
        found = fault_of(record)
        lead = "ok" if found is None else f"{SIGN} {found}:"
        return f"{lead} {', '.join(_figures(record))} {took}".replace("  ", " ")
    gone = any(rank.outcome in ("killed", "exited") for rank in record.ranks)
    if record.errors and not gone and record.status is not Status.ENVIRONMENT:
        first = record.errors[0]
        same = [e.rank for e in record.errors if (e.type, e.phase) == (first.type, first.phase)]
        ranks = ", ".join(map(str, same))
        kind = first.type.rpartition(".")[2]
        where = f"in {first.phase} on rank{'s' if len(same) > 1 else ''} {ranks}"
        return f"{record.status.value} {kind} {where} {took}"
    return f"{record.status.value} {record.reason or ''} {took}".replace("  ", " ")


def fault_of(record: Record) -> Optional[str]:
    """What is wrong with the gradient of a trial that ran: `×2`; None where nothing is known."""
    if record.status is not Status.OK:
        return None
    agrees = None if record.first_loss is None else record.first_loss.agrees
    if record.gradient is None:
        return fault(None, None, None, agrees)
    one = record.gradient
    ranks_agree = None if one.scale is None else one.ranks_agree
    return fault(one.verdict, one.scale_label, ranks_agree, agrees)


def style_of(record: Record) -> str:
    """The colour of a trial's line: its status's, unless its gradient is wrong."""
    return STYLES[record.status] if fault_of(record) is None else STYLE


def _figures(record: Record) -> Iterator[str]:
    config = record.config
    if "headline" in record.details:
        yield str(record.details["headline"])
    step_s = slowest([samples.step_s for samples in record.samples])
    if step_s is not None:
        tokens = theory.tokens_per_second(config.dp, config.micro_batch, config.seq_len, step_s)
        yield f"{tokens:,.0f} tokens/s"
    if record.gradient is not None:
        scale = f" {record.gradient.scale_label}" if record.gradient.verdict == "scaled" else ""
        mark = MODE_MARKS.get(record.gradient.mode)
        yield f"gradient {record.gradient.verdict}{scale}" + (f" ({mark})" if mark else "")
    elif record.gradient_reason is not None:
        yield "gradient not compared"
    first = record.first_loss
    if first is not None and first.agrees is False:
        loss = "not finite" if first.loss is None else f"{first.loss:.6g}"
        yield f"first loss {loss} where one device has {first.reference:.6g}"


def width(half: float) -> str:
    """A relative half-width for people: `±9.1 %`; unknown with too few rounds."""
    return f"±{100 * half:.1f} %" if math.isfinite(half) else "unknown"


class _Counts:
    """Trials settled, and how."""

    def __init__(self, configurations: Sequence[Configuration], total: int, settled: int) -> None:
        self.axes = axes(configurations)
        self._configurations = {one.hash: one for one in configurations}
        self.total = total
        self.settled = settled
        self.statuses: Counter[Status] = Counter()
        """Of the trials whose gradient is not wrong."""
        self.wrong = 0
        """Trials that ran with a wrong gradient."""

    def done(self, record: Optional[Record]) -> None:
        """Count one more trial."""
        self.settled += 1
        if record is None:
            return
        if fault_of(record) is None:
            self.statuses[record.status] += 1
        else:
            self.wrong += 1

    def precision(self, found: Widths) -> str:
        """`±2 % wanted: 3 of 16 have it after 7 rounds, widest ±9.1 % (torch-2.2 sp=2)`."""
        precise = len(found.of) - len(found.wanting)
        line = (
            f"±{100 * found.goal:.2g} % wanted: {precise} of {len(found.of)} have it "
            f"after {found.rounds} rounds"
        )
        if not found.wanting:
            return line
        widest = max(found.of, key=lambda one: found.of[one])
        where = name_of(self._configurations[widest], self.axes)
        return f"{line}, widest {width(found.widest)} ({where})"


class LogDisplay:
    """One line for each trial, for logs and pipes."""

    def __init__(
        self, console: Console, configurations: Sequence[Configuration], total: int, settled: int
    ) -> None:
        self._console = console
        self._counts = _Counts(configurations, total, settled)
        self._told = False

    def __enter__(self) -> LogDisplay:
        if self._counts.settled:
            counts = self._counts
            self._say(f"{counts.settled} of {counts.total} trials have a record already")
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def begin(self, trial: Trial) -> None:
        """Nothing: the line comes with the record."""

    def note(self, trial: Trial, text: str) -> None:
        """Print where a long trial stands."""
        self._say(f"      {describe(trial, self._counts.axes)}: {text}")

    def done(self, trial: Trial, record: Optional[Record]) -> None:
        """Print the trial's line."""
        self._counts.done(record)
        said = outcome(record) if record else "done by another sweep"
        counts = f"[{self._counts.settled}/{self._counts.total}]"
        self._say(f"{counts} {describe(trial, self._counts.axes)}: {said}")

    def waiting(self, trial: Trial) -> None:
        """Say once that others are at work."""
        if not self._told:
            self._told = True
            self._say(f"waiting for another sweep: {describe(trial, self._counts.axes)}")

    def precision(self, found: Widths, total: int) -> None:
        """Say where it stands, and what is added."""
        added = total - self._counts.total
        self._counts.total = total
        more = f"; {added} more trials" if added else ""
        self._say(f"{self._counts.precision(found)}{more}")

    def _say(self, line: str) -> None:
        self._console.out(one_line(line), highlight=False)  # `print` would wrap


class LiveDisplay:
    """The current trial, a bar with the time left, counts per status, and the last results."""

    def __init__(
        self, console: Console, configurations: Sequence[Configuration], total: int, settled: int
    ) -> None:
        self._counts = _Counts(configurations, total, settled)
        self._last: deque[Text] = deque(maxlen=LAST_RESULTS)
        self._now = Text("starting")
        self._precision: Optional[Text] = None
        self._widest: deque[str] = deque(maxlen=LAST_RESULTS)
        self._bar = Progress(
            TextColumn("trials"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=console,
            speed_estimate_period=600,
        )
        self._task = self._bar.add_task("trials", total=total, completed=settled)
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=4)

    def __enter__(self) -> LiveDisplay:
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self._now = Text("interrupted" if kind is KeyboardInterrupt else "finished")
        self._live.__exit__(kind, error, traceback)

    def begin(self, trial: Trial) -> None:
        """Show `trial` as the current one."""
        self._now = Text.assemble(("now ", "bold"), describe(trial, self._counts.axes))

    def note(self, trial: Trial, text: str) -> None:
        """Show where a long trial stands."""
        self.begin(trial)
        self._now.append(f": {text}")

    def done(self, trial: Trial, record: Optional[Record]) -> None:
        """Count `trial` and add it to the last results."""
        self._counts.done(record)
        self._bar.update(self._task, completed=self._counts.settled)
        said = outcome(record) if record else "done by another sweep"
        style = style_of(record) if record else "dim"
        name = describe(trial, self._counts.axes)
        self._last.append(Text.assemble(("  ", ""), f"{name}: ", (said, style)))

    def waiting(self, trial: Trial) -> None:
        """Show that another sweep is at work."""
        name = describe(trial, self._counts.axes)
        self._now = Text.assemble(("waiting for another sweep ", "bold"), name)

    def precision(self, found: Widths, total: int) -> None:
        """Show where it stands, how the widest interval shrinks, and the new total."""
        self._widest.append(width(found.widest))
        self._precision = Text(self._counts.precision(found))
        if len(self._widest) > 1:
            self._precision.append(f"; so far {' → '.join(self._widest)}")
        self._bar.update(self._task, total=total)

    def _render(self) -> Group:
        found = [
            Text(f"{status.value} {count}", STYLES[status])
            for status, count in sorted(self._counts.statuses.items())
        ]
        if self._counts.wrong:
            found.append(Text(f"{SIGN} wrong gradient {self._counts.wrong}", STYLE))
        counts = Text("  ").join(found)
        for text in (self._now, *self._last):
            text.no_wrap, text.overflow = True, "ellipsis"
        precision = [self._precision] if self._precision else []
        return Group(*self._last, *precision, self._now, self._bar, counts)


def display(
    console: Console, configurations: Sequence[Configuration], total: int, settled: int
) -> LiveDisplay | LogDisplay:
    """The display that fits `console`; `settled` of `total` trials are done already."""
    fitting = LiveDisplay if console.is_terminal and not console.is_dumb_terminal else LogDisplay
    return fitting(console, configurations, total, settled)
