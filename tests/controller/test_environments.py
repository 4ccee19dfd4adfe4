"""Environments: their names, their building, and what is said when they cannot be had."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.controller import build, environments, uv
from bench.controller.environments import EnvironmentProblem
from bench.trial import EnvironmentSpec

ROOT = Path(__file__).resolve().parents[2]
SPEC = EnvironmentSpec(name="small", torch="2.2.2", deepspeed="0.18.2")

# Builds the environment SPEC, but of one tiny package in place of torch and DeepSpeed.
BUILDER = """
import sys
from bench.controller import build, environments
from bench.trial import EnvironmentSpec
build.requirements = lambda spec: [sys.argv[1]]
environments.key_of = lambda spec: "0123456789abcdef"
build.require_disk = lambda spec, folder: None
environments.provide(
    EnvironmentSpec(name="small", torch="2.2.2", deepspeed="0.18.2"),
    lambda line: print(line, flush=True),
)
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own."""
    monkeypatch.setenv("SPBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real uv, but six (11 kB) in place of torch and DeepSpeed."""
    monkeypatch.setattr(build, "requirements", lambda spec: ["six==1.16.0"])
    monkeypatch.setattr(build, "require_disk", lambda spec, folder: None)


def builder(requirement: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BUILDER, requirement],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def places(cache: Path) -> list[str]:
    """What is in the cache's folder of environments, locks left out."""
    folder = cache / "environments"
    return sorted(path.name for path in folder.glob("*") if path.suffix != ".lock")


def test_the_label_is_no_part_of_the_key() -> None:
    assert environments.key_of(SPEC) == environments.key_of(SPEC.model_copy(update={"name": "b"}))


@pytest.mark.parametrize(
    "change",
    [
        {"torch": "2.3.1"},
        {"deepspeed": "0.18.3"},
        {"requirements": ("numpy<2",)},
        {"python_version": "3.11"},
        {"torch_backend": "cpu"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_all_else_is(change: dict[str, object]) -> None:
    changed = EnvironmentSpec.model_validate({**SPEC.model_dump(), **change})
    assert environments.key_of(changed) != environments.key_of(SPEC)


def test_shipped_environments_are_what_the_readme_says() -> None:
    specs = environments.known_specs(ROOT / "conf")
    versions = {name: (one.torch, one.deepspeed) for name, one in specs.items() if not one.python}
    assert versions == {
        "torch-2.2": ("2.2.2", "0.18.2"),
        "torch-2.3": ("2.3.1", "0.18.2"),
        "torch-2.13": ("2.13.0", "0.18.2"),
        "torch-latest": ("2.15.0", "0.19.8"),
    }
    assert {name: one.name for name, one in specs.items()} == {name: name for name in specs}
    assert specs["current"].python == "current"


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "environment").mkdir()
    (tmp_path / "environment" / "mine.yaml").write_text("name: mine\ntorch: '2.2.2'\n")
    with pytest.raises(EnvironmentProblem, match=r"mine\.yaml.*needs both"):
        environments.known_specs(tmp_path)


@pytest.mark.usefixtures("tiny")
def test_builds_uses_and_removes_an_environment(cache: Path) -> None:
    said: list[str] = []
    assert environments.status(SPEC).state == "missing"

    interpreter = environments.provide(SPEC, said.append)

    key = environments.key_of(SPEC)
    assert interpreter.python == cache / "environments" / key / "bin" / "python"
    assert interpreter.extensions.is_dir()
    where = "import six, sys; print(six.__version__, sys.prefix)"
    shown = subprocess.run([interpreter.python, "-c", where], capture_output=True, text=True)
    assert shown.stdout.split() == ["1.16.0", str(cache / "environments" / key)]
    site = next(interpreter.python.parents[1].glob("lib/python*/site-packages"))
    assert list(site.glob("__pycache__/six.*.pyc")), "bytecode was not compiled"
    packages = interpreter.python.parents[1] / "packages.txt"
    assert packages.read_text() == "six==1.16.0\n"
    assert any("installing six==1.16.0" in line for line in said)
    assert any(line.startswith("Installed 1 package") for line in said)

    status = environments.status(SPEC)
    assert status.state == "ready"
    assert status.size_bytes is not None
    assert 11_000 < status.size_bytes < 5_000_000
    assert [one.key for one in environments.installed()] == [key]
    said.clear()
    environments.provide(SPEC, said.append)
    assert said == []

    assert environments.remove(key) is True
    assert places(cache) == []
    assert environments.remove(key) is False


@pytest.mark.usefixtures("tiny")
def test_an_environment_whose_base_python_is_gone_is_built_again() -> None:
    python = environments.provide(SPEC).python
    python.unlink()
    python.symlink_to("/nonexistent/python3")
    assert environments.status(SPEC).state == "missing"
    python = environments.provide(SPEC).python
    assert subprocess.run([python, "-c", "import six"], check=False).returncode == 0


def test_a_version_that_does_not_exist_is_named(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "require_disk", lambda spec, folder: None)
    spec = EnvironmentSpec(name="wrong", torch="2.99.7", deepspeed="0.18.2")
    with pytest.raises(EnvironmentProblem) as caught:
        environments.provide(spec)
    message = str(caught.value)
    assert message.startswith("environment 'wrong': no such version")
    assert "torch==2.99.7" in message
    assert places(cache) == []


def test_no_suitable_python_is_said(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "require_disk", lambda spec, folder: None)
    spec = SPEC.model_copy(update={"python_version": ">=3.99"})
    with pytest.raises(EnvironmentProblem, match=r"no suitable Python.*python_version"):
        environments.provide(spec)
    assert places(cache) == []


@pytest.mark.usefixtures("tiny")
def test_an_unreachable_index_is_said(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("UV_NO_CACHE", "1")
    with pytest.raises(EnvironmentProblem, match="index cannot be reached"):
        environments.provide(SPEC)
    assert places(cache) == []


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        (
            "error: failed to copy file\n  cause: No space left on device (os error 28)",
            "disk is full",
        ),
        ("error: Failed to parse: `numpy<<2`", "not in pip's syntax"),
        (
            "error: Failed to build `x==1`\n  cause: The build backend returned an error",
            "from source",
        ),
        ("error: something new", "exit code 3"),
    ],
    ids=["disk", "syntax", "build", "unknown"],
)
def test_uvs_complaints_in_words(said: str, cause: str) -> None:
    message = uv.explain("mine", ["Using Python 3.11.7", *said.splitlines()], 3)
    assert cause in message
    assert message.splitlines()[1] == f"  uv: {said.splitlines()[0]}"
    assert "Using Python" not in message


def test_too_little_disk_is_said_before_anything_is_made(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_FIND_LINKS", "")
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("", (), {"free": 2_000_000_000})())
    with pytest.raises(EnvironmentProblem, match=r"needs about 8\.0 GB.* has 2\.0 GB free"):
        environments.provide(SPEC)
    assert places(cache) == []
    build.require_disk(SPEC.model_copy(update={"torch_backend": "cpu"}), cache)  # 1.5 GB will do


def test_a_local_cpu_wheel_needs_little_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("", (), {"free": 2_000_000_000})())
    (tmp_path / "torch-2.2.2+cpu-cp311-cp311-linux_x86_64.whl").touch()
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path))
    build.require_disk(SPEC, tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "killed"])
