"""Environments: each is one interpreter with one torch and one DeepSpeed.

spbench makes them with uv in the user's cache directory, in folders named by a hash of what
they must contain, so that all clones share them:

    <cache>/environments/<key>/      bin/python, spec.json, packages.txt, extensions/, preload.json
                                     and on-the-fly where a sweep with env.keep made it
    <cache>/environments/<key>.lock  held while the environment is built or removed
    <cache>/interpreters/<key>/      extensions/ and preload.json of an interpreter of the user's

An interpreter that the user already has is never written to.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from bench.controller import build, leases, locks
from bench.controller.interpreter import (
    Check,
    EnvironmentProblem,
    Interpreter,
    Versions,
    check,
    locate,
    require_complete,
)
from bench.controller.uv import Report
from bench.trial import EnvironmentSpec

__all__ = [
    "Check",
    "EnvironmentProblem",
    "EnvironmentStatus",
    "Interpreter",
    "cache_dir",
    "check",
    "installed",
    "key_of",
    "known_specs",
    "mark_on_the_fly",
    "provide",
    "remove",
    "remove_leftovers",
    "status",
]


ON_THE_FLY_FILE = "on-the-fly"


@dataclass(frozen=True)
class EnvironmentStatus:
    """What is known of an environment without importing anything in it."""

    spec: EnvironmentSpec
    """As it was asked for; of one found in the cache, as it was when it was built."""
    key: str
    """Names its folder in the cache; `remove` takes it."""
    state: Literal["ready", "missing", "unusable"]
    """`missing`: `provide` would build it; `unusable`: see `note`."""
    note: str = ""
    python: Path | None = None
    versions: str = ""
    """Versions found, such as `torch 2.2.2, deepspeed 0.18.2, python 3.11.7`."""
    size_bytes: int | None = None
    """Bytes of its files when built; uv may share them with its cache by hard links."""
    last_used: datetime | None = None
    """UTC."""
    on_the_fly: bool = False
    """Whether a sweep made it for as long as there is room: see `bench.controller.pool`."""


def cache_dir() -> Path:
    """spbench's folder in the user's cache directory, or `$SPBENCH_CACHE`."""
    chosen = os.environ.get("SPBENCH_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("spbench", appauthor=False))


def key_of(spec: EnvironmentSpec) -> str:
    """Hash of what the environment must contain and where it must run; the label is no part."""
    content = spec.model_dump(mode="json", exclude={"name", "python"})
    content["requirements"] = sorted(build.requirements(spec))
    content["platform"] = [sys.platform, platform.machine()]
    return _digest(content)


def provide(spec: EnvironmentSpec, report: Report = locks.say) -> Interpreter:
    """The interpreter of `spec`; made with uv when it is not there (minutes, gigabytes).

    `report` gets one line at a time about what is under way. Raises `EnvironmentProblem`
    before anything is launched: no disk, no network, no such version, an interpreter that
    lacks torch or DeepSpeed.
    """
    if spec.python is not None:
        return _given(spec)
    place = _place(key_of(spec))
    while not (_is_ready(place) and leases.take(place, _waiting(spec.name, report))):
        _build_once(spec, place, report)
    now = time.time_ns()  # the kernel's own stamp is milliseconds coarse
    os.utime(place / build.SPEC_FILE, ns=(now, now))  # when it was last used
    extensions = place / "extensions"
    extensions.mkdir(exist_ok=True)
    return Interpreter(spec, place / "bin" / "python", extensions, place / "preload.json")


def status(spec: EnvironmentSpec) -> EnvironmentStatus:
    """Whether the environment is there; builds nothing and raises nothing."""
    if spec.python is None:
        key = key_of(spec)
        place = _place(key)
        if not _is_ready(place):
            return EnvironmentStatus(spec, key, "missing")
        return _read(place, spec)
    try:
        python = locate(spec.python)
        versions = require_complete(python)
    except EnvironmentProblem as problem:
        return EnvironmentStatus(spec, "", "unusable", note=str(problem))
    said = _versions_text(versions.torch, versions.deepspeed, _dotted(versions))
    return EnvironmentStatus(spec, "", "ready", python=python, versions=said)


def installed() -> list[EnvironmentStatus]:
    """All environments in the cache, the last used first."""
    found = [place for place in (cache_dir() / "environments").glob("*") if _is_ready(place)]
    statuses = [_read(place) for place in found]
    return sorted(statuses, key=lambda one: str(one.last_used), reverse=True)


def mark_on_the_fly(spec: EnvironmentSpec) -> None:
    """Say of a ready environment that whoever needs the room may remove it."""
    (_place(key_of(spec)) / ON_THE_FLY_FILE).touch()


def remove(key: str, report: Report = locks.say) -> bool:
    """Remove the environment `key` from the cache; False when it is not there.

    Raises `EnvironmentProblem` when another process uses it.
    """
    place = _place(key)
    if not place.is_dir():
        return False
    with _locked(place, key, report):
        if place.is_dir():
            with leases.alone(place) as unused:
                if not unused:
                    raise EnvironmentProblem(
                        f"environment {key} is in use by another process; remove it after that",
                        "machine",
                    )
                build.discard(place)
    return True


def remove_leftovers() -> int:
    """Remove what builds and removals that were killed left; returns how many there were."""
    removed = 0
    for left in (cache_dir() / "environments").glob("*.partial-*"):
        lock = Path(f"{_place(left.name.partition('.')[0])}.lock")
        with locks.held(lock, tell=None) as nobody_is_at_work:
            if nobody_is_at_work:
                shutil.rmtree(left, ignore_errors=True)
                removed += 1
    return removed


def known_specs(conf_dir: Path) -> dict[str, EnvironmentSpec]:
    """The environments that `conf_dir/environment/*.yaml` define, by file name.

    Raises `EnvironmentProblem` that names the file when one is not valid.
    """
    import yaml
    from pydantic import ValidationError

    specs = {}
    for path in sorted((conf_dir / "environment").glob("*.yaml")):
        try:
            content = yaml.safe_load(path.read_text())
            specs[path.stem] = EnvironmentSpec.model_validate(content)
        except yaml.YAMLError as error:
            raise EnvironmentProblem(f"{path} is not valid YAML: {error}") from error
        except ValidationError as error:
            faults = [": ".join([*map(str, one["loc"]), one["msg"]]) for one in error.errors()]
            raise EnvironmentProblem(
                f"{path} defines no environment: {'; '.join(faults)} "
                f"(keys: {', '.join(EnvironmentSpec.model_fields)})"
            ) from error
    return specs


def _given(spec: EnvironmentSpec) -> Interpreter:
    """The user's own interpreter, checked and untouched."""
    assert spec.python is not None
    python = locate(spec.python)
    versions = require_complete(python)
    content = {
        "python": str(python),
        "modified": python.stat().st_mtime_ns,
        "versions": [versions.python, versions.torch, versions.deepspeed],
    }
    place = cache_dir() / "interpreters" / _digest(content)
    extensions = place / "extensions"
    extensions.mkdir(parents=True, exist_ok=True)
    return Interpreter(spec, python, extensions, place / "preload.json")


