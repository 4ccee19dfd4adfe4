"""The shell launchers, on checkouts, caches and a PATH of their own, with uv and without."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).resolve().parents[1]
LAUNCHERS = ("spbench", "run_sweep.sh", "run_tests.sh", "requirements/bootstrap.sh")
UV = Path(sys.executable).parent / "uv"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with a space in its path, whose one tool is six and whose CLI is an echo.

    Beside it is the PATH on which `launch` runs it: python3 and the system's commands, no uv.
    """
    home = tmp_path / "a checkout"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").symlink_to(Path(sys.executable).resolve())
    for folder in map(Path, ("/usr/local/bin", "/usr/bin", "/bin")):
        for command in folder.glob("*") if folder.is_dir() else ():
            link = tmp_path / "bin" / command.name
            if not re.match(r"uvx?$|python", command.name) and not link.is_symlink():
                link.symlink_to(command)
    for name in (*LAUNCHERS, ".ci/run"):
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


@pytest.fixture(params=["with uv", "without uv"])
def uv(request: pytest.FixtureRequest, checkout: Path) -> None:
    """Put uv on the checkout's PATH, or into its requirements, from which pip installs it."""
    if request.param == "with uv":
        (checkout.parent / "bin" / "uv").symlink_to(UV)
        return
    pin = re.search(r"^uv==.*$", (ROOT / "requirements/tools.txt").read_text(), re.MULTILINE)
    assert pin is not None
    with (checkout / "requirements" / "tools.txt").open("a") as file:
        file.write(f"{pin[0]}\n")


def surroundings(checkout: Path, **environ: str) -> dict[str, str]:
    """The environment variables of a launch; `environ` replaces some."""
    kept = {name: value for name, value in os.environ.items() if name != "TERM"}
    own = {"PATH": str(checkout.parent / "bin"), "SPBENCH_CACHE": str(checkout.parent / "cache")}
    return {**kept, **own, **environ}


def launch(
    checkout: Path,
    *arguments: str,
    command: str | Path = "spbench",
    cwd: Path = ROOT,
    **environ: str,
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [checkout / command, *arguments],
        cwd=cwd,
        env=surroundings(checkout, **environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


def tools(checkout: Path) -> list[str]:
    """What the tools' cache folder holds, locks left out."""
    folder = checkout.parent / "cache" / "tools"
    return [path.name for path in folder.glob("*") if path.suffix != ".lock"]


@pytest.mark.usefixtures("uv")
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

    again = launch(checkout, "a b", "c=*", cwd=here, **foreign)
    assert (again.stdout, again.stderr, again.returncode) == (first.stdout, "", 7)
    assert len(tools(checkout)) == 1


@pytest.mark.parametrize("uv", ["with uv"], indirect=True)
def test_run_sweep_is_spbench_sweep_from_any_folder(
    uv: None, checkout: Path, tmp_path: Path
) -> None:
    link = tmp_path / "link.sh"
    link.symlink_to(checkout / "run_sweep.sh")
    done = launch(checkout, "sp=2,4", command=link, cwd=Path("/"))
    assert done.stdout.endswith("|['spbench', 'sweep', 'sp=2,4']\n"), done.stderr


def test_without_uv_a_missing_pin_is_named(checkout: Path) -> None:
    requirements = checkout / "requirements" / "tools.txt"
    done = launch(checkout)
    assert done.returncode == 2
    assert done.stderr.splitlines()[1:] == [
        f"spbench: no uv on the PATH, and no line uv==VERSION in {requirements}; add one of the two"
    ]
    assert tools(checkout) == []


@pytest.mark.usefixtures("uv")
def test_a_failed_set_up_leaves_nothing_and_says_what_to_do(checkout: Path) -> None:
    requirements = checkout / "requirements" / "tools.txt"
    requirements.write_text(requirements.read_text().replace("six==1.16.0", "six==99"))
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
    done = launch(checkout, PATH=f"{old}:{checkout.parent / 'bin'}")
    assert done.returncode == 2
    assert done.stderr.startswith("spbench: no Python 3.10 or later on the PATH; install one")
    assert tools(checkout) == []


def test_a_cache_that_cannot_be_written_is_named(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = launch(checkout, SPBENCH_CACHE=str(tmp_path / "file"))
    assert done.returncode == 2
    assert f"cannot write {tmp_path / 'file'}/tools" in done.stderr


@pytest.mark.usefixtures("uv")
def test_two_first_starts_at_once_set_up_once(checkout: Path) -> None:
    both = [
        subprocess.Popen(
            [checkout / "spbench"],
            env=surroundings(checkout),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=120) for process in both]
    assert all(out.startswith("1.16.0|") for out, _ in said), said
    assert sum("setting up" in err for _, err in said) == 1


@pytest.fixture
def ci(checkout: Path) -> Path:
    """A checkout whose `run_tests.sh` tells what `.ci/run` gave it, and ends with code 3."""
    (checkout / "run_tests.sh").write_text(
        "#!/usr/bin/env bash\n"
        'printf \'%s\\n\' "$PWD" "$*" "$CI" "$SPBENCH_CACHE"\n'
        'readlink -f "$SPBENCH_CACHE/environments"\n'
        "ls \"$SPBENCH_CACHE\" | grep -v '^bin-' | tr '\\n' ' '; echo\n"
        "python3 -c 'import sys; print(sys.executable)'\n"
        "command -v git && ! command -v uv && exit 3\n"
    )
    return checkout


@pytest.mark.parametrize("beside", ["uv beside the commands", "uv in a folder of its own", "no uv"])
def test_ci_runs_as_a_new_user(ci: Path, tmp_path: Path, beside: str) -> None:
    path = f"{tmp_path / 'bin'}"
    if beside == "uv beside the commands":
        (tmp_path / "bin" / "uv").symlink_to(UV)
    elif beside == "uv in a folder of its own":
        (tmp_path / "own").mkdir()
        (tmp_path / "own" / "uv").symlink_to(UV)
        path = f"{tmp_path / 'own'}:{path}"
    done = launch(ci, "-k", "x y", command=".ci/run", PATH=path)
    folder, arguments, is_ci, cache, environments, held, python, git = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (3, "")
    assert (folder, arguments, is_ci) == (str(ci), "-m  -k x y", "true")
    assert environments == str(tmp_path / "cache" / "environments")
    assert held == "environments "  # no tools: they are made anew
    assert Path(cache).parent == tmp_path / "cache"
    # not by way of the run's own folder, or environments that it makes would end with it
    assert Path(python) == tmp_path / "bin" / "python3"
    assert Path(git).name == "git"
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["environments"]


def test_ci_lends_the_environments_that_the_user_has(ci: Path, tmp_path: Path) -> None:
    (tmp_path / "disk" / "made").mkdir(parents=True)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "environments").symlink_to(tmp_path / "disk")
    done = launch(ci, command=".ci/run")
    assert done.stdout.splitlines()[4] == str(tmp_path / "disk")
    assert (tmp_path / "disk" / "made").is_dir()  # and they outlive the run


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
