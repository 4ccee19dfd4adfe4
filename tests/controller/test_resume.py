"""Which records of a folder count when a sweep goes on, and which trials run again."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.controller import observed
from bench.controller import run as run_module
from bench.controller.code import code_of_trial
from bench.controller.ledger import Ledger
from bench.controller.messages import ConfigurationError
from bench.record import Record, Status
from bench.record_files import read_records
from bench.trial import Trial
from tests import factories
from tests.controller.fake_hosts import FakeHosts, run_sweep

ONE = ("experiment=single", "environment=torch-2.13", "loss=local", "rounds=2")


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(run_module, "visible_gpu_count", lambda: 0)
    observed.forget()
    yield
    observed.forget()


@pytest.fixture
def _versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observed, "versions", lambda spec: "torch 2.13.0, deepspeed 0.18.2")


pytestmark = pytest.mark.usefixtures("_versions")


def measured(trial: Trial, record: Record) -> Record:
    """A record as a worker of today makes it."""
    seen = {"worker": factories.worker(), "code": code_of_trial(trial.configuration)}
    return record.model_copy(update=seen)


def contents(folder: Path) -> list[dict[str, Any]]:
    return [raw.content for raw in read_records(folder)]


def rewrite(folder: Path, **fields: Any) -> None:
    """Put `fields` in the place of what the records say; of mappings, only what is named."""
    for path in folder.glob("records-*"):
        records = [json.loads(line) for line in path.read_text().splitlines()]
        for record in records:
            for name, value in fields.items():
                both = isinstance(value, dict) and isinstance(record[name], dict)
                record[name] = {**record[name], **value} if both else value
        path.write_text("".join(json.dumps(record) + "\n" for record in records))


def again(folder: Path, *overrides: str) -> tuple[list[tuple[int, int]], list[str]]:
    """Rounds and attempts that another call runs, and what it says before the first."""
    before = [path.read_bytes() for path in sorted(folder.glob("records-*"))]
    _, hosts, output = run_sweep(f"results={folder}", *ONE, *overrides, hosts=FakeHosts(measured))
    after = [path.read_bytes() for path in sorted(folder.glob("records-*"))]
    assert all(new.startswith(old) for old, new in zip(before, after, strict=True))  # kept
    lines = output.splitlines()
    said = [line for line in lines if " trials " in line and "[" not in line]
    return [(trial.round, trial.attempt) for trial in hosts.trials], said


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two rounds of one configuration, measured here and now."""
    run_sweep(f"results={tmp_path}", *ONE, hosts=FakeHosts(measured))
    assert len(contents(tmp_path)) == 2
    return tmp_path


def test_what_was_measured_by_this_code_here_is_done(folder: Path) -> None:
    assert again(folder) == ([], ["2 of 2 trials have a record already"])


def test_what_other_code_measured_runs_again(folder: Path) -> None:
    rewrite(folder, code={"loss": "0" * 16})
    ran, said = again(folder)
    assert ran == [(0, 1), (1, 1)]
    assert said == ["2 of 2 trials were measured by other code (loss): they run again"]
    assert again(folder)[0] == []
    codes = {record["code"]["loss"] for record in contents(folder)}
    assert len(codes) == 2
    assert len({record["trial_id"] for record in contents(folder)}) == 4


def test_what_other_versions_measured_runs_again(folder: Path) -> None:
    rewrite(folder, worker={"torch": "2.12.0"})
    ran, said = again(folder)
    assert ran == [(0, 1), (1, 1)]
    assert said == [
        "2 of 2 trials were measured with other versions (torch 2.12.0, deepspeed 0.18.2; "
        "now torch 2.13.0, deepspeed 0.18.2): they run again"
    ]


def test_what_a_sweep_measured_itself_counts_for_it(tmp_path: Path) -> None:
    """The worker saw another version than the files of its interpreter say by now."""

    def otherwise(trial: Trial, record: Record) -> Record:
        return measured(trial, record).model_copy(update={"worker": factories.worker("2.12.0")})

    run, hosts, _ = run_sweep(f"results={tmp_path}", *ONE, hosts=FakeHosts(otherwise))
    assert len(hosts.trials) == 2
    assert run.summary is not None and run.summary.complete


def test_another_host_of_the_class_counts(folder: Path) -> None:
    rewrite(folder, machine={"hostname": "another", "load_before": 9.0})
    assert again(folder)[0] == []


