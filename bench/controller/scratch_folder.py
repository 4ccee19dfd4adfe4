"""Scratch folders of servers and their ranks, of which none outlives its process for long."""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import tempfile
from pathlib import Path

import psutil

_PREFIX = "spbench-"
_folders: set[Path] = set()


def make() -> Path:
    """A folder of this process; those of dead processes are removed on the way."""
    base = Path(tempfile.gettempdir())
    for stale in base.glob(f"{_PREFIX}*-*"):
        owner = stale.name.removeprefix(_PREFIX).split("-")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(stale, ignore_errors=True)
    scratch = base / f"{_PREFIX}{os.getpid()}-{secrets.token_hex(8)}"
    _folders.add(scratch)  # first: Ctrl-C may come at any moment
    scratch.mkdir(mode=0o700)
    return scratch


def remove(scratch: Path) -> None:
    """Remove a folder that `make` made."""
    shutil.rmtree(scratch, ignore_errors=True)
    _folders.discard(scratch)


@atexit.register
def _remove_forgotten() -> None:
    """Remove the folders of servers that an interruption let nobody close."""
    for scratch in list(_folders):
        remove(scratch)
