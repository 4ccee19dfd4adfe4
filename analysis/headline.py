"""What a person acts on, in at most five lines: right or not, what fails, what it costs, what next.

Everything else that spbench shows of a folder is evidence for these lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from rich.padding import Padding
from rich.text import Text

from analysis import sections
from analysis.audit import is_audit
from analysis.compare import compare, natural_pairs
from analysis.comparison import Comparison
from analysis.failures import listed, place, ways
from analysis.gradients import RIGHT, UNCHECKED, WRONG, Gradients, gradients_of
from analysis.identities import RESULT, latest
from analysis.precision_words import more_rounds
from analysis.reading import AnalysisError
from analysis.selection import WORKAROUND
from analysis.sentences import names_of
from analysis.statistics import FASTER, FEWEST, NO_DIFFERENCE, SLOWER, Ratio
from analysis.table import varying_axes
from bench.console import Console
from bench.record import Status
from bench.verdicts import SIGN, STYLE, in_words

MOST = 5
"""Lines."""
MOST_WRONG = 2
"""Of them, on gradients that are wrong."""
STYLES = {"right": "green", "wrong": STYLE, "unchecked": "yellow", "fails": "red", "next": "bold"}
LABELS = {
    "right": "✓",
    "wrong": SIGN,
    "unchecked": "?",
    "fails": "✕",
    "cost": "=",
    "next": "→",
}
"""What a line begins with, by its kind."""


class Line(NamedTuple):
    """One line of the answer."""

    kind: str
    """`right`, `wrong`, `unchecked`, `fails`, `cost`, `next`."""
    text: str

    @property
    def signed(self) -> str:
        """The line as it is shown: its sign, then the text."""
        return f"{LABELS[self.kind]} {self.text}"


def headline(folder: Path, frame: pd.DataFrame, again: Sequence[str] = ()) -> list[Line]:
    """At most `MOST` lines about `analysis.frame.load(folder)`'s frame.

    `again` is the command line's overrides of the sweep that made it, where they are known.
    """
    frame = latest(frame)  # of what ran last: earlier results are in the tables
    own = sections.found(frame)
    trained = frame[~frame.scenario.isin(own)]
    lines: list[Line] = []
    comparison = None
    if len(trained):
        lines += _correctness(folder, trained)
    for section in sections.sentences(folder, frame):
        lines += [Line("cost", one) for one in section.sentences[:1]]
    lines += _fails(trained if len(trained) else frame)
    if len(trained) and not is_audit(trained):
        comparison = _comparison(trained)
        lines += _cost(trained, comparison)
    following = list(_next(folder, frame, comparison, again))
    return [*lines[: MOST - len(following[:1])], *following[:1]]


def render(lines: Sequence[Line], console: Console) -> None:
    """Print the lines, each with its sign and colour, and a blank line below."""
    for line in lines:
        sign = LABELS[line.kind]
        text = Text.assemble((sign, STYLES.get(line.kind, "")), f" {line.text}")
        if console.is_terminal:  # lines break between words there
            console.print(Padding(text, (0, 0, 0, 0)), highlight=False)
        else:
            console.out(line.signed, highlight=False)
    if lines:
        console.print()


def _correctness(folder: Path, trained: pd.DataFrame) -> Iterator[Line]:
    kinds = {key: gradients_of(trials) for key, trials in trained.groupby("config_hash")}
    wrong = {key for key, found in kinds.items() if found.kind == WRONG}
    right = sum(found.kind == RIGHT for found in kinds.values())
    everything = gradients_of(trained)
    if wrong:
        losses = sorted(trained[trained.config_hash.isin(wrong)].loss.unique())
        for loss in losses[:MOST_WRONG]:
            of_loss = trained[trained.config_hash.isin(wrong) & (trained.loss == loss)]
            yield Line("wrong", _wrong(trained, of_loss, kinds))
        if len(losses) > MOST_WRONG:
            others = ", ".join(losses[MOST_WRONG:])
            yield Line("wrong", f"wrong too: {others} (spbench audit {folder})")
    elif right:
        unchecked = sum(f.kind == UNCHECKED and bool(f.total) for f in kinds.values())
        more = f"; {unchecked:,} more were not compared" if unchecked else ""
        yield Line(
            "right",
            f"the gradient is right in all {right:,} configurations where it was compared with "
            f"{everything.reference}{more}"
            if right > 1
            else f"the gradient is right: it was compared with {everything.reference}{more}",
        )
    elif everything.total and (trained.status == Status.OK.value).any():
        ran = gradients_of(trained[trained.status == Status.OK.value])
        yield Line(
            "unchecked",
            f"nobody knows whether the gradient is right: it was not compared "
            f"({'; '.join(ran.unchecked)})",
        )


def _wrong(trained: pd.DataFrame, of_loss: pd.DataFrame, kinds: dict[str, Gradients]) -> str:
    """`all_gather at ZeRO 1 on torch-2.13: gradient 2 × too large: do not train with this; …`."""
    loss = of_loss.loss.iloc[0]
    where = f"at ZeRO {listed(of_loss, 'zero')} on {listed(of_loss, 'environment')}"
    return (
        f"{loss} {where}: gradient {_faults(of_loss, kinds)}: do not train with this; "
        f"{_instead(trained, of_loss, kinds)}"
    )


def _faults(of_loss: pd.DataFrame, kinds: dict[str, Gradients]) -> str:
    """`2 × (sp=2) or 4 × (sp=4) too large`: each fault with the splits that it is seen at."""
    by_fault: dict[str, list[str]] = {}
    for config_hash in of_loss.config_hash.unique():
        for fault in kinds[config_hash].wrong:
            by_fault.setdefault(fault, []).append(config_hash)
    if len(by_fault) == 1:
        return in_words(next(iter(by_fault)))
    texts = []
    for fault, hashes in sorted(by_fault.items()):
        splits = listed(of_loss[of_loss.config_hash.isin(hashes)], "sp")
        texts.append(f"{in_words(fault)} (sp={splits})")
    return ", ".join(texts)


def _instead(trained: pd.DataFrame, of_loss: pd.DataFrame, kinds: dict[str, Gradients]) -> str:
    """What is right in every place where the aggregation is wrong, and what it costs."""
    axes = [name for name in varying_axes(trained) if name != "loss"]
    configurations = trained.drop_duplicates("config_hash").set_index("config_hash")
    place_of = {key: _place(row, axes) for key, row in configurations.iterrows()}
    places = {place_of[key] for key in of_loss.config_hash.unique()}
    worth: dict[str, dict[tuple[object, ...], str]] = {}
    for key, loss in configurations.loss.items():
        worth.setdefault(loss, {})[place_of[key]] = kinds[key].kind
    right = [loss for loss, at in worth.items() if all(at.get(one) == RIGHT for one in places)]
    if not right:
        return _in_part(places, worth)
    loss = min(right, key=lambda name: (name != WORKAROUND, name))
    there = trained[trained.config_hash.map(place_of).isin(places)]
    return f"use {loss} (right{_no_slower(there, of_loss.loss.iloc[0], loss)})"


def _in_part(
    places: set[tuple[object, ...]], worth: dict[str, dict[tuple[object, ...], str]]
) -> str:
    """The aggregation that is right in most of `places`, where none is right in all."""
    found = {loss: sum(at.get(p) == RIGHT for p in places) for loss, at in worth.items()}
    loss = max(found, key=lambda name: found[name])
    if not found[loss]:
        return "no aggregation in this folder is right there (spbench doctor looks for one that is)"
    return f"{loss} is right in {found[loss]} of these {len(places)} configurations"


def _no_slower(there: pd.DataFrame, wrong: str, right: str) -> str:
    """`, no slower within 8 %`: what the right aggregation costs beside the wrong one."""
    try:
        ratio = compare(there, {"loss": wrong}, {"loss": right}).overall
    except AnalysisError:
        return ""
    if ratio.interval is None or is_audit(there):
        return ""
    if ratio.verdict == SLOWER and ratio.value:
        return f", {1 / ratio.value:.2f} times slower"
    if ratio.verdict == FASTER:
        return f", {ratio.value:.2f} times faster"
    most = max(1 / ratio.interval.low - 1, 0.001)
    return f", no slower within {100 * most:.2g} %" if most < 1 else ""


def _place(row: pd.Series, axes: Sequence[str]) -> tuple[object, ...]:
    return tuple(str(row[name]) for name in axes)


def _fails(frame: pd.DataFrame) -> Iterator[Line]:
    found = ways(frame)
    if found:
        first, *others = found
        trials = "trial" if first.total == 1 else "trials"
        more = f"; and {len(others)} other failures" if len(others) > 1 else ""
        more = more or (f"; and {others[0].where}: {others[0].what}" if others else "")
        yield Line(
            "fails",
            f"{first.where} fails: {first.what} ({first.failed:,} of {first.total:,} {trials})"
            f"{more}",
        )


def _comparison(trained: pd.DataFrame) -> Comparison | None:
    """The first comparison that the folder was made for."""
    for pair in natural_pairs(trained)[:1]:
        try:
            return compare(trained, pair.baseline, pair.candidate)
        except AnalysisError:
            return None
    return None


def _cost(trained: pd.DataFrame, comparison: Comparison | None) -> Iterator[Line]:
    """The speed of the comparison's candidate; without one, of the fastest right gradient."""
    emulated = "; times are emulated on gloo" if trained.emulated.any() else ""
    if comparison is not None and comparison.overall.value is not None:
        names, ratio = names_of(comparison), comparison.overall
        kinds = {p.candidate.gradients.kind for p in comparison.points if p.candidate.has_number}
        part = "in part " if len(kinds) > 1 else ""
        aside = f", {part}with a wrong gradient" if WRONG in kinds else ""
        yield Line(
            "cost",
            f"{names.candidate} runs at {_speed(ratio)} the speed of {names.baseline}{aside}"
            f"{_memory(comparison)}{emulated}",
        )
        return
    timed = trained[trained.tokens_per_s.notna()]
    keys = [k for k, trials in timed.groupby("config_hash") if gradients_of(trials).kind != WRONG]
    timed = timed[timed.config_hash.isin(keys)]
    if timed.empty:
        return
    rates = timed.groupby(RESULT).tokens_per_s.median()
    best = timed.set_index(RESULT, drop=False).loc[[rates.idxmax()]]
    peak = best.peak_memory_bytes.max()
    memory = "" if pd.isna(peak) else f", peak {peak / 2**20:,.0f} MiB"
    first = "the fastest, " if len(rates) > 1 else ""
    yield Line(
        "cost", f"{first}{place(best, trained)}: {rates.max():,.0f} tokens/s{memory}{emulated}"
    )


