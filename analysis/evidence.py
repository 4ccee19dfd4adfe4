"""What a report shows beside numbers: failures with their tracebacks, versions, machines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.columns import Content
from analysis.figures.points import SERIES, panel_axes
from analysis.frame import rows_with_records
from analysis.table import VARIANT, row_axes
from bench.record import Status
from bench.record_files import RecordsError, within

MOST_TEXT = 12_000
"""Characters of one traceback or stack; the middle of a longer one is left out."""
MOST_TEXTS = 2_000_000
"""Characters of all of them; the remaining failures then name their records only."""

WORKER_FIELDS = {
    "python": "Python",
    "torch": "torch",
    "torch_git": "torch's commit",
    "deepspeed": "DeepSpeed",
    "transformers": "transformers",
    "numpy": "NumPy",
    "cuda": "CUDA",
    "nccl": "NCCL",
    "driver": "driver",
    "threads_per_rank": "threads per rank",
}
MACHINE_FIELDS = {
    "hostname": "name",
    "os": "system",
    "cpu": "CPU",
    "cores": "cores",
    "governor": "governor",
    "memory_bytes": "memory",
    "gpus": "GPUs",
    "spbench": "spbench",
    "commit": "commit",
    "dirty": "uncommitted changes",
}


@dataclass(frozen=True)
class Text:
    """A traceback or a stack, and whose it is."""

    heading: str
    body: str


@dataclass
class Failure:
    """Trials that ended alike: the same status, the same texts."""

    status: str
    what: str
    """In a few words."""
    reason: str
    texts: tuple[Text, ...]
    trials: dict[str, list[str]] = field(default_factory=dict)
    """Identities of the trials by configuration, both as text."""
    logs: list[str] = field(default_factory=list)
    """What the ranks printed, relative to the results folder."""
    refused: list[str] = field(default_factory=list)
    """Why a log that a record names is not shown."""

    @property
    def count(self) -> int:
        """How many trials ended so."""
        return sum(map(len, self.trials.values()))


@dataclass
class Evidence:
    """What the records of a folder say beside their numbers."""

    failures: list[Failure] = field(default_factory=list)
    """The most frequent first."""
    workers: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    """By environment: versions as the workers saw them, each combination once."""
    warnings: dict[str, list[str]] = field(default_factory=dict)
    """By environment: what the libraries warned of, each once."""
    machines: list[dict[str, str]] = field(default_factory=list)
    """The machines, each combination of `MACHINE_FIELDS` once."""


def gather(folder: Path, frame: pd.DataFrame) -> Evidence:
    """The evidence in a folder; `frame` is `analysis.frame.load(folder)`'s.

    Parts of a record that are missing or of another shape are left out.
    """
    evidence = Evidence()
    failures: dict[tuple[object, ...], Failure] = {}
    named = [*SERIES, *panel_axes(frame), "seq_len"]
    axes = [*named, *(name for name in row_axes(frame) if name == VARIANT)]
    room = MOST_TEXTS
    for row, record in rows_with_records(folder, frame):
        _note_versions(evidence, str(row["environment"]), record)
        if record["status"] == Status.OK.value:
            continue
        texts = texts_of(record)
        reason = str(record.get("reason") or "")
        key = (record["status"], row["failure"], reason if not texts else "", texts)
        if key not in failures:
            if sum(len(text.body) for text in texts) > room:
                texts = (Text("not shown", "The report is long enough: see the record."),)
            room -= sum(len(text.body) for text in texts)
            failures[key] = Failure(record["status"], str(row["failure"]), reason, texts)
        where = "  ".join(f"{name}={row[name]}" for name in axes)
        failures[key].trials.setdefault(where, []).append(record["trial_id"])
        if record.get("log"):
            try:
                within(folder, record["log"])
            except RecordsError as refused:
                _add(failures[key].refused, str(refused))
            else:
                failures[key].logs.append(record["log"])
    evidence.failures = sorted(failures.values(), key=lambda one: -one.count)
    return evidence


def texts_of(record: Content) -> tuple[Text, ...]:
    """Tracebacks of what ranks raised, then stacks and ends of the others, equal ones once."""
    whose: dict[tuple[str, str], list[str]] = {}
    for error in _dicts(record.get("errors")):
        step = "" if error.get("step") is None else f", step {error['step']}"
        place = f"raised {error.get('type')} in {error.get('phase')}{step}"
        body = str(error.get("traceback") or error.get("message") or "")
        whose.setdefault((place, _shortened(body)), []).append(str(error.get("rank")))
    for rank in _dicts(record.get("ranks")):
        if rank.get("outcome") in ("finished", "raised") and not rank.get("stack"):
            continue
        place = f"{rank.get('outcome')} in {rank.get('phase')}"
        for name in ("step", "signal", "exit_code"):
            if rank.get(name) is not None:
                place += f", {name.replace('_', ' ')} {rank[name]}"
        whose.setdefault((place, _shortened(str(rank.get("stack") or ""))), []).append(
            str(rank.get("rank"))
        )
    return tuple(
        Text(f"{'rank' if len(ranks) == 1 else 'ranks'} {', '.join(ranks)} {place}", body)
        for (place, body), ranks in whose.items()
    )


def _note_versions(evidence: Evidence, environment: str, record: Content) -> None:
    worker, machine = record.get("worker"), record.get("machine")
    if isinstance(worker, dict):
        seen = _shown(worker, WORKER_FIELDS)
        devices = worker.get("devices") or []
        seen["devices"] = ", ".join(dict.fromkeys(map(str, devices)))
        _add(evidence.workers.setdefault(environment, []), seen)
        known = evidence.warnings.setdefault(environment, [])
        for text in map(str, worker.get("warnings") or []):
            _add(known, _shortened(text))
    if isinstance(machine, dict):
        _add(evidence.machines, _shown(machine, MACHINE_FIELDS))


def _shown(content: Mapping[str, Any], fields: Mapping[str, str]) -> dict[str, str]:
    """The known `fields` of `content` that have a value, under their names for people."""
    shown = {}
    for name, label in fields.items():
        value = content.get(name)
        if value is None or value == []:
            continue
        if name == "memory_bytes" and isinstance(value, int):
            value = f"{value / 2**30:.1f} GiB"
        shown[label] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return shown


def _dicts(values: Any) -> Iterable[dict[str, Any]]:
    return [value for value in values or [] if isinstance(value, dict)]


def _add(values: list[Any], value: Any) -> None:
    if value not in values:
        values.append(value)


def _shortened(text: str) -> str:
    if len(text) <= MOST_TEXT:
        return text
    half = MOST_TEXT // 2
    left = len(text) - 2 * half
    return f"{text[:half]}\n… {left:,} characters left out …\n{text[-half:]}"
