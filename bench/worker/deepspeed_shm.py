"""DeepSpeed's shared-memory all-reduce for CPU: compiled and loaded by the server, never by a rank.

Left to itself it compiles at first use, in every rank, behind torch's build lock, a file that a
killed rank leaves behind for all later processes to wait for. Loaded before the fork, no rank
ever looks at that lock; and servers build one at a time behind a lock that the kernel releases.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from deepspeed.accelerator import get_accelerator


def build_and_load() -> None:
    """Compile the op into this environment's `TORCH_EXTENSIONS_DIR`, if need be, and load it.

    Raises:
        RuntimeError: this DeepSpeed has no such op, or it does not compile here.
    """
    builder = get_accelerator().create_op_builder("ShareMemCommBuilder")
    if builder is None:
        raise RuntimeError(
            "comm.deepspeed_shm=true, but this DeepSpeed has no shared-memory op for CPU"
        )
    folder = Path(os.environ["TORCH_EXTENSIONS_DIR"])
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "spbench.lock").open("w") as ours:
        fcntl.flock(ours, fcntl.LOCK_EX)
        for left in folder.rglob("lock"):  # torch's; whoever made it is gone, since we hold ours
            left.unlink()
        builder.load()
