"""Between a rank and its line on disk: whatever comes, there is one record that all readers take.

Nothing stands in for the parts of that way but the processes at its two ends: what a rank does is
done here, and what it writes goes through its pipe, the server's relay and the host's lines.
"""

from __future__ import annotations

import itertools
import json
import mmap
import os
import selectors
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analysis import frame
from bench.controller import host
from bench.controller.host import Host
from bench.controller.ledger import Ledger
from bench.record import Record, Status
from bench.record_check import record_in
from bench.record_files import RecordWriter, rows_file
from bench.trial import Trial
from bench.worker import report
from bench.worker.children import Child, Children
from bench.worker.rank import HEARTBEAT, Rank, Request
from bench.worker.server import Running, Server
from tests.factories import configuration, environment
from tests.hostile import Life, finishing, lives, telling

WORLD = 2
TRIALS = 2_000 // WORLD
KINDS = (lives, lives, finishing, telling)
CONFIGURATION = configuration(world=WORLD, sp=WORLD, options={}, gradient_check="off")


class Pipes:
    """The pipes of the ranks, as the server reads them; `said` is what it tells the host."""

    def __init__(self) -> None:
        self.said: list[dict[str, Any]] = []
        self._selector = selectors.DefaultSelector()
        both = [os.pipe() for _ in range(WORLD)]
        self._ends = [write for _, write in both]
        for read, _ in both:
            os.set_blocking(read, False)
        self._ranks = [Child(rank, 0, read, None) for rank, (read, _) in enumerate(both)]
        self.children = Children(self._ranks, self._selector, self.tell)

    def tell(self, **message: Any) -> None:
        """What the server says goes to the host as JSON."""
        self.said.append(json.loads(json.dumps(message).encode()))

    def write(self, rank: int, data: bytes) -> None:
        """Have `rank` write `data`, in pieces, each of which is read at once."""
        child = self._ranks[rank]
        for start in range(0, len(data), 4096):
            report.send(self._ends[rank], data[start : start + 4096])
            assert child.pipe is not None
            self.children.readable(child.pipe, child)

    def close(self) -> None:
        for child, end in zip(self._ranks, self._ends, strict=True):
            os.close(end)
            assert child.pipe is not None
            os.close(child.pipe)
        self._selector.close()


