"""Torch's flight recorder: what every collective of a rank was doing when the trial hung.

It keeps the last collectives of all process groups, each with its state and Python stack, and
writes them into a file when it is told to through a named pipe. `torchfrtrace` reads the files.
Sources: `DumpPipe` in torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp (from torch 2.3 on),
`DebugInfoWriter` in TraceUtils.h (2.2) and FlightRecorder.cpp (from 2.6 on). Where torch has no
pipe (2.2, and gloo in all versions) a thread of ours answers in its place.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Callable, Iterable, Optional

from bench.record_files import flight_recorder_file

ENTRIES = "2000"
"""Collectives that are kept; newer versions of torch keep as many by themselves."""
_PICKLE_ENDS_WITH = b"."
"""Last byte of every pickle: a file that ends otherwise is still being written."""


def enable(scratch: Path, rank: int, backend: str) -> None:
    """Switch the recorder on and tell it where to write; call it before the process group is made.

    A size that the user chose stays (0: off). For NCCL every variable under its old and its new
    name: torch 2.2 knows only the old ones, of which newer versions complain in the log.
    """
    stem = str(flight_recorder_file(scratch, rank)).removesuffix(str(rank))
    os.environ.setdefault("TORCH_FR_BUFFER_SIZE", ENTRIES)
    os.environ.update(TORCH_FR_DUMP_TEMP_FILE=stem, TORCH_FR_DEBUG_INFO_PIPE_FILE=stem)
    if backend == "nccl":
        os.environ.setdefault("TORCH_NCCL_TRACE_BUFFER_SIZE", os.environ["TORCH_FR_BUFFER_SIZE"])
        os.environ.setdefault("TORCH_NCCL_DUMP_ON_TIMEOUT", "1")  # and not only when it is asked
        os.environ["TORCH_NCCL_DEBUG_INFO_TEMP_FILE"] = stem
        os.environ["TORCH_NCCL_DEBUG_INFO_PIPE_FILE"] = stem


def answer(scratch: Path, rank: int, backend: str) -> None:
    """Answer in torch's place where it opened no pipe; call it once the process group is made."""
    pipe, dump = pipe_of(scratch, rank), _dumper(backend)
    if dump is None or pipe.exists():
        return
    try:
        os.mkfifo(pipe)
    except FileExistsError:  # torch's monitor thread was about to make its own
        return
    target = flight_recorder_file(scratch, rank)
    threading.Thread(target=_listen, args=(pipe, target, dump), daemon=True).start()


def ask(scratch: Path, ranks: Iterable[int], patience_s: float) -> None:
    """Have each of `ranks` that has a pipe write its file; wait for them at most `patience_s`."""
    asked = [flight_recorder_file(scratch, rank) for rank in ranks if _poke(pipe_of(scratch, rank))]
    give_up = time.monotonic() + patience_s
    while time.monotonic() < give_up and not all(map(_is_whole, asked)):
        time.sleep(0.02)


def pipe_of(scratch: Path, rank: int) -> Path:
    """The named pipe of a rank; whatever is written there asks for a dump."""
    return flight_recorder_file(scratch, rank).with_suffix(".pipe")


def _dumper(backend: str) -> Optional[Callable[[], bytes]]:
    """What pickles the recorder's content: one for NCCL, and, in newer versions, one for gloo."""
    from torch._C import _distributed_c10d

    name = "_dump_nccl_trace" if backend == "nccl" else "_dump_fr_trace"
    found: Optional[Callable[[], bytes]] = getattr(_distributed_c10d, name, None)
    return found


def _listen(pipe: Path, target: Path, dump: Callable[[], bytes]) -> None:
    fd = os.open(pipe, os.O_RDWR)  # with a writer of its own it never reads an end
    while os.read(fd, 128):
        partial = target.with_suffix(".partial")
        partial.write_bytes(dump())
        partial.replace(target)


def _poke(pipe: Path) -> bool:
    """Write to a rank's pipe; False where there is none, or nobody reads it."""
    try:
        fd = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        os.write(fd, b"dump\n")
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def _is_whole(file: Path) -> bool:
    return file.is_file() and file.read_bytes()[-1:] == _PICKLE_ENDS_WITH
