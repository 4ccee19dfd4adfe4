"""A forked process of the server that makes what a reference folder lacks, and reports."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Dict

from bench.record import Wanted
from bench.trial import Configuration
from bench.worker import visible_gpus
from bench.worker.process import describe, die_with, redirect_output, send


def make_reference(
    configuration: Configuration,
    folder: Path,
    check: Wanted,
    log: Path,
    threads: int,
    report: int,
    server: int,
) -> None:
    """Make what `check` needs of a reference in this forked process and end it; never returns."""
    visible_gpus.restore()
    die_with(server)
    os.setsid()
    redirect_output(log)
    try:
        import torch

        from bench.worker import reference

        torch.set_num_threads(threads)
        reference.create(folder, configuration, check)
        message: Dict[str, Any] = {"outcome": "finished"}
    except BaseException as exception:  # noqa: BLE001 (the process's border)
        message = {"outcome": "raised", "error": describe(exception)}
    send(report, json.dumps({"rank": 0, **message}))
    os._exit(0)
