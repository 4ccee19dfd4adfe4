"""What `spbench env prune` removes, and what it leaves."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.controller import build, environments, prune
from bench.trial import EnvironmentSpec

HOLDER = """
import fcntl, os, sys
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def make(name: str, used: float) -> Path:
    """An environment as `installed` sees it, without packages, last used at `used`."""
    spec = EnvironmentSpec(name=name, torch="1.0", deepspeed=name)
    place = environments.cache_dir() / "environments" / environments.key_of(spec)
    (place / "bin").mkdir(parents=True)
    (place / "bin" / "python").symlink_to("/bin/sh")
    described = f'{{"spec": {spec.model_dump_json()}, "python": "3", "torch": "1", '
    (place / build.SPEC_FILE).write_text(described + '"deepspeed": "1", "size_bytes": 1}')
    os.utime(place / build.SPEC_FILE, (used, used))
    return place


def test_leftovers_go_unless_somebody_is_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPBENCH_CACHE", str(tmp_path))
    folder = tmp_path / "environments"
    for name in ("dead.partial-1", "busy.partial-2"):
        (folder / name / "lib").mkdir(parents=True)
    builder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder / "busy.lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert builder.stdout is not None
    assert builder.stdout.readline() == b"held\n"
    assert environments.remove_leftovers() == 1
    builder.kill()
    builder.communicate()
    assert [path.name for path in folder.glob("*.partial-*")] == ["busy.partial-2"]
    assert environments.remove_leftovers() == 1


def test_the_last_used_and_the_named_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPBENCH_CACHE", str(tmp_path))
    named = EnvironmentSpec(name="named", torch="1.0", deepspeed="named")
    monkeypatch.setattr(prune, "known_specs", lambda conf: {"named": named})
    places = {name: make(name, 1000.0 + i) for i, name in enumerate(("named", "a", "b", "c"))}
    now = time.time()
    for name, age in (("old", 31), ("new", 29)):
        folder = tmp_path / "references" / name
        folder.mkdir(parents=True)
        os.utime(folder, (now - age * 86_400,) * 2)

    said = list(prune.prune(tmp_path, keep=1, days=30))

    assert {name for name, place in places.items() if place.exists()} == {"named", "c"}
    assert [line.partition(" ")[0] for line in said] == ["b", "a", "1"]
    assert [path.name for path in (tmp_path / "references").iterdir()] == ["new"]