def test_an_interrupted_build_is_never_taken_for_a_whole_one(
    cache: Path, number: signal.Signals, tmp_path: Path
) -> None:
    # A package whose build never ends, so that the signal comes in the middle of it.
    source = tmp_path / "endless"
    source.mkdir()
    (source / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "endless"\nbackend-path = ["."]\n'
        '[project]\nname = "endless"\nversion = "1"\n'
    )
    (source / "endless.py").write_text(
        f"import os, time\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n"
        "time.sleep(100)\n"
    )
    process = builder(f"endless @ file://{source}")
    wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "")
    process.send_signal(number)
    process.communicate(timeout=60)

    assert not environments.installed()
    if number == signal.SIGINT:
        assert places(cache) == []
        backend = int((tmp_path / "pid").read_text())
        wait_for(lambda: not Path(f"/proc/{backend}/cwd").exists())
    else:
        assert [name.rpartition("-")[0] for name in places(cache)] == ["0123456789abcdef.partial"]
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    after = builder("six==1.16.0")  # neither lock nor leftover is in the way
    assert after.communicate(timeout=60)[1] == ""
    assert after.returncode == 0
    assert places(cache) == ["0123456789abcdef"]  # the whole one, no leftover


def test_two_at_once_build_once(cache: Path) -> None:
    both = [builder("six==1.16.0") for _ in range(2)]
    printed = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum("installing six" in text for text in printed) == 1
    assert len(places(cache)) == 1


