"""Gates from outside: exit codes, the lines that caused them, and machine-readable formats."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench import cli
from bench.controller import environments
from bench.controller import hosts as hosts_module
from bench.record import RankError, Record, Status
from bench.trial import Trial
from tests.analysis.sides import TWICE, UPGRADE, WORKAROUND, question, timed
from tests.controller.fake_hosts import FakeHosts
from tests.factories import failed, gradient, machine, ok, write

SINGLE = ("sweep", "+experiment=single", "rounds=1", "report=false")
PYDANTIC = (
    "1 validation error for DeepSpeedZeroConfig\nnonsense\n  Extra inputs are not permitted "
    "[type=extra_forbidden, input_value=1, input_type=int]\n    For further information visit x"
)


def main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["spbench", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeHosts:
    """Sweeps of this process launch nothing and need no environment."""
    hosts = FakeHosts()
    monkeypatch.setattr(hosts_module, "Hosts", hosts)
    monkeypatch.setattr(environments, "provide", lambda spec, report: spec.name)
    return hosts


def test_compare_refuses_a_gradient_that_is_twice_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, *timed(WORKAROUND, 1.0), *timed(UPGRADE, 1.0, gradient=TWICE))
    assert main(monkeypatch, "compare", str(tmp_path), "--fail-if-slower", "5%") == 0
    assert capsys.readouterr().err == ""
    assert main(monkeypatch, "compare", str(tmp_path), "--fail-if-wrong") == 1
    assert capsys.readouterr().err == (
        "spbench: --fail-if-wrong: torch-2.13 with all_gather has a gradient that is ×2 in 3 of 3 "
        "trials, judged by the exact float64 reference (replica_mean)\n"
    )


def test_all_gates_together_name_what_each_has_against_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    question(tmp_path)
    gates = ("--fail-if-slower", "5%", "--fail-if-more-memory", "5%", "--fail-on-error")
    sides = ("--candidate", "environment=torch-2.2 loss=all_gather")
    sides += ("--baseline", "environment=torch-2.2 loss=weighted_all_reduce")
    assert main(monkeypatch, "compare", str(tmp_path), *sides, *gates) == 1
    told = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1] for line in told] == [
        "--fail-if-slower 5%",
        "--fail-if-more-memory 5%",
        "--fail-on-error",
    ] * 2


def test_unchecked_gradients_need_permission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, *timed(WORKAROUND, 1.0), *timed(UPGRADE, 1.0, gradient=None))
    compare = ("compare", str(tmp_path), "--fail-if-wrong")
    assert main(monkeypatch, *compare) == 1
    assert main(monkeypatch, *compare, "--allow-unchecked") == 0


@pytest.mark.parametrize("command", ["compare", "audit"])
def test_github_and_junit_are_printed_whole(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(tmp_path, *timed(WORKAROUND, 1.0), *timed(UPGRADE, 1.0, gradient=TWICE))
    gated = (command, str(tmp_path), "--fail-if-wrong", "--format")
    assert main(monkeypatch, *gated, "github") == 1
    assert "::error title=spbench --fail-if-wrong::" in capsys.readouterr().out
    assert main(monkeypatch, *gated, "junit") == 1
    root = ElementTree.fromstring(capsys.readouterr().out)
    assert len(list(root.iter("failure"))) == 1


def test_the_baseline_may_be_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before, now = tmp_path / "before", tmp_path / "now"
    write(before, *timed(WORKAROUND, 1.0), *timed(WORKAROUND, 1.0, seq_len=2048))
    write(now, *timed(WORKAROUND, 1.25), *timed(WORKAROUND, 1.0, seq_len=2048))
    command = ("compare", str(now), "--baseline-results", str(before))
    assert main(monkeypatch, *command, "--fail-if-wrong", "--fail-on-error") == 0
    capsys.readouterr()
    assert main(monkeypatch, *command, "--fail-if-slower", "5%", "--format", "json") == 1
    told = capsys.readouterr()
    assert told.err.startswith("spbench: --fail-if-slower 5%: seq_len=512: results=")
    assert "is slower by 25.0%" in told.err and told.err.count("\n") == 1
    [found] = json.loads(told.out)
    assert [point["ratio"]["value"] for point in found["points"]] == pytest.approx([0.8, 1.0])


def test_another_machine_allows_no_verdict_on_time_but_on_gradients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before, now = tmp_path / "before", tmp_path / "now"
    other = machine().model_copy(update={"cpu": "another"})
    write(before, *timed(WORKAROUND, 1.0))
    write(now, *timed(WORKAROUND, 5.0, machine=other))
    command = ("compare", str(now), "--baseline-results", str(before))
    assert main(monkeypatch, *command, "--fail-if-wrong", "--fail-on-error") == 0
    capsys.readouterr()
    assert main(monkeypatch, *command, "--fail-if-slower", "5%") == 1
    assert "is not paired with the baseline" in capsys.readouterr().err


def test_a_gradient_that_changed_since_the_baseline_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before, now = tmp_path / "before", tmp_path / "now"
    write(before, *timed(WORKAROUND, 1.0))
    write(now, *timed(WORKAROUND, 1.0, gradient=TWICE))
    command = ("compare", str(now), "--baseline-results", str(before), "--fail-if-wrong")
    assert main(monkeypatch, *command) == 1
    assert "has a gradient that is ×2 in 3 of 3 trials" in capsys.readouterr().err
    command = ("compare", str(before), "--baseline-results", str(now), "--fail-if-wrong")
    assert main(monkeypatch, *command) == 0


def test_audit_refuses_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, ok(zero=3), ok(gradient=TWICE), failed(loss="local"))
    assert main(monkeypatch, "audit", str(tmp_path)) == 0
    capsys.readouterr()
    assert main(monkeypatch, "audit", str(tmp_path), "--fail-if-wrong") == 1
    assert capsys.readouterr().err.splitlines() == [
        "spbench: --fail-if-wrong: environment=torch-2.13 loss=all_gather zero=1: gradient that is "
        "×2 in 1 of 1 trials, judged by the exact float64 reference (replica_mean)",
        "spbench: --fail-if-wrong: environment=torch-2.13 loss=local zero=1: gradient that was not "
        "compared in 1 of 1 trials (IndexError in backward, ranks 2,3)",
    ]
    command = ("audit", str(tmp_path), "--fail-if-wrong", "--allow-unchecked")
    assert main(monkeypatch, *command) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_audit_judges_what_holds_now_and_shows_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A loss that was wrong and mended passes; one that was right and broken does not."""
    before, after = {"loss": "a" * 16}, {"loss": "f" * 16}
    mended, broken = tmp_path / "mended", tmp_path / "broken"
    later = {"attempt": 1, "started": "2025-02-01", "code": after}
    write(mended, ok(code=before, gradient=TWICE), ok(**later))
    write(broken, ok(code=before), ok(gradient=TWICE, **later))
    assert main(monkeypatch, "audit", str(mended), "--fail-if-wrong") == 0
    shown = capsys.readouterr()
    assert shown.err == "" and "×2" in shown.out
    assert main(monkeypatch, "audit", str(broken), "--fail-if-wrong") == 1
    assert capsys.readouterr().err.startswith("spbench: --fail-if-wrong: environment=torch-2.13")