class Trials:
    """The host's server, whose ranks live the `lives` that they are given."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.versions = {"torch": "2.13.0", "deepspeed": "0.18.2", "python": "3.11"}
        self.versions |= {"numpy": "2", "python_path": "python"}
        self.interpreter: Any = SimpleNamespace(spec=environment(), extensions=scratch)
        self.warnings: list[str] = []
        self.lives: tuple[Life, ...] = ()
        self._heartbeat = mmap.mmap(-1, WORLD * HEARTBEAT.size)
        self._said: list[dict[str, Any]] = []

    def send(self, op: str, **request: Any) -> None:
        self._said = []
        if op == "run":
            pipes = Pipes()
            try:
                for index, life in enumerate(self.lives):
                    self._live(index, life, Path(request["scratch"]), pipes)
                self._running = Running(pipes.children, self._heartbeat, Path(request["scratch"]))
                self._beats = [Server._beat(None, self._running, r) for r in range(WORLD)]  # type: ignore[arg-type]
            finally:
                pipes.close()
            self._said = pipes.said

    def _live(self, index: int, life: Life, scratch: Path, pipes: Pipes) -> None:
        """What `bench.worker.process.run_rank` does, and the end of the process."""
        request = Request(CONFIGURATION, scratch, scratch, scratch, 0, 1, "off")
        rank = Rank(index, request, self._heartbeat)
        seen = {"observed": rank.observed, **life.noted}
        for line in life.lines:
            pipes.write(index, line + b"\n")
        try:
            line = report.finished(index, _scenario(rank, life), **seen)
        except BaseException as error:  # noqa: BLE001
            line = report.raised(index, error, {"phase": rank.phase, "step": rank.step}, **seen)
        if life.reports:
            pipes.write(index, line)
        code = None if life.signal is not None else life.exit_code
        pipes.tell(op="exited", rank=index, signal=life.signal, exit_code=code)

    def receive(self, _: float) -> dict[str, Any] | None:
        return self._said.pop(0) if self._said else None

    def ask(self, op: str, answer: str, others: list[Any], _: float) -> dict[str, Any]:
        others += self._said
        self._said = []
        return {"op": answer, "beats": json.loads(json.dumps(self._beats))}

    def code_of(self, _: Any) -> dict[str, str]:
        return {"scenario": "0"}

    def learn(self, modules: list[str]) -> list[str]:
        return modules


def _scenario(rank: Rank, life: Life) -> Any:
    for row in life.rows:
        if isinstance(row, bytes):
            with rows_file(rank.request.scratch, rank.index).open("ab") as file:
                file.write(row + b"\n")
        else:
            rank.row(**row)
    rank.enter(life.phase, life.step)
    if life.raises is not None:
        raise life.raises
    return life.returns


class Readers:
    """The records file of a folder, read on after each record."""

    def __init__(self, folder: Path) -> None:
        self._file = RecordWriter(folder).path
        self._file.touch()
        self._lines = self._file.open("rb")
        self.ledger, self.another = Ledger(folder), Ledger(folder)
        self.configs: dict[str, Any] = {}
        self.statuses: Counter[Status] = Counter()

    def take(self, trial: Trial, record: Record) -> None:
        """Write `record`, of `trial`, and have all readers read it."""
        self.another.skipped.clear()
        self.ledger.append(record)
        [line] = self._lines.readlines()
        content = record_in(line, self.configs)
        assert (content["config_hash"], content["round"]) == trial.key
        assert Record.model_validate_json(line).key == trial.key
        self.another.refresh()
        for ledger in (self.ledger, self.another):
            assert [entry.status for entry in ledger.all(trial.key)] == [Status(content["status"])]
            assert ledger.settles(trial) and ledger.skipped == []
        self.statuses[record.status] += 1

    def close(self) -> None:
        self._lines.close()
        self.ledger.close()


@pytest.fixture
def trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trials:
    """Ranks whose host waits for nobody, and compares every first loss."""
    monkeypatch.setattr(host, "GRACE_S", 0.0)
    monkeypatch.setattr(host, "LOST_PEER_GRACE_S", 0.0)
    monkeypatch.setattr(Host, "_reference_loss", lambda *_: 1.5)
    monkeypatch.setattr(Host, "_ensure", lambda *_: None)
    monkeypatch.setattr(Host, "_reference_folder", lambda *_: tmp_path)
    monkeypatch.setattr("bench.record_files.os.fsync", lambda _: None)  # 2,000 would take long
    (tmp_path / "scratch").mkdir()
    return Trials(tmp_path / "scratch")


def test_whatever_a_rank_says_or_does_there_is_one_record_that_all_readers_take(
    trials: Trials, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    (results / "logs").mkdir(parents=True)
    rounds = itertools.count()
    real, readers = Host(trials), Readers(results)  # type: ignore[arg-type]

    @settings(
        max_examples=TRIALS,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.one_of(st.tuples(*map(one, range(WORLD))) for one in KINDS))
    def anything(lived: tuple[Life, ...]) -> None:
        trials.lives = lived
        trial = Trial(configuration=CONFIGURATION, round=next(rounds))
        readers.take(trial, real.run(trial, results, "trial"))

    anything()
    readers.close()
    counts = readers.statuses
    assert counts.total() >= TRIALS
    assert set(counts) <= {Status.OK, Status.ERROR, Status.CRASH, Status.OOM}
    assert min(counts[status] for status in (Status.OK, Status.ERROR, Status.CRASH)) > TRIALS / 20
    table = frame.load(results)
    assert table.attrs["skipped"] == []
    assert sorted(table["round"]) == list(range(counts.total()))
