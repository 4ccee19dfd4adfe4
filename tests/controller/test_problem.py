"""The controller's own trouble ends a sweep in one line, is no trial's result, and is resumed."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import typer
from nbformat.v4 import new_markdown_cell, new_notebook

from analysis import report
from bench import cli
from bench.cli_errors import one_line
from bench.controller import environments
from bench.controller import hosts as hosts_module
from bench.controller.interpreter import EnvironmentProblem
from bench.controller.problem import ControllerProblem, own_files, require_log, require_writable
from bench.record import Record
from bench.record_files import RecordWriter, read_records
from bench.trial import Trial
from tests.conftest import ROOT
from tests.controller import fake_server
from tests.controller.fake_hosts import FakeHosts
from tests.factories import ok

SWEEP = ("sweep", "+experiment=single", "environment=torch-2.13", "gradient_check=off")
RESUMES = "then the same command resumes"

Sweep = Callable[..., tuple[int, str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "results"


@pytest.fixture
def sweep(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Sweep:
    """Run a sweep of servers without torch; gives its exit code and what it said on stderr."""
    made = fake_server.interpreter(tmp_path / "fake")
    monkeypatch.setattr(environments, "provide", lambda spec, report: made)

    def run(*overrides: str) -> tuple[int, str]:
        arguments = ["spbench", *SWEEP, f"results={folder}", "report=false", *overrides]
        monkeypatch.setattr(sys, "argv", arguments)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), capsys.readouterr().err

    return run


def records(folder: Path) -> list[object]:
    return [raw.content["status"] for raw in read_records(folder)]


def problem(said: str, file: Path, cause: str) -> bool:
    """Whether `said` is one line about `file` that names the cause and says what to do."""
    [line] = said.splitlines()
    return line.startswith(f"spbench: {file}: {cause}: ") and line.endswith(RESUMES)


def test_logs_that_are_no_folder(sweep: Sweep, folder: Path) -> None:
    folder.mkdir()
    (folder / "logs").touch()
    code, said = sweep("rounds=2")
    assert code == 3
    assert problem(said, folder / "logs", "File exists")
    assert records(folder) == []
    (folder / "logs").unlink()
    assert sweep("rounds=2") == (0, "")
    assert records(folder) == ["ok", "ok"]


def test_one_log_that_cannot_be_written(sweep: Sweep, folder: Path) -> None:
    """The trial before has its record, and the one after is not begun."""
    assert sweep("rounds=1") == (0, "")
    [record] = read_records(folder)
    record.path.unlink()
    blocked = folder / str(record.content["log"]).replace("-r0", "-r1")
    blocked.mkdir()
    code, said = sweep("rounds=3")
    assert code == 3
    assert problem(said, blocked, "Is a directory")
    assert records(folder) == ["ok"]
    blocked.rmdir()
    assert sweep("rounds=3") == (0, "")
    assert {raw.content["round"] for raw in read_records(folder)} == {0, 1, 2}


@pytest.mark.parametrize(
    "name",
    [".claims", f"records-{socket.gethostname()}-{os.getpid()}.jsonl"],
    ids=["claims", "records"],
)
def test_files_of_the_folder_that_are_in_the_way(sweep: Sweep, folder: Path, name: str) -> None:
    (folder / name).mkdir(parents=True)
    code, said = sweep("rounds=1")
    assert code == 3
    assert problem(said, folder / name, "Is a directory")
    (folder / name).rmdir()
    assert sweep("rounds=1") == (0, "")
    assert records(folder) == ["ok"]


@pytest.fixture
def during(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Trial], None]], None]:
    """Have something happen while each trial runs."""

    def set_up(happen: Callable[[Trial], None]) -> None:
        def outcome(trial: Trial, record: Record) -> Record:
            happen(trial)
            return record

        monkeypatch.setattr(hosts_module, "Hosts", FakeHosts(outcome))

    return set_up


def test_a_full_disk(sweep: Sweep, folder: Path, during: Callable[..., None]) -> None:
    path = RecordWriter(folder).path

    def fill(trial: Trial) -> None:
        path.symlink_to("/dev/full")

    during(fill)
    code, said = sweep("rounds=2")
    path.unlink()
    assert code == 3
    assert problem(said, path, "No space left on device")
    assert "free some space" in said


@pytest.mark.parametrize("round_", [0, 1])
def test_a_results_folder_that_is_removed(
    sweep: Sweep, folder: Path, during: Callable[..., None], round_: int
) -> None:
    def remove(trial: Trial) -> None:
        if trial.round == round_:
            shutil.rmtree(folder)

    during(remove)
    code, said = sweep("rounds=3")
    assert code == 3
    [line] = said.splitlines()
    assert line.startswith(f"spbench: {folder}/") and line.endswith(RESUMES)
    assert not folder.exists()


def test_a_report_that_cannot_be_written(
    sweep: Sweep, folder: Path, during: Callable[..., None]
) -> None:
    during(lambda trial: (folder / "report.html").mkdir(exist_ok=True))
    code, said = sweep("rounds=1", "report=true")
    assert code == 3
    [line] = said.splitlines()
    assert line.startswith(f"spbench: {folder / 'report.html'}: Is a directory: ")
    assert f"`spbench report {folder}`" in line
    assert records(folder) == ["ok"]


def test_a_machine_that_has_no_disk_for_an_environment(
    sweep: Sweep, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `env.keep` environments are made while the sweep runs."""

    def full(spec: object, report: object) -> None:
        raise EnvironmentProblem("the disk is full; free some space", "machine")

    monkeypatch.setattr(environments, "provide", full)
    assert sweep("rounds=2", "env.keep=1") == (3, "spbench: the disk is full; free some space\n")
    assert records(folder) == []