def _build_once(spec: EnvironmentSpec, place: Path, report: Report) -> None:
    """Build at `place` unless another process does: then wait for it."""
    with _locked(place, spec.name, report):
        if _is_ready(place):
            return
        start = time.monotonic()
        report(
            f"environment '{spec.name}': installing {', '.join(build.requirements(spec))} "
            "(once; this takes minutes)"
        )
        build.build(spec, place, report)
        report(f"environment '{spec.name}': ready after {time.monotonic() - start:.0f} s")


@contextmanager
def _locked(place: Path, name: str, report: Report) -> Iterator[None]:
    """Hold the lock of the environment `name` at `place`."""
    lock = Path(f"{place}.lock")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(lock, os.O_RDWR | os.O_CREAT, 0o644))
    except OSError as error:
        raise EnvironmentProblem(
            f"the cache {place.parent} cannot be written ({error.strerror}); make it writable, "
            "or set SPBENCH_CACHE to a folder that is",
            "machine",
        ) from error
    with locks.held(lock, _waiting(name, report)):
        yield


def _waiting(name: str, report: Report) -> Report:
    """Reports who has the environment `name` that is waited for."""
    return lambda holder: report(f"spbench: waiting for environment {name}, held by {holder}")


def _place(key: str) -> Path:
    return cache_dir() / "environments" / key


def _is_ready(place: Path) -> bool:
    """Whether a whole environment is there whose base interpreter still exists."""
    python = place / "bin" / "python"
    return os.access(python, os.X_OK) and (place / build.SPEC_FILE).is_file()


def _read(place: Path, spec: EnvironmentSpec | None = None) -> EnvironmentStatus:
    """The status of a ready environment, from its `spec.json`."""
    path = place / build.SPEC_FILE
    content: dict[str, Any] = json.loads(path.read_text())
    return EnvironmentStatus(
        spec=spec or EnvironmentSpec.model_validate(content["spec"]),
        key=place.name,
        state="ready",
        python=place / "bin" / "python",
        versions=_versions_text(content["torch"], content["deepspeed"], content["python"]),
        size_bytes=content["size_bytes"],
        last_used=datetime.fromtimestamp(path.stat().st_mtime, timezone.utc),
        on_the_fly=(place / ON_THE_FLY_FILE).exists(),
    )


def _versions_text(torch: str | None, deepspeed: str | None, python: str) -> str:
    return f"torch {torch}, deepspeed {deepspeed}, python {python}"


def _dotted(versions: Versions) -> str:
    return ".".join(map(str, versions.python))


def _digest(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
