"""Real ranks that return, raise or do what nobody expects: the sweep goes on."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from analysis import frame
from bench.controller.config import Settings
from bench.controller.hosts import Hosts
from bench.controller.progress import LogDisplay
from bench.controller.provenance import MachineWatch
from bench.controller.sweep import Schedule, run
from bench.record import Status
from bench.record_files import read_records
from tests.conftest import RunTrial, configure

pytestmark = pytest.mark.environment

OK, ERROR, CRASH = Status.OK.value, Status.ERROR.value, Status.CRASH.value
WHAT = {
    "None": (0, ERROR, "rank 0: the scenario returned None, which is no mapping"),
    "list": (1, ERROR, "rank 1: the scenario returned [1, {'a': None}], which is no mapping"),
    "set": (0, ERROR, "rank 0: the scenario returned details that no record can hold: details.a"),
    "itself": (1, ERROR, "rank 1: the scenario returned details that no record can hold: details"),
    "unknown part": (1, ERROR, "rank 1: the scenario returned 'detials'; a record takes samples"),
    "samples of text": (1, ERROR, "rank 1: the scenario returned samples that no record can hold"),
    "no time at all": (0, ERROR, "rank 0: the scenario returned samples that no record can hold"),
    "gradient without a verdict": (0, ERROR, "rank 0: the scenario returned gradient that no rec"),
    "large number": (1, ERROR, "rank 1: the scenario returned details that no record can hold"),
    "undecodable": (0, ERROR, "RuntimeError in setup on rank 0: \\xff"),
    "mute": (1, ERROR, "bench.worker.scenarios.hostile.Mute in setup on rank 1: (no text: ValueE"),
    "phase cut inside a character": (1, OK, ""),
    "phase of bytes": (0, ERROR, "TypeError in setup on rank 0: a rank's phase must be text, not"),
    "row of bytes": (1, ERROR, "rank 1: row 1 is no JSON: b'\\xff\\xfe'"),
    "nameless signal": (1, CRASH, "rank 1 ended by signal 40 without a result"),
    "nonsense": (1, ERROR, "rank 1: it reported as rank None"),
    "leaves": (0, CRASH, "rank 0 ended by exit code 0 without a result"),
}
"""On which rank, the status of the record and how its reason begins."""
SMALL: dict[str, Any] = {"world": 2, "sp": 2, "gradient_check": "off"}


@pytest.fixture
def hostile(hosts: Hosts, run_trial: RunTrial) -> Hosts:
    """The session's servers, of which one offers the scenario `hostile`."""
    fine = configure(scenario="drill", **SMALL)
    assert run_trial(fine).status is Status.OK
    key = (fine.environment, fine.comm.device, fine.comm.deepspeed_shm)
    hosts._hosts[key]._server.send(op="preload", modules=["tests.inside.scenarios.hostile"])
    return hosts


def test_a_sweep_over_whatever_ranks_may_do_has_one_record_of_each_trial(
    hostile: Hosts, tmp_path: Path
) -> None:
    configurations = [
        configure(scenario="hostile", options={"what": what, "rank": rank}, **SMALL)
        for what, (rank, _, _) in WHAT.items()
    ]
    said = Console(file=io.StringIO(), width=200)
    schedule = Schedule(configurations, Settings(results=tmp_path, rounds=1, seed=0))
    display = LogDisplay(said, configurations, len(configurations), 0)
    summary = run(schedule, hostile, display, MachineWatch())
    assert summary.complete
    table = frame.load(tmp_path)
    assert table.attrs["skipped"] == [] and len(table) == len(WHAT)
    seen = {}
    for record in read_records(tmp_path):
        what = record.content["config"]["options"]["what"]
        begin = len(WHAT[what][2])
        seen[what] = record.content["status"], str(record.content["reason"] or "")[:begin]
    assert seen == {what: tuple(end) for what, (_, *end) in WHAT.items()}
