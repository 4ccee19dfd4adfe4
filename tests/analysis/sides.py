"""Results folders with two environments and two loss aggregations, for comparisons."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.frame import load
from bench.record import Record, Status
from tests.factories import environment, failed, gradient, ok, worker, write

WORKAROUND = {"environment": "torch-2.2", "loss": "weighted_all_reduce"}
UPGRADE = {"environment": "torch-2.13", "loss": "all_gather"}
BETWEEN = {"environment": "torch-2.13", "loss": "weighted_all_reduce"}
OLD_ALL_GATHER = {"environment": "torch-2.2", "loss": "all_gather"}

VERSIONS = {"torch-2.2": "2.2.2", "torch-2.3": "2.3.1", "torch-2.13": "2.13.0"}
DRIFT = (1.0, 1.3, 0.8)
"""By which all trials of a round are slower."""
TWICE = gradient(verdict="scaled", scale=2.0, scale_label="×2")


def timed(side: dict[str, str], step_s: float, rounds: int = 3, **fields: Any) -> list[Record]:
    """Trials of a side in `rounds` rounds; `step_s` seconds a step where there is no drift."""
    return [
        ok(round=r, step_s=step_s * DRIFT[r % 3], **{**_named(side), **fields})
        for r in range(rounds)
    ]


def broken(side: dict[str, str], rounds: int = 3, **fields: Any) -> list[Record]:
    """The same, but all raise in backward."""
    return [failed(Status.ERROR, round=r, **{**_named(side), **fields}) for r in range(rounds)]


def frame_of(folder: Path, records: Iterable[Record]) -> pd.DataFrame:
    """Write `records` and load them."""
    write(folder, *records)
    return load(folder)


def question(folder: Path) -> pd.DataFrame:
    """The question that spbench was made for, at 512 and 2,048 tokens with sp=2.

    Step times at 512 tokens: workaround 1.0, the same on the new torch 0.8, upgrade 0.5 s; at
    2,048 tokens: 1.0, 1.0, 1.0 s. all_gather raises on the old torch and scales by 2 on the new.
    """
    records = []
    for seq_len, between, upgrade in ((512, 0.8, 0.5), (2048, 1.0, 1.0)):
        records += timed(WORKAROUND, 1.0, seq_len=seq_len)
        records += timed(BETWEEN, between, seq_len=seq_len)
        records += timed(UPGRADE, upgrade, seq_len=seq_len, gradient=TWICE)
        records += broken(OLD_ALL_GATHER, seq_len=seq_len)
    return frame_of(folder, records)


def _named(side: dict[str, str]) -> dict[str, Any]:
    name = side["environment"]
    version = VERSIONS.get(name, "2.13.0")
    return {
        "environment": environment(name, version),
        "worker": worker(version),
        **({"loss": side["loss"]} if "loss" in side else {}),
    }
