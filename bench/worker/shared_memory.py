"""Notes which files a rank makes in `/dev/shm`: one that is killed, or forgets, leaves them there.

Seen is what Python code opens, or maps, as `multiprocessing.shared_memory` does. What libraries
make by themselves is found by the controller (`bench.controller.shared_memory`).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Optional, Set, Tuple

_FOLDER = "/dev/shm/"


def watch(note: Path) -> None:
    """Write the names of such files into `note`, from now on and as long as this process lives."""
    fd = os.open(note, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    seen: Set[str] = set()

    def hook(event: str, arguments: Tuple[Any, ...]) -> None:
        if event == "open":
            name = _made(arguments)
        elif event == "mmap.__new__":
            name = _mapped(arguments)
        else:
            return
        if name is not None and name not in seen:
            seen.add(name)
            os.write(fd, os.fsencode(name) + b"\n")

    sys.addaudithook(hook)


def _made(arguments: Tuple[Any, ...]) -> Optional[str]:
    """The file that `open(path, mode, flags)` makes, where it is one in shared memory."""
    path, _, flags = arguments
    if not isinstance(path, (str, bytes)) or not isinstance(flags, int) or not flags & os.O_CREAT:
        return None
    name = os.fsdecode(path)
    return name if name.startswith(_FOLDER) else None


def _mapped(arguments: Tuple[Any, ...]) -> Optional[str]:
    """The file that `mmap(fd, …)` maps, where it is one in shared memory."""
    if arguments[0] == -1:  # anonymous memory
        return None
    try:
        name = str(Path(f"/proc/self/fd/{arguments[0]}").readlink())
    except OSError:
        return None
    return name if name.startswith(_FOLDER) else None
