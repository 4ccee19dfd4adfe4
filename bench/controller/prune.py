"""What the cache no longer needs: ad-hoc environments that others pushed back, old references."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from bench.controller.environments import (
    cache_dir,
    installed,
    key_of,
    known_specs,
    remove,
    remove_leftovers,
)
from bench.controller.interpreter import EnvironmentProblem

DAY_S = 86_400.0


def prune(conf: Path, keep: int, days: float) -> Iterator[str]:
    """Remove what is not needed, and say of each thing what became of it.

    All environments that `conf/environment` does not name go, but the `keep` last used ones and
    those that another process uses; references go that are older than `days`. Both are made
    again when they are needed.
    """
    named = {key_of(spec) for spec in known_specs(conf).values() if spec.python is None}
    ad_hoc = [one for one in installed() if one.key not in named]
    for one in ad_hoc[keep:]:
        try:
            if remove(one.key):
                yield f"{one.spec.name} ({one.versions}): removed"
        except EnvironmentProblem as problem:
            yield str(problem)
    if left := remove_leftovers():
        yield f"{left} half-made or half-removed environments: removed"
    old = [one for one in (cache_dir() / "references").glob("*") if _age_s(one) > days * DAY_S]
    for folder in old:
        shutil.rmtree(folder, ignore_errors=True)  # another may prune at the same time
    yield f"{len(old)} references older than {days:g} days: removed"


def _age_s(folder: Path) -> float:
    """Seconds since something was made in `folder`; 0 where it is gone."""
    try:
        return time.time() - folder.stat().st_mtime
    except FileNotFoundError:
        return 0.0