LIMITED = """
import resource, sys
from pathlib import Path
from bench.record_files import RecordWriter
from tests.factories import ok
writer = RecordWriter(Path(sys.argv[1]))
writer.append(ok())
size = writer.path.stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, -1))
try:
    writer.append(ok(round=1))
except OSError as error:
    print(error.errno, error.filename == str(writer.path), writer.path.stat().st_size == size)
resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
writer.append(ok(round=2))
"""


def test_of_a_record_that_does_not_fit_nothing_is_left(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == f"{errno.EFBIG} True True\n", done.stderr
    assert [raw.content["round"] for raw in read_records(tmp_path)] == [0, 2]


def test_a_removed_file_gets_no_record(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path)
    writer.append(ok())
    writer.path.unlink()
    with pytest.raises(FileNotFoundError, match="it was removed"):
        writer.append(ok(round=1))
    writer.close()


def test_what_can_be_written_is_left_as_it_was(tmp_path: Path) -> None:
    require_writable(tmp_path / "logs")
    assert list((tmp_path / "logs").iterdir()) == []
    (tmp_path / "logs" / "a.log").write_text("said")
    require_log(tmp_path / "logs" / "a.log")
    assert (tmp_path / "logs" / "a.log").read_text() == "said"


def test_that_nobody_reads_on_is_no_trouble() -> None:
    with pytest.raises(BrokenPipeError), own_files(Path("here")):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")
    said = "here: Input/output error: see to that"
    with pytest.raises(ControllerProblem, match=said), own_files(Path("here")):
        raise OSError(errno.EIO, "Input/output error")


def test_a_disk_that_is_read_only(tmp_path: Path) -> None:
    """Whether the folder is there or would have to be made: no fault of its name."""
    disk = tmp_path / "disk"
    disk.mkdir()
    refused = f"spbench: {disk}: Read-only file system: make it writable, or choose another"
    for folder in (disk, disk / "new"):
        done = with_a_disk(
            disk, "ro", [sys.executable, "-m", "bench.cli", *SWEEP, f"results={folder}"]
        )
        assert (done.returncode, done.stdout) == (3, "")
        assert done.stderr == f"{refused} with results=FOLDER\n"


@pytest.mark.parametrize(
    ("number", "code"), [(errno.ENOSPC, 3), (errno.EACCES, 3), (errno.EIO, 3), (errno.EPIPE, None)]
)
def test_what_the_system_refuses_is_no_traceback(
    capsys: pytest.CaptureFixture[str], number: int, code: int | None
) -> None:
    """But that nobody reads on is typer's to tell."""
    refused = OSError(number, os.strerror(number), "here")
    with pytest.raises((typer.Exit, BrokenPipeError)) as ended, one_line():
        raise refused
    assert getattr(ended.value, "exit_code", None) == code
    said = capsys.readouterr().err
    assert said.count("\n") == (code is not None)
    assert said.startswith("spbench: here: " if code else "")


@pytest.mark.parametrize(
    "verb",
    [("export", "{results}", "-o"), ("baseline", "write"), ("report", "{results}", "-o")],
    ids=lambda verb: verb[0],
)
def test_an_output_that_does_not_fit(
    verb: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    titled = new_notebook(cells=[new_markdown_cell("# of no kernel")])
    monkeypatch.setattr(report, "execute_all", lambda folder, names, across: [titled] * len(names))
    writer = RecordWriter(tmp_path)
    writer.append(ok())
    writer.close()
    arguments = [part.format(results=tmp_path) for part in verb]
    arguments += ["/dev/full"] + ([str(tmp_path)] if verb[0] == "baseline" else [])
    monkeypatch.setattr(sys, "argv", ["spbench", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    again = "then run the same command again"
    said = f"spbench: /dev/full: No space left on device: free some space, {again}\n"
    assert (ended.value.code, capsys.readouterr().err) == (3, said)


def with_a_disk(
    disk: Path, options: str, command: Sequence[object]
) -> subprocess.CompletedProcess[str]:
    """Run `command` with a disk of its own mounted at `disk`; skips where nobody may do that."""
    mount = f"mount -t tmpfs -o {options} none {disk}"
    alone = ["unshare", "--map-root-user", "--mount", "sh", "-ec"]
    if subprocess.run([*alone, mount], capture_output=True, check=False).returncode:
        pytest.skip("no disk of one's own without privileges")
    return subprocess.run(
        [*alone, f'{mount}; exec "$@"', "sh", *map(str, command)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


ON_A_SMALL_DISK = """
import sys
from pathlib import Path
from bench.controller.hosts import Hosts
from bench.controller.problem import ControllerProblem
from bench.trial import Trial
from tests.conftest import configure
from tests.controller import fake_server
results, fake = map(Path, sys.argv[1:])
made = fake_server.interpreter(fake, "run fill")
trial = Trial(configuration=configure(gradient_check="off"), round=0)
with Hosts(lambda spec: made) as hosts:
    for _ in range(2):
        try:
            print(hosts.run(trial, results).status.value)
        except ControllerProblem as problem:
            print(problem)
    for log in (results / "logs").iterdir():
        log.unlink()
    print(hosts.run(trial, results).status.value)
"""


def test_a_trial_that_failed_on_a_full_disk_has_no_record(tmp_path: Path) -> None:
    """Nor is one begun there; with room again it runs."""
    disk = tmp_path / "disk"
    disk.mkdir()
    run = [sys.executable, "-c", ON_A_SMALL_DISK, disk, tmp_path / "fake"]
    done = with_a_disk(disk, "size=200k", run)
    full = f"No space left on device: free some space, {RESUMES}"
    said = [f"{disk}: {full}", f"{disk / 'logs'}: {full}", "ok"]
    assert done.stdout.splitlines() == said, done.stderr
