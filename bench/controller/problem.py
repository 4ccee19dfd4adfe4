"""What keeps the controller itself from going on, and never is a trial's result.

Files of the results folder that cannot be written, a full disk, a folder that was removed: the
sweep ends at once, in one line, with exit code `EXIT_CODE`; no trial gets a record of it, and the
same command resumes.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

EXIT_CODE = 3
_PROBE = b"\0" * (64 << 10)
"""More than what the records and the log of a short trial take."""

_REMEDIES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EACCES: "make it writable",
    errno.EPERM: "make it writable",
    errno.EROFS: "make it writable",
    errno.EEXIST: "move away what is there in place of a folder",
    errno.ENOTDIR: "move away what is there in place of a folder",
    errno.EISDIR: "move away the folder that is there in place of a file",
    errno.ENOENT: "leave it where it is while a sweep runs",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENFILE: "raise the limit on open files (fs.file-max)",
    errno.EAGAIN: "raise the limit on processes (ulimit -u)",
    errno.ENOMEM: "free some memory",
}
AGAIN = "then the same command resumes"


class ControllerProblem(Exception):
    """The controller cannot go on; the message names the file, the cause and what to do."""

    @classmethod
    def of(cls, error: OSError, path: Path | None, again: str = AGAIN) -> ControllerProblem:
        """What `error` at `path`, where it names no file itself, means. `again`: what then."""
        file = error.filename if isinstance(error.filename, str) else path
        place = "" if file is None else f"{file}: "
        cause = error.strerror or str(error) or type(error).__name__
        remedy = _REMEDIES.get(error.errno or 0, "see to that")
        return cls(f"{place}{cause}: {remedy}, {again}")


@contextmanager
def own_files(path: Path, again: str = AGAIN) -> Iterator[None]:
    """Whatever the system refuses in here is the controller's own trouble, at `path`.

    Not that nobody reads what the controller prints.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ControllerProblem.of(error, path, again) from error


def require_writable(folder: Path) -> None:
    """Make `folder` if need be, and see that some bytes can be written there; leaves no file.

    Raises `ControllerProblem`.
    """
    with own_files(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryFile(dir=folder, prefix=".probe-", buffering=0) as probe:
            probe.write(_PROBE)
    except OSError as error:
        error.filename = None  # that of the probe says nothing
        raise ControllerProblem.of(error, folder) from error


def require_log(log: Path) -> None:
    """See that ranks and servers can append to `log`. Raises `ControllerProblem`."""
    require_writable(log.parent)
    with own_files(log):
        os.close(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644))
