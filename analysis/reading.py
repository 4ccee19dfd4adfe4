"""Records files, read quickly: a share of the bytes for every core when there is much to read.

The shares are read by processes started with `python -m analysis.reading`, not by
multiprocessing: that would run the user's own script again in each of them.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from analysis.columns import RESULTS, Content, axes_of, results_of
from bench.record_check import NotARecord, record_in
from bench.record_files import record_files

SHARE_BYTES = 32 * 2**20
"""Below this many bytes per process, starting one costs more than it saves."""


class AnalysisError(Exception):
    """A results folder cannot be analysed; the message says why and what to do."""


class Part(NamedTuple):
    """The lines of a records file that begin at bytes `start` to `end - 1`."""

    path: str
    start: int
    end: int


class Line(NamedTuple):
    """A record, the columns drawn from it, axes apart, and its line's number from 1 on."""

    content: Content
    results: dict[str, Any]
    number: int


@dataclass
class Rows:
    """What was read: `analysis.columns` by name, and what was passed over."""

    results: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in RESULTS})
    axes: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Axes of each configuration, by its hash."""
    configs: dict[str, Any] = field(default_factory=dict)
    """The configurations themselves."""
    lines: int = 0
    skipped: list[tuple[int, str]] = field(default_factory=list)
    """Number of a line that is no record, from 1, and why."""


def read(folder: Path) -> tuple[Rows, list[str]]:
    """All records of a folder, and a description of each line that is none.

    Raises AnalysisError when the folder is missing or holds no record.
    """
    every, skipped = Rows(), []
    for part, rows in _read_all(record_files(folder)):
        if part.start == 0:
            every.lines = 0
        skipped += [
            f"{place_of(Path(part.path), every.lines + number)}: {why}"
            for number, why in rows.skipped
        ]
        every.lines += rows.lines
        every.axes.update(rows.axes)
        every.configs.update(rows.configs)
        for column, values in rows.results.items():
            every.results[column] += values
    if not every.results["trial_id"]:
        raise AnalysisError(_nothing(folder, skipped))
    return every, skipped


def lines_of(part: Part, rows: Rows) -> Iterator[Line]:
    """The records of a part in the order they were written; fills all of `rows` but results."""
    with Path(part.path).open("rb") as file:
        if part.start:
            file.seek(part.start - 1)
            file.readline()
        position = file.tell()
        for text in file:
            if position >= part.end:
                return
            position += len(text)
            rows.lines += 1
            try:
                content = record_in(text, rows.configs)
            except NotARecord as error:
                rows.skipped.append((rows.lines, str(error)))
                continue
            key = content["config_hash"]
            if key not in rows.axes:
                rows.axes[key] = axes_of(content["config"])
            yield Line(content, results_of(content, rows.axes[key]), rows.lines)


def place_of(path: Path, line: int) -> str:
    """How a line of a records file is named: `records-host.jsonl, line 3`."""
    return f"{path.name}, line {line}"


def whole(path: Path) -> Part:
    """All of a file."""
    return Part(str(path), 0, path.stat().st_size)


def _read_all(paths: list[Path]) -> Iterator[tuple[Part, Rows]]:
    """What each part of the files holds, in order; read by several processes if that pays."""
    total = sum(path.stat().st_size for path in paths)
    processes = min(os.cpu_count() or 1, total // SHARE_BYTES)
    if processes < 2:
        for path in paths:
            yield whole(path), _read_part(whole(path))
        return
    with ExitStack() as stack:
        readers = [stack.enter_context(_Reader(share)) for share in _shares(paths, processes)]
        for reader in readers:
            yield from zip(reader.parts, reader.rows(), strict=True)


def _read_part(part: Part) -> Rows:
    rows = Rows()
    for line in lines_of(part, rows):
        for name, value in line.results.items():
            rows.results[name].append(value)
    return rows


def _shares(paths: list[Path], count: int) -> list[list[Part]]:
    """The files one after another, cut into `count` shares of equally many bytes."""
    size = -(-sum(path.stat().st_size for path in paths) // count)
    shares: list[list[Part]] = [[] for _ in range(count)]
    before = 0  # bytes of the files before this one
    for path in paths:
        start, length = 0, path.stat().st_size
        while start < length:
            index = (before + start) // size
            end = min(length, (index + 1) * size - before)
            shares[index].append(Part(str(path), start, end))
            start = end
        before += length
    return shares


class _Reader:
    """A process that reads some parts; leaving the context ends it."""

    def __init__(self, parts: list[Part]) -> None:
        self.parts = parts
        # What this interpreter can import the reader must find too, in a notebook's as well.
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)}
        command = [sys.executable, "-m", "analysis.reading", json.dumps(parts)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, env=env)

    def rows(self) -> list[Rows]:
        """What the parts hold; waits for the process. Raises AnalysisError when it failed."""
        output, _ = self._process.communicate()
        if self._process.returncode:
            raise AnalysisError(
                f"the process that read {self.parts[0].path} ended with exit code "
                f"{self._process.returncode}; its own message is above"
            )
        found: list[Rows] = pickle.loads(output)
        return found

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:  # closes the pipe and waits
            self._process.kill()


def _nothing(folder: Path, skipped: list[str]) -> str:
    """Why there is nothing to analyse, and what to do."""
    if not folder.is_dir():
        return f"results={folder} is not a folder; run `spbench sweep` first or name another"
    if skipped:
        return (
            f"results={folder} holds no record that this spbench reads: "
            f"{len(skipped)} lines skipped, the first is {skipped[0]}"
        )
    return (
        f"results={folder} holds no records (records-*.jsonl); "
        "run `spbench sweep` first or name another"
    )


def main() -> None:
    """Read the parts that the argument lists (JSON) and write their rows to stdout (pickle)."""
    found = [_read_part(Part(*part)) for part in json.loads(sys.argv[1])]
    sys.stdout.buffer.write(pickle.dumps(found))


if __name__ == "__main__":
    # Under its own name, so that the reader of the pickle finds the classes.
    from analysis.reading import main as main_by_name

    main_by_name()
