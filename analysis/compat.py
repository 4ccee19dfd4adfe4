"""Which DeepSpeed runs on which torch: the matrix that trials of the scenario `compat` make."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from analysis.columns import Content
from analysis.details import rows_with_details
from analysis.table import natural, row_axes

OF_THE_PAIR = ("environment", "options.zero")
"""Axes that are the matrix itself."""

ENVIRONMENT_FAILED = {
    "resolve": "does not resolve",
    "install": "does not install",
    "machine": "not tried: this machine could not make it",
    "versions": "has other versions",
}
"""What a failure before anything was launched is called; by phase."""


class Outcome(NamedTuple):
    """What one ZeRO stage came to, or the environment as a whole."""

    kind: str
    """`match`, `scaled`, `wrong`, `none`, `ran` (no gradient was compared), or `failed`."""
    text: str
    """`ok`, `ok, gradient ×2`, `backward: RuntimeError`."""
    message: str = ""
    """Of what failed: all that was said."""


class Pair(NamedTuple):
    """One torch beside one DeepSpeed."""

    torch: str
    deepspeed: str


@dataclass(frozen=True)
class Matrix:
    """All pairs that were tried in one way."""

    variant: str
    """The values of all other axes that vary in the folder: `loss=local sp=2`; often empty."""
    cells: Mapping[Pair, Mapping[int | None, tuple[Outcome, ...]]]
    """By ZeRO stage, None for the environment as a whole; several outcomes where rounds differ."""

    @property
    def torches(self) -> list[str]:
        """Versions of torch, oldest first."""
        return sorted({pair.torch for pair in self.cells}, key=natural)

    @property
    def deepspeeds(self) -> list[str]:
        """Versions of DeepSpeed, oldest first."""
        return sorted({pair.deepspeed for pair in self.cells}, key=natural)

    def failures(self) -> dict[Outcome, list[tuple[Pair, int | None]]]:
        """Everything that failed, each once, and where; the order is that of the matrix."""
        found: dict[Outcome, list[tuple[Pair, int | None]]] = {}
        for pair in in_order(self.cells):
            for zero, outcomes in self.cells[pair].items():
                for outcome in outcomes:
                    if outcome.kind == "failed":
                        found.setdefault(outcome, []).append((pair, zero))
        return found


def matrices(folder: Path | str, frame: pd.DataFrame) -> list[Matrix]:
    """One matrix for each combination of the axes beside the versions; `frame` is `load`'s."""
    frame = frame[frame.scenario == "compat"]
    if frame.empty:
        return []
    others = [name for name in row_axes(frame) if name not in OF_THE_PAIR]
    found = [
        (row, pair_of(record), outcomes_of(record))
        for row, record in rows_with_details(folder, frame, "compat")
    ]
    environments: dict[Pair, set[str]] = {}
    for row, pair, _ in found:
        environments.setdefault(pair, set()).add(row["environment"])
    made: dict[str, dict[Pair, dict[int | None, dict[Outcome, None]]]] = {}
    for row, pair, outcomes in found:
        # two environments with the same versions are two ways to try the pair
        alike = ["environment"] if len(environments[pair]) > 1 else []
        variant = " ".join(f"{name}={row[name]}" for name in [*alike, *others])
        cell = made.setdefault(variant, {}).setdefault(pair, {})
        for zero, outcome in outcomes:
            cell.setdefault(zero, {})[outcome] = None
    return [
        Matrix(variant, {pair: _stages(cell) for pair, cell in cells.items()})
        for variant, cells in sorted(made.items())
    ]


def in_order(pairs: Iterable[Pair]) -> list[Pair]:
    """Pairs by DeepSpeed, then torch, oldest first."""
    return sorted(pairs, key=lambda pair: (natural(pair.deepspeed), natural(pair.torch)))


def pair_of(record: Content) -> Pair:
    """The versions that were asked for; of an interpreter of the user's, those it has."""
    spec, worker = record["config"]["environment"], record.get("worker") or {}
    versions = [spec.get(name) or worker.get(name) or "?" for name in Pair._fields]
    return Pair(*(version.split("+")[0] for version in versions))


def outcomes_of(record: Content) -> list[tuple[int | None, Outcome]]:
    """What a record says of each stage, or of its environment (None)."""
    details = record["details"]
    failure = details.get("failure")
    found = [(stage["zero"], _outcome(stage)) for stage in details.get("stages", [])]
    if failure is not None and failure["zero"] is None:
        found.append((None, _failed(failure)))
    if not found:  # nothing was launched
        reason = str(record["reason"] or record["status"])
        found.append((None, Outcome("failed", record["status"], reason)))
    return found


def stages_text(stages: Iterable[int | None]) -> str:
    """`ZeRO 0–2, 3`-like text for stages; `environment` for None."""
    numbers = sorted(one for one in stages if one is not None)
    if not numbers:
        return "environment"
    if len(numbers) > 1 and numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"ZeRO {numbers[0]}–{numbers[-1]}"
    return f"ZeRO {', '.join(map(str, numbers))}"


def _stages(
    cell: Mapping[int | None, Mapping[Outcome, None]],
) -> dict[int | None, tuple[Outcome, ...]]:
    ordered = sorted(cell, key=lambda zero: -1 if zero is None else zero)
    return {zero: tuple(cell[zero]) for zero in ordered}


def _outcome(stage: Mapping[str, Any]) -> Outcome:
    """Of one stage."""
    if stage["status"] != "ok":
        return _failed(stage)
    verdict = stage["verdict"]
    if verdict is None:
        return Outcome("ran", "ok")
    texts = {
        "match": "ok",
        "scaled": f"ok, gradient {stage['scale']}",
        "wrong": "wrong gradient",
        "none": "no gradient",
    }
    return Outcome(verdict, texts[verdict])


def _failed(failure: Mapping[str, Any]) -> Outcome:
    """`backward: RuntimeError`, `does not resolve`, or the status of what raised nothing."""
    phase, exception = failure["phase"], failure["exception"]
    what = exception or failure.get("status") or "failed"
    text = ENVIRONMENT_FAILED.get(phase) or (f"{phase}: {what}" if phase else what)
    return Outcome("failed", text, str(failure["message"] or failure.get("reason") or ""))


def summary(found: Sequence[Matrix]) -> str:
    """How many pairs run everywhere, and how many with the right gradient."""
    cells = [cell for matrix in found for cell in matrix.cells.values()]
    kinds = [[one.kind for outcomes in cell.values() for one in outcomes] for cell in cells]
    whole = sum("failed" not in kind for kind in kinds)
    none = sum(set(kind) == {"failed"} for kind in kinds)
    noun = "pair trains" if len(cells) == 1 else "pairs train"
    title = f"{whole} of {len(cells)} {noun} at every ZeRO stage that was tried"
    if none:
        title += f", {none} at none"
    off = sum(any(one in ("scaled", "wrong", "none") for one in kind) for kind in kinds)
    if off:
        title += f"; {off} with a gradient that is not the reference's somewhere"
    return title