@pytest.mark.parametrize("difference", [{"cores": 999}, {"cpu": "Z80"}, {"gpus": ["H100"]}])
def test_another_class_of_machine_does_not_count(folder: Path, difference: dict[str, Any]) -> None:
    rewrite(folder, machine=difference)
    ran, said = again(folder)
    assert ran == [(0, 1), (1, 1)]
    assert said[0].startswith("2 of 2 trials were measured on another class of machine (")
    assert said[0].endswith("): they run here, too")
    assert again(folder)[0] == []  # the later records of the other class hide nothing


def test_records_that_do_not_say_which_code_ran_stay_unless_asked(folder: Path) -> None:
    rewrite(folder, code=None)
    ran, said = again(folder)
    assert ran == []
    assert said[0] == (
        "2 of 2 trials have records that do not say which code ran; retry=unknown_code runs them "
        "again"
    )
    ran, said = again(folder, "retry=unknown_code")
    assert ran == [(0, 1), (1, 1)]
    assert said == ["2 of 2 trials do not say which code ran: they run again"]
    assert again(folder, "retry=unknown_code")[0] == []


def test_a_version_is_no_status_to_retry(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="unknown_code"):
        run_sweep(f"results={tmp_path}", *ONE, "retry=unknown_cod")


def test_a_broken_environment_is_broken_on_its_machine_only(folder: Path) -> None:
    rewrite(folder, worker=None, code=None, status=Status.ENVIRONMENT.value)
    assert again(folder)[0] == []
    rewrite(folder, machine={"cores": 999})
    assert again(folder)[0] == [(0, 1), (1, 1)]


def test_retry_takes_the_next_name_though_another_class_has_it(folder: Path) -> None:
    rewrite(folder, machine={"cores": 999}, attempt=4)
    again(folder)
    own = [one for one in contents(folder) if one["machine"]["cores"] != 999]
    assert [one["attempt"] for one in own] == [5, 5]
    ran, _ = again(folder, "retry=ok")
    assert ran == [(0, 6), (1, 6)]


def test_the_ledger_keeps_every_record_of_a_trial(folder: Path) -> None:
    rewrite(folder, code={"loss": "0" * 16})
    again(folder)
    ledger = Ledger(folder)
    key = (str(contents(folder)[0]["config_hash"]), 0)
    assert [entry.attempt for entry in ledger.all(key)] == [0, 1]
    assert ledger.next_attempt(key) == 2
    assert ledger.next_attempt((key[0], 7)) == 0


INTERPRETER = """#!/bin/sh
PYTHONPATH={site} exec {python} "$@"
"""


@pytest.fixture
def interpreter(tmp_path: Path) -> Path:
    """A Python with packages named torch and deepspeed, which say no more than their versions."""
    site = tmp_path / "site"
    for package, file, text in (
        ("torch", "version.py", "__version__ = '2.13.0+cpu'\n"),
        ("deepspeed", "git_version_info_installed.py", "version='0.18.2'\ngit_hash='x'\n"),
    ):
        (site / package).mkdir(parents=True)
        (site / package / "__init__.py").write_text("raise ImportError('not to be imported')\n")
        (site / package / file).write_text(text)
    python = tmp_path / "python"
    python.write_text(INTERPRETER.format(site=site, python=sys.executable))
    python.chmod(0o755)
    return python


def test_versions_are_read_from_the_interpreter_without_importing_them(
    interpreter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    spec = factories.environment().model_copy(update={"python": str(interpreter)})
    assert observed.versions(spec) == "torch 2.13.0+cpu, deepspeed 0.18.2"
    assert observed.versions(spec.model_copy(update={"python": "/no/python"})) is None
    unmade = factories.environment(torch="0.0.1")
    assert observed.versions(unmade) is None


def test_an_upgrade_under_a_path_is_seen(
    interpreter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(run_module, "visible_gpu_count", lambda: 0)
    folder, version = tmp_path / "results", tmp_path / "site" / "torch" / "version.py"

    def by_it(trial: Trial, record: Record) -> Record:
        worker = factories.worker(torch=version.read_text().split("'")[1])
        code = code_of_trial(trial.configuration)
        return record.model_copy(update={"worker": worker, "code": code})

    def sweep() -> tuple[int, str]:
        observed.forget()  # as a process of its own
        overrides = (f"results={folder}", "experiment=single", f"environment.python={interpreter}")
        _, hosts, output = run_sweep(*overrides, "loss=local", "rounds=1", hosts=FakeHosts(by_it))
        return len(hosts.trials), output

    assert sweep()[0] == 1
    assert sweep()[0] == 0
    version.write_text("__version__ = '2.14.0+cpu'\n")
    ran, output = sweep()
    assert ran == 1
    assert "torch 2.13.0+cpu, deepspeed 0.18.2; now torch 2.14.0+cpu, deepspeed 0.18.2" in output
    assert sweep()[0] == 0
