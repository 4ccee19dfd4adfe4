"""How finished ranks part: none leaves while another may still need it, rank 0 goes last.

What a rank has computed says nothing of its peers: they may still receive what it sent, or ask
the store, which rank 0 serves. The ranks meet in that store and not in a collective, which would
need the very connections that are about to go.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

_ALL_DONE = "spbench/all ranks are done"
_ALL_LEFT = "spbench/all ranks but rank 0 have left"


def leave_together(store: Any, rank: int, world: int, patience: timedelta) -> None:
    """Return when this rank may end its process: all are done, and rank 0 is the last.

    `store` is the `torch.distributed.Store` that the ranks met in. Raises what the store raises
    when a peer is missing for longer than `patience`, or the store is gone.
    """
    _count(store, _ALL_DONE, world)
    store.wait([_ALL_DONE], patience)
    if rank != 0:
        _count(store, _ALL_LEFT, world - 1)
    elif world > 1:
        store.wait([_ALL_LEFT], patience)


def _count(store: Any, key: str, goal: int) -> None:
    """Add one; whoever makes the goal sets the key that the others wait for."""
    if store.add(f"{key}: count", 1) == goal:
        store.set(key, "yes")