def test_an_interpreter_without_torch_is_refused() -> None:
    spec = EnvironmentSpec(name="own", python=sys.executable)
    with pytest.raises(EnvironmentProblem, match="has no torch and no deepspeed; install"):
        environments.provide(spec)
    assert environments.status(spec).state == "unusable"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.mkdir(), "is a folder; give the path of a Python executable"),
        (lambda path: path.write_text("text"), "is not executable"),
        (
            lambda path: (path.write_text("#!/bin/sh\necho hello >&2\nexit 3"), path.chmod(0o755)),
            "does not work: hello",
        ),
        (lambda path: (path.write_bytes(b"\x7fELF"), path.chmod(0o755)), "does not start"),
    ],
    ids=["absent", "folder", "not executable", "no python", "no program"],
)
def test_what_is_no_interpreter_is_refused(make, message: str, tmp_path: Path) -> None:
    python = tmp_path / "python"
    make(python)
    with pytest.raises(EnvironmentProblem, match=message) as caught:
        environments.provide(EnvironmentSpec(name="own", python=str(python)))
    assert str(python) in str(caught.value)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """The user's own virtual environment, whose metadata says that it has torch and DeepSpeed."""
    home = tmp_path / "own"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    site = next(home.glob("lib/python*/site-packages"))
    for name, version in (("torch", "2.4.1"), ("deepspeed", "0.16.9")):
        folder = site / f"{name}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
    return home


def test_the_users_interpreter_is_used_unresolved_and_untouched(own: Path, cache: Path) -> None:
    before = sorted(str(path) for path in own.rglob("*"))
    spec = EnvironmentSpec(name="own", python=str(own / "bin" / "python"))
    interpreter = environments.provide(spec)
    assert interpreter.python == own / "bin" / "python"
    assert cache in interpreter.extensions.parents
    assert cache in interpreter.preload.parents
    assert sorted(str(path) for path in own.rglob("*")) == before
    said = environments.status(spec).versions
    assert said.startswith("torch 2.4.1, deepspeed 0.16.9, python 3.")


def test_a_virtual_environment_given_as_interpreter_is_told_its_python(own: Path) -> None:
    with pytest.raises(EnvironmentProblem) as caught:
        environments.provide(EnvironmentSpec(name="own", python=str(own)))
    assert str(caught.value) == (
        f"environment.python={own} is a folder; give the path of {own}/bin/python"
    )


def test_a_source_tree_of_deepspeed_needs_no_metadata(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lies on the path by a `.pth` file, on the user's PYTHONPATH, or nowhere."""
    site = next(own.glob("lib/python*/site-packages"))
    shutil.rmtree(site / "deepspeed-0.16.9.dist-info")
    tree = tmp_path / "DeepSpeed"
    (tree / "deepspeed").mkdir(parents=True)
    (tree / "deepspeed" / "__init__.py").write_text("raise SystemExit('a probe imports nothing')")
    spec = EnvironmentSpec(name="own", python=str(own / "bin" / "python"))
    monkeypatch.chdir(tree)  # where a worker does not look
    with pytest.raises(EnvironmentProblem, match="has no deepspeed; install"):
        environments.provide(spec)
    monkeypatch.setenv("SPBENCH_USER_PYTHONPATH", f"{os.pathsep}../DeepSpeed")
    said = environments.status(spec)
    assert (said.state, said.versions.split(", python")[0]) == (
        "ready",
        "torch 2.4.1, deepspeed unknown",
    )
    monkeypatch.delenv("SPBENCH_USER_PYTHONPATH")
    (site / "source.pth").write_text(f"{tree}\n")
    assert environments.status(spec).state == "ready"


def test_current_is_the_active_virtual_environment(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIRTUAL_ENV", str(own))
    spec = EnvironmentSpec(name="current", python="current")
    assert environments.provide(spec).python == own / "bin" / "python"


def test_current_without_one_is_the_first_python_on_the_path(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    monkeypatch.setenv("PATH", f"{own / 'bin'}{os.pathsep}{os.environ['PATH']}")
    spec = EnvironmentSpec(name="current", python="current")
    assert environments.provide(spec).python == own / "bin" / "python3"


def test_a_check_tells_why_an_import_fails(own: Path) -> None:
    interpreter = environments.provide(
        EnvironmentSpec(name="own", python=str(own / "bin" / "python"))
    )
    with pytest.raises(EnvironmentProblem, match="No module named 'torch'"):
        environments.check(interpreter)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"PIP_FIND_LINKS": "/a /b"}, "/a,/b"),
        ({"PIP_FIND_LINKS": "/a", "UV_FIND_LINKS": "/c"}, "/c"),
    ],
    ids=["neither", "pip's", "uv's own"],
)
def test_find_links(environ: dict[str, str], expected: str | None) -> None:
    assert uv.find_links(environ) == expected


@pytest.mark.environment
def test_a_shipped_environment_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPBENCH_CACHE")
    spec = environments.known_specs(ROOT / "conf")["torch-2.2"]
    found = environments.check(environments.provide(spec))
    assert found.torch.split("+")[0] == "2.2.2"
    assert found.deepspeed == "0.18.2"
    assert found.numpy_bridge is None


def wait_for(condition, timeout_s: float = 20.0) -> None:
    """Poll until `condition()` holds."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
