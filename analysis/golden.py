"""Golden values: medians, peaks and gradients of a sweep in a file that a later one must repeat.

from analysis.golden import check, golden
differences = check(golden(load("results/before")), load("results/now"))

Gradients are exact: verdict and scale must be the same. Times and peaks have tolerances, and are
compared on machines of one class only; fewer than `FEWEST` rounds say nothing about time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from analysis.columns import AXES
from analysis.gradients import gradients_of
from analysis.identities import latest
from analysis.output import output_file
from analysis.reading import AnalysisError
from analysis.statistics import FEWEST, median
from analysis.table import natural, varying_axes
from bench.printable import json_text
from bench.record import Status
from bench.rounds import share

VERSION = 1
"""Of the file."""
KEYS = ("version", "experiment", "machine", "tolerances", "common", "points")
HEADING = (
    "Golden values: what `spbench baseline check` holds a sweep against. Times and peaks may be\n"
    "edited, and a point may have tolerances of its own; gradients are exact."
)


@dataclass(frozen=True)
class Difference:
    """What is not as it was at one point."""

    place: str
    """The axes of the point."""
    text: str

    @property
    def line(self) -> str:
        """Place and what differs."""
        return f"{self.place}: {self.text}"


@dataclass(frozen=True)
class Check:
    """What a sweep is beside the golden values."""

    differences: tuple[Difference, ...]
    notes: tuple[Difference, ...]
    """What could not be judged, and why; no reason to fail."""
    points: int
    """Golden points that were looked at."""


def golden(frame: pd.DataFrame, tolerances: Mapping[str, float]) -> dict[str, Any]:
    """The golden values of `analysis.frame.load`'s frame, as plain values.

    `tolerances` are relative: `tokens_per_s` and `peak_memory` (0.1: 10 %). Of a configuration
    whose code or versions changed, the last result counts. Raises AnalysisError where machines of
    several classes measured it.
    """
    frame = latest(frame)
    if len(machines(frame)) > 1:
        raise AnalysisError(
            f"machines of several classes measured these records ({'; '.join(machines(frame))}); "
            "write golden values of a folder with one"
        )
    varying = [name for name in _axes(frame) if name in varying_axes(frame)]
    first = frame.iloc[0]
    points = [_point(trials, varying) for _, trials in frame.groupby("config_hash", sort=False)]
    points.sort(key=lambda point: [natural(value) for value in point["axes"].values()])
    return {
        "version": VERSION,
        "experiment": _plain(first.experiment),
        "machine": machines(frame),
        "tolerances": {name: f"{100 * value:g}%" for name, value in tolerances.items()},
        "common": {name: _plain(first[name]) for name in _axes(frame) if name not in varying},
        "points": points,
    }


def check(expected: Mapping[str, Any], frame: pd.DataFrame) -> Check:
    """What differs between golden values and `analysis.frame.load`'s frame.

    A point is found by its configuration's hash, else by its axes.
    """
    frame = latest(frame)
    known = frame.machine_class.isin([*expected["machine"], ""])
    frame = frame[known] if known.any() else frame
    by_hash = dict(list(frame.groupby("config_hash", sort=False)))
    differences: list[Difference] = []
    notes: list[Difference] = []
    seen = set()
    here = machines(frame)
    same_machine = not expected["machine"] or expected["machine"] == here
    if not same_machine:
        was, now = ", ".join(expected["machine"]), ", ".join(here)
        notes.append(Difference("times", f"not judged: measured on {was}, now on {now}"))
    for point in expected["points"]:
        place = " ".join(f"{name}={_text(value)}" for name, value in point["axes"].items())
        trials = by_hash.get(point["config_hash"])
        if trials is None:
            trials = _by_axes(by_hash, {**expected["common"], **point["axes"]})
            if trials is None:
                differences.append(Difference(place, "was not run"))
                continue
            notes.append(Difference(place, "found by its axes: the configuration's hash differs"))
        seen.add(trials.config_hash.iloc[0])
        differences += [Difference(place, text) for text in _exact(point, trials)]
        for is_note, text in _measured(point, trials, expected["tolerances"], same_machine):
            (notes if is_note else differences).append(Difference(place, text))
    more = len(by_hash.keys() - seen)
    if more:
        notes.append(Difference("not in the file", f"{more} configurations of the folder"))
    return Check(tuple(differences), tuple(notes), len(expected["points"]))


def machines(frame: pd.DataFrame) -> list[str]:
    """The classes of the machines that measured `frame`."""
    return sorted(set(frame.machine_class.dropna()) - {""})


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Write golden values to `path`: JSON where it ends so, else YAML.

    Raises what `output_file` raises.
    """
    if path.suffix == ".json":
        text = json_text(content, indent=2) + "\n"
    else:
        heading = "".join(f"# {line}\n" for line in HEADING.split("\n"))
        text = heading + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
    with output_file(path, option="") as partial:
        partial.write_text(text, encoding="utf-8")


