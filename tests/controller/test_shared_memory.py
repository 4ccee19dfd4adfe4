"""What ranks leave in shared memory goes; what is another program's stays."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.controller.shared_memory import noted, remove_nccl_segments


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("torch_{pid}_1804289383_0", True),
        ("pym-{pid}-abc", True),
        ("part-{pid}", False),  # of a data set, by chance
        ("torch_1{pid}_1_0", False),
    ],
)
def test_whose_a_file_is_by_its_name(tmp_path: Path, name: str, made: bool) -> None:
    pid = os.getpid()
    path = segment(name.format(pid=pid))
    try:
        assert (path in noted(tmp_path, [pid])) is made
    finally:
        path.unlink()


MAPS = """
import mmap, os, sys
with open(sys.argv[1], "r+b") as file:
    mapped = mmap.mmap(file.fileno(), 0)
print("mapped", flush=True)
sys.stdin.readline()
"""


def segment(name: str) -> Path:
    path = Path("/dev/shm") / name
    path.write_bytes(bytes(4096))
    return path


@pytest.fixture
def segments() -> Iterator[dict[str, Path]]:
    """Files as NCCL makes them, in the real folder."""
    names = ("left", "older", "used")
    made = {name: segment(f"nccl-{os.getpid()}{name}") for name in names}
    os.utime(made["older"], (1000, 1000))
    yield made
    for path in made.values():
        path.unlink(missing_ok=True)


def test_only_segments_of_this_trial_that_nobody_maps_are_removed(
    segments: dict[str, Path],
) -> None:
    other = segment(f"not-nccl-{os.getpid()}")
    began = time.time() - 60
    with subprocess.Popen(
        [sys.executable, "-c", MAPS, str(segments["used"])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as another:
        assert another.stdin is not None and another.stdout is not None
        another.stdout.readline()
        removed = remove_nccl_segments(began)
        assert segments["left"] in removed
        assert not segments["left"].exists()
        assert segments["older"].exists()
        assert segments["used"].exists()
        another.stdin.close()
    assert segments["used"] in remove_nccl_segments(began)
    assert not segments["used"].exists()
    assert segments["older"].exists()
    assert other.exists()
    other.unlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of other users")
def test_another_users_segment_stays(segments: dict[str, Path]) -> None:
    os.chown(segments["left"], 12345, 12345)
    assert segments["left"] not in remove_nccl_segments(time.time() - 60)
    assert segments["left"].exists()


HIDDEN_USER = 12345
PR_SET_DUMPABLE = 4


def hides_what_it_maps(path: Path) -> int:
    """Start a process that maps `path` and that its own user may not trace; its pid."""
    ready, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
            mapped[0] = 1
            ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0)
            os.write(told, b".")
            time.sleep(60)
        os._exit(0)
    os.read(ready, 1)
    return pid


def what_hiding_does() -> list[bool]:
    """Whether an unused segment is removed beside a process that hides, and after it ended."""
    if os.geteuid() == 0:  # who may see everything
        os.setgid(HIDDEN_USER)
        os.setuid(HIDDEN_USER)
    used, left = segment(f"nccl-{os.getpid()}used"), segment(f"nccl-{os.getpid()}left")
    began = time.time() - 60
    hidden = hides_what_it_maps(used)
    found = [left in remove_nccl_segments(began)]
    os.kill(hidden, signal.SIGKILL)
    os.waitpid(hidden, 0)
    removed = remove_nccl_segments(began)
    return [*found, left in removed, used in removed, left.exists() or used.exists()]


def test_a_process_that_hides_what_it_maps_may_map_a_segment() -> None:
    answer, told = os.pipe()
    pid = os.fork()  # a user other than root cannot become root again
    if pid == 0:
        try:
            os.write(told, repr(what_hiding_does()).encode())
        finally:
            os._exit(0)
    os.close(told)
    os.waitpid(pid, 0)
    assert os.read(answer, 1000) == b"[False, True, True, False]"


def test_without_segments_no_process_is_looked_at(tmp_path: Path) -> None:
    assert remove_nccl_segments(0.0, tmp_path) == []
