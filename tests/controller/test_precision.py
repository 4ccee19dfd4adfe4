"""Rounds that a sweep adds until its figures are precise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.controller import run as run_module
from bench.controller.messages import ConfigurationError
from bench.record import RankSamples, Record, Status
from bench.trial import EnvironmentSpec, Trial
from tests.controller.fake_hosts import FakeHosts, run_sweep

ROUNDS = ("experiment=single", "sp=1,2", "rounds=3", "max_rounds=9", "report=false")


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "visible_gpu_count", lambda: 0)


def timed(record: Record, step_s: float) -> Record:
    samples = RankSamples(rank=0, warmup_s=[], step_s=[step_s], phases_s={}, losses=[])
    return record.model_copy(update={"samples": [samples]})


def steps(one: Sequence[float], two: Sequence[float]) -> FakeHosts:
    """Hosts whose trials with sp=1 and sp=2 take these times, by round."""
    times = {1: one, 2: two}
    return FakeHosts(
        lambda trial, record: timed(record, times[trial.configuration.sp][trial.round])
    )


def rounds(hosts: FakeHosts) -> Counter[int]:
    return Counter(trial.configuration.sp for trial in hosts.trials)


# After 6 rounds the interval is the range: 0.99 to 1.01, 1 % to each side; then 8 and 9 rounds
# leave out the extremes, and only from 9 on is 0.8 … 1.2 outside.
CALM = [1.0, 0.99, 1.01, 1.0, 1.0, 1.0]
JUMPY = [1.0, 1.2, 0.8, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]


def test_rounds_go_where_they_are_needed(tmp_path: Path) -> None:
    run, hosts, output = run_sweep(
        f"results={tmp_path}", *ROUNDS, "precision=2%", hosts=steps(CALM, JUMPY)
    )
    assert rounds(hosts) == {1: 6, 2: 9}
    assert [trial.round for trial in hosts.trials] == sorted(t.round for t in hosts.trials)
    assert run.summary is not None
    assert (run.summary.planned, run.summary.complete) == (15, True)
    # 1 / 0.8 is 25 % above the median speed of 1, 1 / 1.2 is 17 % below.
    assert [line for line in output.splitlines() if "wanted" in line] == [
        *(
            f"±2 % wanted: 0 of 2 have it after {n} rounds, widest unknown "
            "(torch-2.13 sp=1); 2 more trials"
            for n in (3, 4, 5)
        ),
        *(
            f"±2 % wanted: 1 of 2 have it after {n} rounds, widest ±25.0 % "
            "(torch-2.13 sp=2); 1 more trials"
            for n in (6, 7, 8)
        ),
        "±2 % wanted: 2 of 2 have it after 9 rounds",
    ]


def test_no_configuration_gets_more_than_max_rounds(tmp_path: Path) -> None:
    restless = [1.0, 2.0] * 5
    _, hosts, output = run_sweep(
        f"results={tmp_path}", *ROUNDS, "precision=0.02", hosts=steps(restless, CALM)
    )
    assert rounds(hosts) == {1: 9, 2: 6}
    assert "1 of 2 have it after 9 rounds, widest ±" in output.splitlines()[-1]


def test_without_precision_nothing_is_added(tmp_path: Path) -> None:
    _, hosts, output = run_sweep(f"results={tmp_path}", *ROUNDS, hosts=steps(JUMPY, JUMPY))
    assert rounds(hosts) == {1: 3, 2: 3}
    assert "wanted" not in output


@pytest.mark.parametrize("failed_round", [0, 2])
def test_what_fails_is_not_repeated_beyond_the_plan(tmp_path: Path, failed_round: int) -> None:
    def failing(trial: Trial, record: Record) -> Record:
        if trial.configuration.sp == 1 and trial.round == failed_round:
            return record.model_copy(update={"status": Status.ERROR})
        return timed(record, 1.0)

    _, hosts, output = run_sweep(
        f"results={tmp_path}", *ROUNDS, "precision=2%", hosts=FakeHosts(failing)
    )
    assert rounds(hosts) == {1: 3, 2: 6}
    assert "1 of 1 have it after 6 rounds" in output


@pytest.mark.parametrize("until", [1, 4, 7, 11, 14])
def test_an_interrupted_sweep_adds_the_same_rounds_when_resumed(tmp_path: Path, until: int) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    overrides = (*ROUNDS, "precision=2%")
    _, uninterrupted, _ = run_sweep(f"results={whole}", *overrides, hosts=steps(CALM, JUMPY))
    first = steps(CALM, JUMPY)
    answer = first.outcome
    assert answer is not None

    def interrupted(trial: Trial, record: Record) -> Record:
        if len(first.trials) > until:
            raise KeyboardInterrupt
        return answer(trial, record)

    first.outcome = interrupted
    with pytest.raises(KeyboardInterrupt):
        run_sweep(f"results={parts}", *overrides, hosts=first)
    run, second, _ = run_sweep(f"results={parts}", *overrides, hosts=steps(CALM, JUMPY))
    assert [*first.trials[:until], *second.trials] == uninterrupted.trials
    assert run.summary is not None
    assert run.summary.resumed == until
    run, third, _ = run_sweep(f"results={parts}", *overrides, hosts=steps(CALM, JUMPY))
    assert third.trials == []
    assert run.summary is not None
    assert (run.summary.planned, run.summary.resumed) == (15, 15)


def test_a_wish_for_more_precision_adds_to_what_is_there(tmp_path: Path) -> None:
    run_sweep(f"results={tmp_path}", *ROUNDS, "precision=30%", hosts=steps(CALM, JUMPY))
    asked: list[str] = []

    def provide(spec: object, report: object) -> str:
        asked.append("environment")
        return "interpreter"

    _, hosts, _ = run_sweep(
        f"results={tmp_path}",
        *ROUNDS,
        "precision=2%",
        hosts=steps(CALM, JUMPY),
        provide=provide,
    )
    assert rounds(hosts) == {2: 3}
    assert asked == ["environment"]


def test_environments_of_rounds_to_come_are_provided_too(tmp_path: Path) -> None:
    overrides = (f"results={tmp_path}", "experiment=single", "report=false", "max_rounds=4")
    both = "environment=torch-2.2,torch-2.13"
    run_sweep(*overrides, "environment=torch-2.2", "rounds=3")
    run_sweep(*overrides, "environment=torch-2.13", "rounds=2")
    asked: list[str] = []

    def provide(spec: EnvironmentSpec, report: object) -> str:
        asked.append(spec.name)
        return spec.name

    _, hosts, _ = run_sweep(*overrides, both, "rounds=3", "precision=2%", provide=provide)
    assert [t.configuration.environment.name for t in hosts.trials] == ["torch-2.13"]
    assert sorted(asked) == ["torch-2.13", "torch-2.2"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("precision=fine", "precision=fine: must be above 0 % and below 100 %, such as 2%"),
        ("precision=0", "precision=0: must be above 0 %"),
        ("precision=2", "precision=2: must be above 0 % and below 100 %"),
        ("precision=1%,2%", "'precision' is for the sweep as a whole"),
        ("max_rounds=2", "max_rounds=2: must be at least rounds=3"),
    ],
)
def test_impossible_wishes_are_refused(tmp_path: Path, override: str, message: str) -> None:
    wish = () if override.startswith("precision") else ("precision=2%",)
    hosts = FakeHosts()
    with pytest.raises(ConfigurationError) as refused:
        run_sweep(f"results={tmp_path}", *ROUNDS, *wish, override, hosts=hosts)
    assert message in str(refused.value)
    assert hosts.trials == []
