"""A scenario whose rank `options.rank` returns, raises or does what nobody expects.

`options.what` names it: see `ACTS`. A server offers this scenario once it has imported this file.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any, Callable, Dict

from bench.worker import scenarios
from bench.worker.rank import Rank

if str(Path(__file__).parent) not in scenarios.__path__:
    scenarios.__path__.append(str(Path(__file__).parent))


class Mute(Exception):
    """Its text cannot be had."""

    def __str__(self) -> str:
        raise ValueError("no text")


def run(rank: Rank) -> Any:
    """What was asked for on one rank; nothing on the others."""
    options = rank.configuration.options
    return ACTS[options["what"]](rank) if rank.index == options["rank"] else {}


def _raise(exception: BaseException) -> Any:
    raise exception


def _itself() -> Any:
    inside: Dict[str, Any] = {}
    inside["details"] = inside
    return inside


def _samples(rank: Rank, step_s: float) -> Any:
    times = {"warmup_s": [], "step_s": [step_s], "phases_s": {}, "losses": [None]}
    return {"samples": {"rank": rank.index, **times}}


def _row_of_bytes(rank: Rank) -> Any:
    Path(rank.request.scratch, f"rows-{rank.index}.jsonl").write_bytes(b"\xff\xfe\n")
    return {}


def _nonsense(_: Rank) -> Any:
    """Whatever pipe this process holds gets lines that are no report."""
    for held in Path("/proc/self/fd").iterdir():
        if int(held.name) > 2 and os.path.realpath(held).rpartition("/")[2].startswith("pipe:"):
            with contextlib.suppress(OSError):
                os.write(int(held.name), b'{"outcome": []}\n\xff\n')
    return {}


ACTS: Dict[str, Callable[[Rank], Any]] = {
    "None": lambda _: None,
    "list": lambda _: [1, {"a": None}],
    "set": lambda _: {"details": {"a": {1}}},
    "itself": lambda _: _itself(),
    "unknown part": lambda _: {"detials": {}},
    "samples of text": lambda _: {"samples": "quick"},
    "no time at all": lambda rank: _samples(rank, 1e-226),
    "gradient without a verdict": lambda _: {"gradient": {"scale": 1.0}},
    "large number": lambda _: {"details": {"n": 10**40}},
    "undecodable": lambda _: _raise(RuntimeError(os.fsdecode(b"\xff"))),
    "mute": lambda _: _raise(Mute()),
    "phase cut inside a character": lambda rank: rank.enter("x" + "é" * 30) or {},
    "phase of bytes": lambda rank: rank.enter(b"\xff"),
    "row of bytes": _row_of_bytes,
    "nameless signal": lambda _: os.kill(os.getpid(), 40),
    "nonsense": _nonsense,
    "leaves": lambda _: os._exit(0),
}
