"""What the rows of the self-check run on: one interpreter, the machine, and its servers."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Optional

import yaml

from bench.controller.config import CONF
from bench.controller.environments import provide
from bench.controller.hosts import Hosts, say
from bench.controller.sweep import Launcher
from bench.record import Record, Status
from bench.trial import CommSpec, Configuration, EnvironmentSpec, Limits, ModelSpec, Trial

SMALL = ModelSpec(name="selfcheck", layers=2, hidden=64, heads=8, kv_heads=4, ffn=96, vocab=64)
LIMITS = Limits(timeout_s=240.0, hang_s=60.0)
SMALL_BUCKETS = {"zero_optimization": {"reduce_bucket_size": 1_000_000}}
"""Where memory is limited: DeepSpeed's default bucket has 2 GB."""

Servers = Callable[[], contextlib.AbstractContextManager[Launcher]]
SketchScale = Callable[[Path, Path], Optional[float]]
"""Paths of a candidate's and a baseline's sketch to the factor between their gradients."""


class RowFailed(Exception):
    """A trial that a row needs did not end as it must; the message says how it ended."""


class Stand:
    """Launches trials of one interpreter, on as many GPUs as its torch can use."""

    def __init__(
        self,
        python: Path,
        gpus: tuple[str, ...],
        folder: Path,
        launcher: Launcher,
        sketch_scale: SketchScale,
        servers: Servers = lambda: Hosts(provide),
    ) -> None:
        """`gpus` are the names of those that this interpreter's torch can use.

        `servers` makes launchers besides `launcher`, whose servers start anew.
        """
        self.python, self.gpus, self.folder = python, gpus, folder
        self.sketch_scale = sketch_scale
        self._launcher, self._servers = launcher, servers
        self._known: dict[str, Record] = {}
        self._environment = EnvironmentSpec(name="selfcheck", python=str(python))

    @property
    def on_gpu(self) -> bool:
        """Whether trials run on a GPU."""
        return bool(self.gpus)

    def comm(self, world: int) -> CommSpec:
        """NCCL where there is a GPU, shared if need be; else torch's NCCL code on gloo."""
        if not self.on_gpu:
            return CommSpec(name="nccl_over_gloo")
        return CommSpec(name="nccl", oversubscribe=world > len(self.gpus))

    def configuration(self, world: int = 1, **fields: Any) -> Configuration:
        """A small step; `fields` replace what it says."""
        values: dict[str, Any] = {
            "environment": self._environment,
            "model": SMALL,
            "comm": self.comm(world),
            "world": world,
            "sp": 2 if world > 1 else 1,
            "attention": "ulysses" if world > 1 else "local",
            "loss": "local",
            "seq_len": 64,
            "warmup_steps": 1,
            "steps": 1,
            "limits": LIMITS,
        }
        return Configuration(**{**values, **fields})

    def launch(self, world: int = 1, **fields: Any) -> Record:
        """Run one trial; whatever happens, there is a record."""
        trial = Trial(configuration=self.configuration(world, **fields), round=0)
        return self._launcher.run(trial, self.folder, say)

    def ok(self, world: int = 1, **fields: Any) -> Record:
        """The record of a trial that must end `ok`; one configuration runs once.

        Raises:
            RowFailed: it did not.
        """
        key = self.configuration(world, **fields).hash
        if key not in self._known:
            self._known[key] = self.launch(world, **fields)
        record = self._known[key]
        if record.status is not Status.OK:
            raise RowFailed(f"{record.status.value}: {record.reason}")
        return record

    def log_of(self, record: Record) -> str:
        """What the ranks of a trial printed."""
        return "" if record.log is None else (self.folder / record.log).read_text(errors="replace")

    @contextlib.contextmanager
    def elsewhere(self, change: Mapping[str, Optional[str]]) -> Iterator[Stand]:
        """A stand whose server starts with other environment variables; None unsets one."""
        before = {name: os.environ.get(name) for name in change}
        _set(change)
        try:
            with self._servers() as launcher:
                yield Stand(self.python, self.gpus, self.folder, launcher, self.sketch_scale)
        finally:
            _set(before)


def preset(name: str) -> ModelSpec:
    """A model of conf/model."""
    return ModelSpec(**yaml.safe_load((CONF / "model" / f"{name}.yaml").read_text()))


def _set(variables: Mapping[str, Optional[str]]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
