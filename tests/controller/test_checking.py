"""What a trial's gradient is compared with, and that a reference never costs the measurement."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from bench import theory
from bench.controller import first_loss
from bench.controller.code import reference_folder
from bench.controller.environments import provide
from bench.controller.hosts import Hosts
from bench.record import Record, Status
from bench.theory import checking
from bench.trial import Configuration, Limits, Trial
from tests.conftest import TINY, configure

pytestmark = pytest.mark.environment

DEEP = TINY.model_copy(update={"layers": 4})


@pytest.fixture(scope="module")
def own_hosts() -> Iterator[Hosts]:
    """A server whose memory of what failed is not the other tests'."""
    with Hosts(provide) as hosts:
        yield hosts


def folder_of(configuration: Configuration) -> Path:
    """The reference folder of `configuration`, there and without a reference."""
    folder = reference_folder(configuration)
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        path.rmdir() if path.is_dir() else path.unlink()
    return folder


def ran_without_a_comparison(record: Record) -> str:
    """The reason why `record`, of a trial that ran as it should, has no gradient."""
    assert record.status is Status.OK, record.reason
    assert [len(one.step_s) for one in record.samples] == [1] * record.config.world
    assert len(record.memory) == record.config.world
    assert (record.gradient, record.gradient_mode, record.errors) == (None, "exact", [])
    assert record.gradient_reason is not None
    return record.gradient_reason


def test_a_reference_that_cannot_be_written_costs_nothing(own_hosts: Hosts, results: Path) -> None:
    configuration = configure(seed=101)
    (folder_of(configuration) / "gradient.npy").mkdir()  # a file cannot replace a folder
    record = own_hosts.run(Trial(configuration=configuration, round=0), results)
    reason = ran_without_a_comparison(record)
    assert reason.startswith(
        "not compared: the exact reference could not be made: IsADirectoryError: "
    )


def test_a_reference_that_takes_too_long_costs_nothing(own_hosts: Hosts, results: Path) -> None:
    configuration = configure(seed=102)
    folder = folder_of(configuration)
    (folder / "reference.json").write_text(json.dumps({"loss": 1.0}))
    (folder / "gradient-other.npy").touch()  # else both gradients are made anew
    os.mkfifo(folder / "gradient.npy")  # whoever opens it waits for a writer that never comes
    hasty = configuration.model_copy(update={"limits": Limits(timeout_s=1.0)})
    own_hosts.run(Trial(configuration=hasty, round=0), results)  # its ranks may be late as well
    record = own_hosts.run(Trial(configuration=configuration, round=1), results)
    assert ran_without_a_comparison(record) == (
        "not compared: the exact reference could not be made: it took longer than "
        "limits.timeout_s=1; raise that, or use a smaller model"
    )


def test_a_reference_that_runs_out_of_memory_costs_nothing(own_hosts: Hosts, results: Path) -> None:
    """Forked processes inherit the bound that the server gets for as long as it is made."""
    own_hosts.run(Trial(configuration=configure(gradient_check="off"), round=0), results)
    wide = TINY.model_copy(update={"vocab": 32000})
    configuration = configure(seed=103, model=wide, seq_len=1024)  # 262 MB of float64 logits
    folder_of(configuration)
    server = max(psutil.Process().children(), key=psutil.Process.create_time)
    _, most = resource.prlimit(server.pid, resource.RLIMIT_AS)
    bound = server.memory_info().vms + (128 << 20)
    resource.prlimit(server.pid, resource.RLIMIT_AS, (bound, most))
    try:
        own_hosts.run(Trial(configuration=configuration, round=0), results)
    finally:
        resource.prlimit(server.pid, resource.RLIMIT_AS, (most, most))
    reason = ran_without_a_comparison(
        own_hosts.run(Trial(configuration=configuration, round=1), results)
    )
    assert reason.startswith("not compared: the exact reference could not be made: RuntimeError: ")
    assert "can't allocate memory" in reason


def test_without_weights_no_trial_runs(own_hosts: Hosts, results: Path) -> None:
    configuration = configure(seed=104)
    folder = folder_of(configuration)
    folder.rmdir()
    folder.touch()  # no folder can be made where a file is
    record = own_hosts.run(Trial(configuration=configuration, round=0), results)
    folder.unlink()
    assert record.status is Status.ERROR
    assert str(record.reason).startswith("the initial weights could not be made: FileExistsError: ")
    assert [error.phase for error in record.errors] == ["reference"]


