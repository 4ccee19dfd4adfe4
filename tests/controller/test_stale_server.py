"""A server goes on with what it imported: real ranks, on a copy of spbench's files."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.controller import server_process
from bench.controller.code import DISK, code_of_trial
from bench.controller.environments import provide
from bench.controller.host import Host
from bench.controller.hosts import Hosts
from bench.record import Record, Status
from bench.trial import Trial
from tests.conftest import ROOT, configure

pytestmark = pytest.mark.environment


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the files that servers run, to be edited."""
    root = tmp_path / "checkout"
    shutil.copytree(ROOT / "bench", root / "bench")
    monkeypatch.setattr(server_process, "ROOT", root)
    monkeypatch.setattr(DISK, "_root", root)
    monkeypatch.setattr(DISK, "_codes", {})
    return root


@pytest.fixture
def run(tmp_path: Path, checkout: Path) -> Iterator[Callable[..., tuple[Record, int, list[str]]]]:
    """Run a trial; gives its record, the pid of the server that ran it, and what was noted."""
    others = set(psutil.Process().children())  # of other tests
    with Hosts(provide) as hosts:

        def once(**fields: Any) -> tuple[Record, int, list[str]]:
            said: list[str] = []
            trial = Trial(configuration=configure(**fields), round=0)
            record = hosts.run(trial, tmp_path / "results", said.append)
            servers = set(psutil.Process().children()) - others
            return record, servers.pop().pid if servers else 0, said

        yield once


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def scale(record: Record) -> tuple[str, float]:
    assert record.gradient is not None, record.reason
    assert record.gradient.scale is not None
    return record.gradient.verdict, round(record.gradient.scale, 3)


def test_a_file_edited_between_two_trials_restarts_the_server(
    run: Callable[..., tuple[Record, int, list[str]]], checkout: Path
) -> None:
    loss = checkout / "bench/worker/loss/weighted_all_reduce.py"
    right, first, said = run(loss="weighted_all_reduce")
    assert scale(right) == ("match", 1.0)
    assert right.code == code_of_trial(right.config)
    assert said == []

    edit(loss, "the workaround for torch", "a workaround for torch")
    documented, same, _ = run(loss="weighted_all_reduce")
    assert (documented.code, same) == (right.code, first)

    edit(checkout / "bench/worker/loss/all_gather.py", "tokens.sum()", "tokens.sum() * 1")
    _, same, _ = run(loss="weighted_all_reduce")
    assert same == first  # this trial runs no line of that file

    edit(loss, "return weighted / tokens", "return 3 * weighted / tokens")
    wrong, second, said = run(loss="weighted_all_reduce")
    assert scale(wrong) == ("scaled", 3.0)
    assert second != first
    assert said == ["files of spbench have changed: the server starts anew"]
    assert right.code is not None
    assert wrong.code is not None
    changed = [role for role in right.code if right.code[role] != wrong.code[role]]
    assert changed == ["loss"]
    assert wrong.code == code_of_trial(wrong.config)


def test_what_a_lost_server_ran_is_known(
    run: Callable[..., tuple[Record, int, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    record, server, _ = run(loss="local")
    assert record.worker is not None
    # what a rank imports itself could be another file than the server's by then
    assert [name for name in record.worker.late_imports if name.startswith("bench")] == []
    fly = Host._fly

    def killed(*arguments: Any) -> Any:
        psutil.Process(server).kill()
        return fly(*arguments)

    monkeypatch.setattr(Host, "_fly", killed)
    lost, _, _ = run(loss="local", seq_len=64)
    assert lost.status is Status.CRASH
    assert lost.worker is not None
    assert (lost.code, lost.worker.torch) == (record.code, record.worker.torch)
