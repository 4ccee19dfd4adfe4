"""The shell launchers, on checkouts and caches of their own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).resolve().parents[1]
LAUNCHERS = ("spbench", "run_sweep.sh", "run_tests.sh", "requirements/bootstrap.sh")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with a space in its path, whose one tool is six and whose CLI is an echo."""
    home = tmp_path / "a checkout"
    for name in LAUNCHERS:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, home / name)
    (home / "requirements" / "tools.txt").write_text("six==1.16.0\n")
    (home / "bench").mkdir()
    (home / "bench" / "__init__.py").touch()
    (home / "bench" / "cli.py").write_text(
        "import os, sys, six\n"
        "def main():\n"
        "    print(six.__version__, os.getcwd(), os.environ['PYTHONPATH'], sys.argv, sep='|')\n"
        "    return 7\n"
    )
    return home


def launch(
    checkout: Path, *arguments: str, command: str = "spbench", cwd: Path = ROOT, **environ: str
) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name != "TERM"}
    environment = {**kept, "SPBENCH_CACHE": str(checkout.parent / "cache"), **environ}
    return subprocess.run(
        [checkout / command, *arguments],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


def tools(checkout: Path) -> list[str]:
    """What the tools' cache folder holds, locks left out."""
    folder = checkout.parent / "cache" / "tools"
    return [path.name for path in folder.glob("*") if path.suffix != ".lock"]


def test_sets_itself_up_once_and_keeps_folder_arguments_and_exit_code(
    checkout: Path, tmp_path: Path
) -> None:
    here = tmp_path / "here"
    (here / "bench").mkdir(parents=True)
    (here / "bench" / "__init__.py").write_text("raise SystemExit('not this one')")
    foreign = {"PYTHONPATH": "/nowhere", "VIRTUAL_ENV": "/nowhere"}

    first = launch(checkout, "a b", "c=*", cwd=here, **foreign)
    assert "setting up the tools" in first.stderr
    assert first.stdout == f"1.16.0|{here}|{checkout}|['spbench', 'a b', 'c=*']\n"
    assert first.returncode == 7

    start = time.perf_counter()
    again = launch(checkout, "a b", "c=*", cwd=here, **foreign)
    assert time.perf_counter() - start < 1
    assert (again.stdout, again.stderr, again.returncode) == (first.stdout, "", 7)
    assert len(tools(checkout)) == 1


def test_run_sweep_is_spbench_sweep_from_any_folder(checkout: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.sh"
    link.symlink_to(checkout / "run_sweep.sh")
    done = launch(tmp_path, "sp=2,4", command="link.sh", cwd=Path("/"))
    assert done.stdout.endswith("|['spbench', 'sweep', 'sp=2,4']\n"), done.stderr


def test_without_uv_pip_installs_it(checkout: Path) -> None:
    version = re.search(r"^uv==.*$", (ROOT / "requirements/tools.txt").read_text(), re.MULTILINE)
    assert version is not None
    requirements = checkout / "requirements" / "tools.txt"
    requirements.write_text(f"six==1.16.0\n{version[0]}\n")
    done = launch(checkout, PATH=f"{only(checkout, sys.executable)}:/usr/bin:/bin")
    assert done.stdout.startswith("1.16.0|"), done.stderr


def only(checkout: Path, python: str) -> Path:
    """A folder with a `python3` in it and nothing else."""
    folder = checkout.parent / "bin"
    folder.mkdir()
    (folder / "python3").write_text(f'#!/bin/sh\nexec "{python}" "$@"\n')
    (folder / "python3").chmod(0o755)
    return folder


def test_a_failed_set_up_leaves_nothing_and_says_what_to_do(checkout: Path) -> None:
    (checkout / "requirements" / "tools.txt").write_text("six==99\n")
    done = launch(checkout)
    assert done.returncode == 2
    assert "six==99" in done.stderr
    assert "could not install the tools" in done.stderr
    assert tools(checkout) == []


def test_too_old_a_python_is_refused(checkout: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    for name in ("python", "python3", *(f"python3.{minor}" for minor in range(10, 15))):
        (old / name).write_text("#!/bin/sh\nexit 0\n")  # as Python 3.9 answers: nothing printed
        (old / name).chmod(0o755)
    done = launch(checkout, PATH=f"{old}:{os.environ['PATH']}")
    assert done.returncode == 2
    assert done.stderr.startswith("spbench: no Python 3.10 or later on the PATH; install one")
    assert tools(checkout) == []


def test_a_cache_that_cannot_be_written_is_named(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = launch(checkout, SPBENCH_CACHE=str(tmp_path / "file"))
    assert done.returncode == 2
    assert f"cannot write {tmp_path / 'file'}/tools" in done.stderr


def test_two_first_starts_at_once_set_up_once(checkout: Path) -> None:
    environ = {**os.environ, "SPBENCH_CACHE": str(checkout.parent / "cache")}
    both = [
        subprocess.Popen(
            [checkout / "spbench"],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=120) for process in both]
    assert all(out.startswith("1.16.0|") for out, _ in said), said
    assert sum("setting up" in err for _, err in said) == 1


def test_project_metadata_and_requirements_agree() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        declared = tomllib.load(file)["project"]["dependencies"]
    lines = (ROOT / "requirements/tools.in").read_text().splitlines()
    assert declared == [line for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("name", ["tools", "dev"])
def test_pins_name_versions_only(name: str) -> None:
    lines = (ROOT / f"requirements/{name}.txt").read_text().splitlines()
    assert len(lines) > 20
    assert [line for line in lines if not re.match(r"[a-z0-9-]+==[0-9.a-z]+( ; .*)?$", line)] == []


@pytest.mark.parametrize("name", [*LAUNCHERS, ".ci/run", "requirements/compile"])
def test_shell_scripts_parse(name: str) -> None:
    assert subprocess.run(["bash", "-n", ROOT / name], check=False).returncode == 0
