"""The command line from outside: exit codes, one line for errors, Hydra's flags."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bench import __version__, cli
from bench.controller import environments
from bench.controller import hosts as hosts_module
from tests.analysis.sides import UPGRADE, WORKAROUND, frame_of, question, timed
from tests.controller.fake_hosts import FakeHosts
from tests.factories import ok, write

ROOT = Path(__file__).parents[1]
SINGLE = ("sweep", "+experiment=single", "rounds=1", "report=false")


def spbench(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench.cli", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeHosts:
    """Sweeps of this process launch nothing and need no environment."""
    hosts = FakeHosts()
    monkeypatch.setattr(hosts_module, "Hosts", hosts)
    monkeypatch.setattr(environments, "provide", lambda spec, report: spec.name)
    return hosts


def main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["spbench", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (("sweep", "seqlen=3"), "seqlen: unknown key; did you mean 'seq_len'?"),
        (("sweep", "-+zero=1"), "unrecognized arguments: -+zero=1"),
        (("sweep", "hydra.sweeper.params=2"), "hydra.sweeper.params=2: must be a mapping"),
        (("sweep", "~model=1,2,3"), "model cannot be left out; write model=VALUE"),
        (("sweep", "~zero"), "zero cannot be left out; write zero=VALUE"),
        (("sweep", "+=1"), "+=1: has no key; write key=value"),
        (("sweep", "hydra/help=false"), "must be a string or a list. Got bool"),
        (
            ("sweep", "+deepspeed.zero_optimization=some/text"),
            "deepspeed.zero_optimization=some/text: must be a mapping",
        ),
        (("sweep", "seq_len=range(1,1000000000)"), "and a sweep at most 10,000"),
        (("sweep", "seq_len=shuffle(range(1,2000000000))"), "and a sweep at most 10,000"),
        (
            ("sweep", "+deepspeed.zero_optimization.offload_param=x"),
            "deepspeed.zero_optimization.offload_param=x: must be a mapping",
        ),
        (("sweep", "seq_len=range(1,200)", "seed=range(1,200)"), "have 316,808 combinations"),
        (("sweep", "seq_len=${oc.env:SPBENCH_NOWHERE}"), "'SPBENCH_NOWHERE' not found"),
        (("sweep", "sp=3"), "sp=3 must divide world=4; allowed: 1, 2, 4"),
        (("sweep", "environment.python=/nowhere/python"), "/nowhere/python"),
        (("sweep", f"environment.python={sys.executable}"), "no torch"),
        (("show", "/nowhere"), "/nowhere"),
        (("export", "/nowhere", "--to", "json"), "/nowhere"),
        (("compare", "/nowhere"), "/nowhere"),
        (("compare", "/nowhere", "--fail-if-slower", "5"), "--fail-if-slower 5: not a difference"),
        (("compare", "/nowhere", "--smallest", "x"), "--smallest x: not a difference"),
        (("report", "/nowhere"), "/nowhere"),
        (("env", "sync", "torch-2.1"), "did you mean 'torch-2.13'?"),
        (("env", "remove", "torch-9"), "unknown environment"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(
    arguments: tuple[str, ...], fragment: str, tmp_path: Path
) -> None:
    folder = tmp_path / "results"
    results = (f"results={folder}",) if arguments[0] == "sweep" else ()
    done = spbench(*arguments, *results)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("spbench: ")
    assert fragment in done.stderr
    assert not folder.exists()


def test_the_sweep_ends_with_the_answer_and_the_folder(
    fake: FakeHosts,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = main(monkeypatch, *SINGLE, "seq_len=511,512", f"results={tmp_path}")
    lines = capsys.readouterr().out.splitlines()
    assert code == 0
    assert len(fake.trials) == 1
    assert lines[-1] == f"records: {tmp_path}"
    assert "2 trials: 1 ok, 1 unsupported; not ok: 1" in lines


def test_the_sweep_makes_a_report_unless_told_otherwise(
    fake: FakeHosts,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ("sweep", "+experiment=single", "rounds=1", f"results={tmp_path}")
    assert main(monkeypatch, *command, "report=false") == 0
    assert not (tmp_path / "report.html").exists()
    assert main(monkeypatch, *command) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"report: {tmp_path / 'report.html'}"
    assert "1 trial: 1 ok" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_report_goes_where_it_should(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "results", ok())
    output = tmp_path / "page.html"
    assert main(monkeypatch, "report", str(tmp_path / "results"), "--output", str(output)) == 0
    assert capsys.readouterr().out == f"report: {output}\n"
    assert output.stat().st_size > 10_000
    assert main(monkeypatch, "report", str(tmp_path / "results"), "-o", str(tmp_path)) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_an_interrupted_sweep_says_how_to_go_on(
    fake: FakeHosts,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(trial: object, record: object) -> None:
        raise KeyboardInterrupt

    fake.outcome = interrupted  # type: ignore[assignment]
    assert main(monkeypatch, *SINGLE, f"results={tmp_path}") == 130
    assert "the same command resumes" in capsys.readouterr().err
    assert fake.closed == 1


def test_a_real_interrupt_ends_a_sweep_quickly(tmp_path: Path) -> None:
    program = (
        "import time\n"
        "from bench import cli\n"
        "from bench.controller import environments, hosts\n"
        "from tests.controller.fake_hosts import FakeHosts\n"
        "def forever(trial, record):\n"
        "    print('launched', flush=True)\n"
        "    time.sleep(1000)\n"
        "hosts.Hosts = FakeHosts(forever)\n"
        "environments.provide = lambda spec, report: spec\n"
        "cli.main()\n"
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        sweep = subprocess.Popen(
            [sys.executable, "-c", program, *SINGLE, f"results={tmp_path}"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert sweep.stdout is not None
        assert sweep.stdout.readline() == "launched\n"
        sweep.send_signal(number)
        _, errors = sweep.communicate(timeout=100)
        assert (sweep.returncode, errors.count("\n")) == (130, 1)
    assert list(tmp_path.glob("records-*")) == []


def test_cfg_job_prints_the_composed_configuration() -> None:
    done = spbench("sweep", "--cfg", "job", "model=8b", "seq_len=4096", "deepspeed.a.b=1")
    assert done.returncode == 0, done.stderr
    composed = yaml.safe_load(done.stdout)
    assert composed["model"]["kv_heads"] == 8
    assert composed["seq_len"] == 4096
    assert composed["deepspeed"] == {"a": {"b": 1}}
    assert composed["experiment"] == "quick"


def test_bash_completion_knows_the_groups() -> None:
    for line in ("spbench sweep loss=all", "./run_sweep.sh loss=all"):
        command = ("sweep", "-sc") if "run_sweep" in line else ("-sc",)
        done = spbench(*command, "query=bash", COMP_LINE=line)
        assert done.stdout.split() == ["loss=all_gather"], done.stderr


def test_sweep_help_imports_little_and_names_the_choices() -> None:
    done = spbench("sweep", "--help", PYTHONPROFILEIMPORTTIME="1")
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "bench.cli_sweep" in imported
    assert not imported & {"hydra", "omegaconf", "pandas", "numpy", "psutil", "matplotlib"}
    for fragment in ("weighted_all_reduce", "--cfg job", "Example: spbench sweep"):
        assert fragment in done.stdout


@pytest.mark.parametrize(
    "command",
    [
        "",
        "sweep",
        "show",
        "export",
        "compare",
        "report",
        "env",
        "env list",
        "env sync",
        "env check",
        "env remove",
        "env prune",
        "baseline",
        "baseline write",
        "baseline check",
        "audit",
    ],
)
def test_every_help_has_an_example(command: str) -> None:
    done = spbench(*command.split(), "--help")
    assert done.returncode == 0
    assert "Example: spbench" in done.stdout


@pytest.mark.parametrize(
    ("step_s", "limit", "code", "message"),
    [(1.0, "5%", 0, ""), (1.2, "5%", 1, "is slower by 20.0%"), (1.2, "30%", 0, "")],
)
def test_a_slower_candidate_fails_where_that_is_asked_for(
    tmp_path: Path, step_s: float, limit: str, code: int, message: str
) -> None:
    frame_of(tmp_path, [*timed(WORKAROUND, 1.0), *timed(UPGRADE, step_s)])
    done = spbench("compare", str(tmp_path), "--fail-if-slower", limit, "--format", "csv")
    assert done.returncode == code
    assert message in done.stderr
    assert (done.stderr == "") == (code == 0)
    assert done.stdout.startswith("baseline,candidate,")


def test_compare_names_the_nearest_axis(tmp_path: Path) -> None:
    question(tmp_path)
    sides = ("--baseline", "enviroment=torch-2.2", "--candidate", "environment=torch-2.13")
    done = spbench("compare", str(tmp_path), *sides)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "spbench: baseline: enviroment: unknown axis; did you mean 'environment'?\n"
    )


def test_compare_without_sides_answers_the_question(tmp_path: Path) -> None:
    question(tmp_path)
    done = spbench("compare", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "upgrading is 2.00 (2.00 to 2.00) times" in done.stdout
    assert "torch-2.13 with all_gather against torch-2.2 with all_gather" in done.stdout


def test_version() -> None:
    assert spbench("--version").stdout == f"spbench {__version__}\n"
