"""A file is written whole, or what was there before stays."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.whole_file import whole_file

LIMIT = 1000


@pytest.fixture
def small_disk() -> Iterator[None]:
    """No file of this process may have more than `LIMIT` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def write(path: Path, text: str) -> None:
    with whole_file(path) as partial:
        partial.write_text(text)


@pytest.mark.parametrize("before", [None, "before"])
@pytest.mark.usefixtures("small_disk")
def test_nothing_half_is_left_of_what_does_not_fit(tmp_path: Path, before: str | None) -> None:
    path = tmp_path / "report.html"
    if before is not None:
        path.write_text(before)
    with pytest.raises(OSError, match="File too large") as caught:
        write(path, "x" * (LIMIT + 1))
    assert caught.value.errno == errno.EFBIG
    assert caught.value.filename == str(path)
    assert (path.read_text() if path.exists() else None) == before
    assert len(list(tmp_path.iterdir())) == (before is not None)


def test_it_replaces_a_file_and_keeps_its_permissions(tmp_path: Path) -> None:
    path, link = tmp_path / "a.txt", tmp_path / "link.txt"
    write(path, "first")
    path.chmod(0o640)
    link.symlink_to(path)
    write(link, "second")
    assert link.is_symlink() and path.read_text() == "second"
    assert path.stat().st_mode & 0o777 == 0o640
    assert sorted(tmp_path.iterdir()) == [path, link]


def test_an_error_of_the_writer_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UnicodeEncodeError):
        write(tmp_path / "a", "half" + chr(0xD800))
    assert list(tmp_path.iterdir()) == []


def test_a_device_is_written_itself() -> None:
    write(Path("/dev/null"), "text")
    assert Path("/dev/null").is_char_device()
    with pytest.raises(OSError, match="No space left") as caught:
        write(Path("/dev/full"), "text")
    assert caught.value.filename == "/dev/full"


@pytest.mark.parametrize(
    ("name", "number"), [("folder", errno.EISDIR), (f"none{os.sep}a", errno.ENOENT)]
)
def test_where_no_file_can_be(tmp_path: Path, name: str, number: int) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=name) as caught:
        write(tmp_path / name, "text")
    assert caught.value.errno == number
