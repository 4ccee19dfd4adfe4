"""Who uses an environment, as other processes see it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.controller import leases

ROOT = Path(__file__).resolve().parents[2]
USER = """
import sys, pathlib
from bench.controller import leases
print(leases.take(pathlib.Path(sys.argv[1]), print), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "environment"
    folder.mkdir()
    return folder


def test_nobody_is_alone_while_another_process_uses_it(place: Path) -> None:
    user = subprocess.Popen(
        [sys.executable, "-c", USER, str(place)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert user.stdout is not None
    assert user.stdout.readline() == "True\n"
    with leases.alone(place) as unused:
        assert not unused
    user.kill()  # no farewell: the system frees the lock
    user.communicate()
    with leases.alone(place) as unused:
        assert unused


def test_ones_own_use_is_given_back(place: Path) -> None:
    assert leases.take(place, print)
    assert leases.take(place, print)
    with leases.alone(place) as unused:
        assert unused


def test_what_is_gone_cannot_be_taken(place: Path) -> None:
    assert leases.take(place, print)
    place.rename(place.with_name("elsewhere"))
    assert not leases.take(place, print)
    place.mkdir()
    assert leases.take(place, print)  # another folder of the same name
    leases.give_back(place)
