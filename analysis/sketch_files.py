"""Sketch files: read, and paired for the two sides of a comparison."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.identities import Sample, samples_of
from analysis.sketches import ROUNDOFF, UNKNOWN, Sketch, SketchComparison, compare_sketches
from bench.record_files import RecordsError, within

READABLE_VERSION = 1
"""Of the file; `bench.worker.checking.sketch` says what is in it."""
_DAMAGED = (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile)


class SketchProblem(Exception):
    """A sketch cannot be read; the message says which and why."""


def read_sketch(path: Path) -> Sketch:
    """The content of a file. Raises SketchProblem where it is missing, damaged or newer."""
    try:
        # numpy leaves a file open that it cannot read
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return _parsed(file)
    except FileNotFoundError:
        raise SketchProblem(f"the sketch {path.name} is missing") from None
    except _DAMAGED as error:
        what = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
        raise SketchProblem(f"the sketch {path.name} is damaged ({what})") from error


def compare_files(candidate: Path, baseline: Path) -> SketchComparison:
    """What two files say; `not comparable` with a reason where one of them cannot be read."""
    try:
        return compare_sketches(read_sketch(candidate), read_sketch(baseline))
    except SketchProblem as problem:
        return SketchComparison(UNKNOWN, str(problem))


def of_sides(
    folder: str | None, candidate: pd.DataFrame | None, baseline: pd.DataFrame | None
) -> SketchComparison | None:
    """The sketches of the two sides' trials in `folder`; None unless both have one.

    In their first common round that has both; else the first that each has, since another round
    repeats the same step.
    """
    if folder is None or candidate is None or baseline is None:
        return None
    paths = [_by_round(trials) for trials in (candidate, baseline)]
    if not all(paths):
        return None
    common = sorted(set(paths[0]) & set(paths[1]))
    first, second = (one[common[0]] if common else one[min(one)] for one in paths)
    try:
        return compare_files(within(Path(folder), first), within(Path(folder), second))
    except RecordsError as refused:
        return SketchComparison(UNKNOWN, f"the sketch {refused}")


def _by_round(trials: pd.DataFrame) -> dict[Sample, str]:
    sketched = trials[trials.sketch.notna()]
    return dict(zip(samples_of(sketched), sketched.sketch.tolist(), strict=True))


def _parsed(file: Any) -> Sketch:
    """Raises one of `_DAMAGED` for a file of another shape."""
    about = json.loads(str(file["about"]))
    if about["version"] > READABLE_VERSION:
        raise ValueError(f"version {about['version']} is newer than this spbench")
    names, sizes = [str(name) for name in file["names"]], [int(size) for size in file["sizes"]]
    buckets = int(about["buckets"])
    widths = [min(size, buckets) for size in sizes]
    sums = np.asarray(file["sums"], np.float64)
    lists = {name: file[name] for name in ("squares", "spread", "missing")}
    if len(sums) != sum(widths) or any(len(one) != len(names) for one in (sizes, *lists.values())):
        raise ValueError("its parts do not belong together")
    tf32 = about["matmul"] == "tf32" and about["dtype"] == "float32"
    precision = "tf32" if tf32 else about["dtype"]
    if precision not in ROUNDOFF:
        raise ValueError(f"unknown dtype {precision}")
    return Sketch(
        names=tuple(names),
        sizes=tuple(sizes),
        sums=tuple(np.split(sums, np.cumsum(widths)[:-1])),
        squares=tuple(float(one) for one in lists["squares"]),
        spread=float(np.max(lists["spread"], initial=0.0)),
        missing=tuple(bool(one) for one in lists["missing"]),
        version=int(about["version"]),
        buckets=buckets,
        reference_key=str(about["reference_key"]),
        precision=precision,
    )
