"""A forked process of the server that makes what a reference folder lacks, and reports."""

from __future__ import annotations

import os
from pathlib import Path

from bench.record import Wanted
from bench.trial import Configuration
from bench.worker import report, visible_gpus
from bench.worker.process import die_with, redirect_output


def make_reference(
    configuration: Configuration,
    folder: Path,
    check: Wanted,
    log: Path,
    threads: int,
    pipe: int,
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
        line = report.finished(0, {})
    except BaseException as exception:  # noqa: BLE001 (the process's border)
        line = report.raised(0, exception, {"phase": "reference"})
    report.send(pipe, line)
    os._exit(0)