def test_a_scenario_that_judges_the_gradient_says_what_it_lacks(
    own_hosts: Hosts, results: Path
) -> None:
    configuration = configure(seed=105, scenario="mutation")
    (folder_of(configuration) / "gradient.npy").mkdir()
    record = own_hosts.run(Trial(configuration=configuration, round=0), results)
    assert record.status is Status.ERROR
    assert "scenario=mutation is there to judge the gradient: not compared: the exact" in str(
        record.reason
    )


def test_auto_without_an_affordable_reference_measures_and_compares_the_loss(
    own_hosts: Hosts, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configuration = configure(seed=109)
    folder = folder_of(configuration)
    monkeypatch.setattr(checking, "BUDGET_S", 0.0)
    record = own_hosts.run(Trial(configuration=configuration, round=0), results)
    assert (record.status, record.gradient_mode, record.gradient) == (Status.OK, "off", None)
    assert str(record.gradient_reason).startswith("not compared: the exact reference would take")
    assert not (folder / "reference.json").exists()
    assert record.first_loss is not None
    assert record.first_loss.agrees
    monkeypatch.setattr(checking, "FIRST_LOSS_S", 0.0)
    record = own_hosts.run(Trial(configuration=configuration, round=1), results)
    assert record.status is Status.OK
    assert record.first_loss is not None
    assert (record.first_loss.reference, record.first_loss.agrees) == (None, None)
    assert str(record.first_loss.reason).startswith("not compared: a forward pass in float64")


@pytest.mark.parametrize(
    ("seed", "loss", "verdict", "rounds"),
    [(107, "local", ("match", "×1"), 2), (108, "all_gather", ("scaled", "×2"), 1)],
)
def test_a_proxy_judges_in_two_layers_once_for_all_rounds(
    own_hosts: Hosts, results: Path, seed: int, loss: str, verdict: tuple[str, str], rounds: int
) -> None:
    configuration = configure(
        model=DEEP, seed=seed, loss=loss, zero=1, gradient_check="proxy", steps=2
    )
    whole = folder_of(configuration)
    records = [
        own_hosts.run(Trial(configuration=configuration, round=number), results)
        for number in range(rounds)
    ]
    for record in records:
        assert record.status is Status.OK, record.reason
        assert (record.gradient_mode, record.gradient_reason) == ("proxy", None)
        assert record.gradient is not None
        assert (record.gradient.verdict, record.gradient.scale_label) == verdict
        assert record.gradient.mode == "proxy"
        assert record.gradient.parameters == 2 * 9 + 3
        assert len(record.samples[0].step_s) == 2
        assert record.first_loss is not None
        assert (record.first_loss.agrees, record.first_loss.reason) == (True, None)
    logs = results / "logs"
    assert (logs / f"{configuration.hash}-r0-a0.proxy.log").exists()
    assert not (logs / f"{configuration.hash}-r1-a0.proxy.log").exists()
    assert {path.name for path in whole.iterdir()} == {"weights.npy", "first_loss.json"}
    exact = configuration.model_copy(update={"gradient_check": "exact", "steps": 1})
    record = own_hosts.run(Trial(configuration=exact, round=0), results)
    assert record.first_loss is None
    assert record.gradient is not None
    alone = first_loss.read(whole)
    assert record.gradient.reference_loss == pytest.approx(alone, rel=1e-12)
    assert record.gradient.reference_loss != 0


def test_a_proxy_without_a_reference_says_so(own_hosts: Hosts, results: Path) -> None:
    configuration = configure(model=DEEP, seed=106, gradient_check="proxy")
    (folder_of(theory.proxy_of(configuration)) / "gradient.npy").mkdir()
    record = own_hosts.run(Trial(configuration=configuration, round=0), results)
    assert record.status is Status.OK, record.reason
    assert (record.gradient, record.gradient_mode) == (None, "proxy")
    assert str(record.gradient_reason).startswith(
        "not compared: the proxy of 2 layers: the exact reference could not be made: IsADirectory"
    )
