"""Memory snapshots of CUDA's caching allocator, for https://pytorch.org/memory_viz.

Kept beside the log, one a rank: on demand with the history of allocations, and always when
memory runs out, then with what was allocated at that moment.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import Iterator

import torch

from bench.worker.rank import Rank

_MAX_EVENTS = 100_000


@contextmanager
def kept(rank: Rank, wanted: bool) -> Iterator[None]:
    """Keep a snapshot of what happens inside: if `wanted`, or if memory runs out.

    The file's name goes into the record's rows. On CPU there is no allocator to ask.

    Raises:
        ValueError: `wanted` on CPU.
    """
    if rank.device.type != "cuda":
        if wanted:
            raise ValueError(
                "options.memory_snapshot=true: only the CUDA allocator keeps snapshots; "
                "allowed on CPU: false"
            )
        yield
        return
    if wanted:
        # frames of C++ cost time at every allocation, and minutes to be named at the end
        torch.cuda.memory._record_memory_history(max_entries=_MAX_EVENTS, stacks="python")
    try:
        yield
    except torch.cuda.OutOfMemoryError:
        _dump(rank, "out of memory")
        raise
    if wanted:
        _dump(rank, "on demand")


def _dump(rank: Rank, why: str) -> None:
    path = rank.request.log.with_suffix(f".memory-{rank.index}.pickle")
    torch.cuda.memory._dump_snapshot(str(path))
    rank.row(memory_snapshot=path.name, why=why)