def read(path: Path) -> dict[str, Any]:
    """The golden values in `path`. Raises AnalysisError for anything else."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))  # JSON is YAML
    except OSError as error:
        why = error.strerror or str(error)
        raise AnalysisError(f"{path} cannot be read ({why}); name another file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        said = str(error).splitlines()[0]
        raise AnalysisError(f"{path} is neither YAML nor JSON ({said})") from error
    missing = [key for key in KEYS if not isinstance(content, dict) or key not in content]
    if missing:
        raise AnalysisError(
            f"{path} holds no golden values (no {missing[0]}); write them with "
            f"`spbench baseline write {path} RESULTS`"
        )
    if content["version"] != VERSION:
        raise AnalysisError(
            f"{path} is of version {content['version']}, and this spbench reads {VERSION}; "
            "write it anew"
        )
    for point in content["points"]:
        if lacking := {"axes", "config_hash", "status", "gradient"} - set(point):
            raise AnalysisError(f"{path}: a point has no {sorted(lacking)[0]}; write it anew")
    return dict(content)


def _axes(frame: pd.DataFrame) -> list[str]:
    free = [name for name in frame if name.startswith(("deepspeed.", "options."))]
    return [*(name for name in AXES if name in frame), *free]


def _point(trials: pd.DataFrame, varying: list[str]) -> dict[str, Any]:
    rates = trials.tokens_per_s.dropna().tolist()
    peak = trials.peak_memory_bytes.max()
    first = trials.iloc[0]
    return {
        "axes": {name: _plain(first[name]) for name in varying},
        "config_hash": str(first.config_hash),
        "status": _status(trials),
        "gradient": _gradient(trials),
        "rounds": len(rates),
        "tokens_per_s": round(median(rates), 3) if rates else None,
        "peak_memory_mib": None if pd.isna(peak) else round(float(peak) / 2**20, 3),
    }


def _status(trials: pd.DataFrame) -> str:
    """`ok`, or all ends: `error, ok`."""
    return ", ".join(sorted(set(trials.status)))


def _gradient(trials: pd.DataFrame) -> str:
    """`match ×1`, `scaled ×2`, `not compared`; several where rounds differ."""
    compared = trials[trials.gradient_verdict.notna()]
    pairs = zip(compared.gradient_verdict, compared.gradient_scale_label, strict=True)
    found = sorted({f"{verdict} {_text(label)}".strip() for verdict, label in pairs})
    faults = gradients_of(trials).wrong
    if any("ranks differ" in fault or "first loss" in fault for fault in faults):
        found += sorted(faults)
    return ", ".join(found) or "not compared"


def _exact(point: Mapping[str, Any], trials: pd.DataFrame) -> Iterator[str]:
    """What has no tolerance: how trials ended, and their gradients."""
    status, gradient = _status(trials), _gradient(trials)
    if status != point["status"]:
        failure = "; ".join(dict.fromkeys(trials.failure.dropna()))
        yield f"ended as {status} instead of {point['status']}" + (
            f" ({failure})" if failure else ""
        )
    failed = Status.OK.value not in status
    if gradient != point["gradient"] and not (failed and status != point["status"]):
        yield f"gradient {gradient} instead of {point['gradient']}"


def _measured(
    point: Mapping[str, Any],
    trials: pd.DataFrame,
    tolerances: Mapping[str, Any],
    same_machine: bool,
) -> Iterator[tuple[bool, str]]:
    """Whether it is only a note, and what is to be said of time and memory."""
    allowed = {**tolerances, **point.get("tolerances", {})}
    rates = trials.tokens_per_s.dropna().tolist()
    was = point.get("tokens_per_s")
    if was and rates and same_machine:
        rounds = min(point.get("rounds", 0), len(rates))
        if rounds < FEWEST:
            yield True, f"time not judged: {rounds} rounds, {FEWEST} are needed"
        elif not trials.timings_valid.all():
            yield True, "time not judged: ranks shared GPUs"
        else:
            yield from _off("tokens/s", median(rates), was, allowed["tokens_per_s"])
    peak, was = trials.peak_memory_bytes.max(), point.get("peak_memory_mib")
    if was and not pd.isna(peak):
        yield from _off("MiB at the peak", peak / 2**20, was, allowed["peak_memory"])


def _off(unit: str, now: float, was: float, allowed: Any) -> Iterator[tuple[bool, str]]:
    try:
        tolerance = share(str(allowed))
    except ValueError as error:
        raise AnalysisError(
            f"tolerance {allowed}: not a difference; allowed: above 0 % and below 100 %"
        ) from error
    if abs(now / was - 1) > tolerance:
        yield (
            False,
            f"{now:,.1f} {unit} instead of {was:,.1f} ({now / was - 1:+.1%}, "
            f"± {100 * tolerance:g} % allowed)",
        )


def _by_axes(by_hash: Mapping[str, pd.DataFrame], axes: Mapping[str, Any]) -> pd.DataFrame | None:
    """The one configuration that has all of `axes`; axes that are newer than the file are free."""
    found = [
        trials
        for trials in by_hash.values()
        if all(_plain(trials.iloc[0].get(name)) == value for name, value in axes.items())
    ]
    return found[0] if len(found) == 1 else None


def _plain(value: Any) -> Any:
    """A cell as YAML and JSON know it."""
    value = getattr(value, "item", lambda: value)()
    return None if value is None or value != value else value


def _text(value: Any) -> str:
    return "" if value is None or value != value else str(value)
