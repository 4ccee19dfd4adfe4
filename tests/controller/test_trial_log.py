"""A trial's log keeps its beginning and its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.controller import trial_log
from bench.controller.trial_log import KEPT_BYTES, TrialLog


def write(path: Path, text: bytes, times: int = 1) -> None:
    with path.open("ab") as file:
        for _ in range(times):
            file.write(text)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trial.log"


def test_a_log_with_room_stays_as_it_is(path: Path) -> None:
    log = TrialLog(path)
    write(path, b"x" * 1000, 20_000)
    log.trim()
    log.finish()
    assert path.stat().st_size == 20_000_000
    assert log.left_out == 0


def test_of_a_long_log_the_first_and_the_last_10_mb_are_kept(path: Path) -> None:
    log = TrialLog(path)
    write(path, b"first\n")
    write(path, b"x" * 999 + b"\n", 50_000)
    write(path, b"last\n")
    log.finish()
    assert log.left_out == 6 + 50_000_000 + 5 - 20_000_000
    content = path.read_bytes()
    assert content.startswith(b"first\n")
    assert content.endswith(b"x\nlast\n")
    note = "\n… spbench: 30,000,011 bytes of output are left out here …\n".encode()
    assert content[KEPT_BYTES : KEPT_BYTES + len(note)] == note
    assert len(content) == 20_000_000 + len(note)


def test_while_ranks_write_the_disk_holds_little_more_than_is_kept(path: Path) -> None:
    log = TrialLog(path)
    for _ in range(10):
        write(path, b"x" * 1000, 10_000)
        log.trim()
    assert path.stat().st_size == 100_000_000
    assert path.stat().st_blocks * 512 < 20_000_000 + (1 << 20) + 16384
    write(path, b"end")
    log.finish()
    assert path.read_bytes().endswith(b"xxxend")
    assert log.left_out == 80_000_003


def test_a_disk_without_holes_is_no_fault(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class WithoutFallocate:
        """A C library of a system that has no holes in files."""

    monkeypatch.setattr(trial_log.ctypes, "CDLL", lambda *_, **__: WithoutFallocate())
    log = TrialLog(path)
    write(path, b"x" * 1000, 30_000)
    log.trim()
    log.finish()
    assert log.left_out == 10_000_000


@pytest.mark.parametrize(
    ("before", "output"),
    [
        (0, 20_000_000),
        (4_000_000, 16_000_000),
        (12_000_000, 10_000_000),  # of this launch the last part alone is left
        (29_000_000, 6_000_000),  # all of this launch is in the last part
    ],
)
def test_what_an_earlier_launch_wrote_is_not_of_this_one(
    path: Path, before: int, output: int
) -> None:
    write(path, b"Q" * 1000, before // 1000)
    log = TrialLog(path)
    write(path, b"Z" * 1000, max(6_000_000, 30_000_000 - before) // 1000)
    log.finish()
    said = log.output()
    assert said.count("Z") == output
    assert "Q" not in said


def test_what_a_launch_wrote_into_a_short_log(path: Path) -> None:
    write(path, b"before\n")
    log = TrialLog(path)
    write(path, b"now \xff\n")
    log.finish()
    assert log.output() == "now \ufffd\n"
