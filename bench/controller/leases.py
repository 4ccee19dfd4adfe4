"""Who uses which environment: a lock on its folder, which the system frees with the process.

Every process that was given an environment holds a shared lock on the folder until it ends;
whoever removes one needs the lock for itself. The lock is on the folder and not on a file
beside it, so that an environment that was replaced by another of its name is told apart.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.controller import locks

_held: dict[Path, int] = {}


def take(place: Path, tell: Callable[[str], None]) -> bool:
    """Mark `place` as used by this process; False when it was removed meanwhile.

    While another removes it, `tell` is told who, as by `bench.controller.locks.wait_for`.
    """
    if place in _held and locks.is_still(place, _held[place]):
        return True
    give_back(place)
    try:
        folder = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return False
    try:
        locks.wait_for(folder, fcntl.LOCK_SH, tell)
    except BaseException:  # a Ctrl-C
        os.close(folder)
        raise
    if not locks.is_still(place, folder):
        os.close(folder)
        return False
    _held[place] = folder
    return True


def give_back(place: Path) -> None:
    """This process uses `place` no longer."""
    if place in _held:
        os.close(_held.pop(place))


@contextmanager
def alone(place: Path) -> Iterator[bool]:
    """Whether nobody uses `place`, this process aside; while it lasts, nobody begins to."""
    give_back(place)
    folder = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield locks.try_lock(folder, fcntl.LOCK_EX)
    finally:
        os.close(folder)
