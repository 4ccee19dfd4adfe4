"""Scenarios whose trial takes more than one launch."""

from __future__ import annotations

import types
from pathlib import Path

import pytest

from bench.controller import drivers, hosts
from bench.controller.drivers import Launch, Note
from bench.record import Record, Status
from bench.trial import Trial
from tests.controller.test_progress import record, trial


def test_a_single_launch_has_no_driver() -> None:
    assert drivers.find("train") is None


def test_the_driver_launches_notes_and_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def twice(one: Trial, launch: Launch, note: Note) -> Record:
        inner = one.configuration.model_copy(update={"scenario": "train"})
        found = [launch(Trial(configuration=inner, round=i)) for i in range(2)]
        note("both done")
        details = {"attempts": [made.round for made in found]}
        return record(one, Status.OK, details=details)

    launched: list[Trial] = []

    class OneRank(hosts.Hosts):
        def _launch(self, one: Trial, *_: object) -> Record:
            launched.append(one)
            return record(one)

    monkeypatch.setattr(drivers, "find", {"train": None, "twice": twice}.get)
    noted: list[str] = []
    with OneRank(types.SimpleNamespace) as one_rank:
        made = one_rank.run(trial(scenario="twice"), tmp_path, noted.append)
    assert made.details == {"attempts": [0, 1]}
    assert made.config.scenario == "twice"
    assert noted == ["both done"]
    assert [one.configuration.scenario for one in launched] == ["train", "train"]
