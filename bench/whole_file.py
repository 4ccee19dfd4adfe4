"""Files that appear whole or not at all: a full disk leaves what was there before."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import Iterator, Optional

OF_THE_NAME = frozenset(
    {
        errno.EEXIST,
        errno.EINVAL,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOENT,
        errno.ENOTDIR,
    }
)
"""Errors by which the system says that there can be no such file: another name is needed."""


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Where to write what becomes `path` when the block ends without an exception.

    That is a file beside it, of the same ending, which takes the place, and the permissions, of a
    file that is there. A device or a pipe is written itself.

    Raises:
        OSError: that names `path`, whatever could not be written.
    """
    try:
        target = path.resolve()  # a link stays one
        mode = _mode(target)
        if mode is not None and stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if mode is not None and not stat.S_ISREG(mode):
            yield path
            return
        partial = target.with_name(f".partial-{os.getpid()}{target.suffix}")
        try:
            yield partial
            if mode is not None:
                partial.chmod(stat.S_IMODE(mode))
            partial.replace(target)
        finally:
            with contextlib.suppress(OSError):
                partial.unlink()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def _mode(path: Path) -> Optional[int]:
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None