def end_as(hosts: FakeHosts, **by_loss: dict[str, object]) -> None:
    def outcome(trial: Trial, record: Record) -> Record:
        return record.model_copy(update=by_loss.get(trial.configuration.loss, {}))

    hosts.outcome = outcome


@pytest.mark.parametrize(
    ("fail_on", "code", "fragments"),
    [
        ("", 0, []),
        (
            "error",
            1,
            ["--fail-on error: environment=torch-2.13 loss=local zero=1: error in 1 of 1"],
        ),
        (
            "wrong",
            1,
            [
                "--fail-on wrong: environment=torch-2.13 loss=all_gather zero=1: gradient that is "
                "×2 in 1 of 1 trials, judged by the exact float64 reference (replica_mean)",
                "--fail-on wrong: environment=torch-2.13 loss=local zero=1: gradient that was not",
            ],
        ),
        ("error,wrong", 1, ["--fail-on error: ", "--fail-on wrong: "]),
    ],
)
def test_a_sweep_fails_on_what_it_is_told_to(
    fail_on: str,
    code: int,
    fragments: list[str],
    fake: FakeHosts,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    raised = RankError(rank=0, type="E", message="no", traceback="", phase="forward")
    end_as(
        fake,
        all_gather={"gradient": TWICE},
        weighted_all_reduce={"gradient": gradient()},
        local={"status": Status.ERROR, "errors": [raised]},
    )
    losses = "loss=all_gather,weighted_all_reduce,local"
    options = ("--fail-on", fail_on) if fail_on else ()
    assert main(monkeypatch, *SINGLE, losses, f"results={tmp_path}", *options) == code
    told = capsys.readouterr().err
    assert (told == "") == (code == 0)
    for fragment in fragments:
        assert fragment in told
    assert "weighted_all_reduce" not in told


def test_a_sweep_judges_its_own_trials_only(
    fake: FakeHosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end_as(fake, all_gather={"gradient": TWICE}, local={"gradient": gradient()})
    gated = (*SINGLE, f"results={tmp_path}", "--fail-on", "wrong")
    assert main(monkeypatch, *gated, "loss=all_gather") == 1
    assert main(monkeypatch, *gated, "loss=local") == 0


def test_an_unknown_gate_is_refused_before_anything_runs(
    fake: FakeHosts,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = (*SINGLE, f"results={tmp_path / 'r'}", "--fail-on", "eror")
    assert main(monkeypatch, *command) == 2
    assert capsys.readouterr().err == (
        "spbench: --fail-on eror: 'eror' is no gate; allowed: error, wrong; did you mean 'error'?\n"
    )
    assert fake.trials == []


def test_a_sweep_in_which_nothing_ran_ok_says_why_and_fails(
    fake: FakeHosts,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    raised = RankError(
        rank=0,
        type="pydantic_core._pydantic_core.ValidationError",
        message=PYDANTIC,
        traceback="Traceback: somewhere",
        phase="setup",
    )
    end_as(fake, all_gather={"status": Status.ERROR, "errors": [raised]})
    assert main(monkeypatch, *SINGLE, f"results={tmp_path}") == 1
    told = capsys.readouterr()
    assert told.err.splitlines() == [
        "spbench: nothing ran ok (the one trial): all_gather on torch-2.13: ValidationError in "
        "setup, rank 0: nonsense: Extra inputs are not permitted",
        f"spbench: the rest: spbench show {tmp_path} --failures",
    ]
    assert "✕ all_gather on torch-2.13 fails: ValidationError in setup" in told.out
    assert main(monkeypatch, "show", str(tmp_path), "--failures") == 0
    shown = capsys.readouterr().out
    assert "error ValidationError in setup, rank 0 (1 trial)" in shown
    assert "    Traceback: somewhere" in shown


def test_golden_values_from_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before, now, file = tmp_path / "before", tmp_path / "now", tmp_path / "golden.yaml"
    write(before, *timed(WORKAROUND, 1.0))
    assert main(monkeypatch, "baseline", "write", str(file), str(before)) == 0
    assert file.read_text().startswith("# Golden values")
    shutil.copytree(before, now)
    assert main(monkeypatch, "baseline", "check", str(file), str(now)) == 0
    capsys.readouterr()
    write(tmp_path / "wrong", *timed(WORKAROUND, 1.0, gradient=TWICE))
    assert main(monkeypatch, "baseline", "check", str(file), str(tmp_path / "wrong")) == 1
    told = capsys.readouterr()
    assert "gradient scaled ×2 instead of match ×1" in told.err
    assert f"0 of 1 points are as in {file}" in told.out
    assert main(monkeypatch, "baseline", "check", str(tmp_path / "no"), str(now)) == 2
    assert capsys.readouterr().err.count("\n") == 1