def _speed(ratio: Ratio) -> str:
    if ratio.interval is None:
        return f"{ratio.value:.2f} times (too few rounds for a verdict: {FEWEST} are needed)"
    low, high = ratio.interval.low, ratio.interval.high
    return f"{ratio.value:.2f} ({low:.2f} to {high:.2f}, {ratio.verdict}) times"


def _memory(comparison: Comparison) -> str:
    ratios = sorted(one.memory_ratio for one in comparison.points if one.memory_ratio)
    if not ratios:
        return ""
    low, high = f"{ratios[0]:.2f}", f"{ratios[-1]:.2f}"
    return f", with {low if low == high else f'{low} to {high}'} times the peak memory"


def _next(
    folder: Path,
    frame: pd.DataFrame,
    comparison: Comparison | None,
    again: Sequence[str],
) -> Iterator[Line]:
    """What to do next, the most urgent first."""
    if not (frame.status == Status.OK.value).any():
        yield Line("next", f"spbench show {folder} --failures")
        return
    ratio = comparison.overall if comparison is not None else None
    if comparison is not None and ratio is not None and ratio.value is not None:
        if ratio.interval is None:
            yield Line("next", f"{_again(again, FEWEST)} allows a verdict")
            return
        more = None
        if ratio.verdict == NO_DIFFERENCE:
            open_ = max(ratio.interval.high, 1 / ratio.interval.low)
            more = more_rounds([ratio], comparison.smallest, open_)
        if more is not None:
            yield Line("next", f"{_again(again, more[0])} would show {more[1]}")
            return
    if (frame.status.isin([Status.OK.value, Status.UNSUPPORTED.value])).all():
        yield Line("next", report_command(folder))
    else:
        yield Line("next", f"spbench show {folder} --failures")


def report_command(folder: Path) -> str:
    """What to run where nothing is more urgent."""
    return f"spbench report {folder}"


def _again(again: Sequence[str], rounds: int) -> str:
    """The sweep's command with more rounds."""
    if not again:
        return f"the same sweep with rounds={rounds}"
    kept = [one for one in again if not one.startswith("rounds=")]
    return " ".join(["spbench sweep", *kept, f"rounds={rounds}"])
