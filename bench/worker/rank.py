"""One rank as a scenario sees it: its configuration, its device, and its signs of life."""

from __future__ import annotations

import json
import mmap
import os
import struct
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Callable, Dict, Mapping, Optional

from bench.plain import plain, plain_text, shown
from bench.record import GradientMode
from bench.record_files import rows_file
from bench.rows import RowsWriter
from bench.trial import Configuration
from bench.worker import flight_recorder

VARIABLES = ("NCCL_", "TORCH_", "PYTORCH_", "CUDA_", "DS_")
"""Prefixes of the environment variables that a record keeps."""
_MOST_CHARACTERS = 500
_PHASE_BYTES = 20
HEARTBEAT = struct.Struct(f"<Qi{_PHASE_BYTES}s")
"""Progress of a rank in shared memory: a counter, the step (-1: none), the phase's name."""
COLLECTIVES_GIVE_UP = timedelta(hours=6)
"""How long ranks wait for each other: far beyond any deadline, since the host owns time."""


@dataclass(frozen=True)
class Request:
    """What the server tells a rank about its trial."""

    configuration: Configuration
    scratch: Path
    """Folder of this trial for stacks; removed afterwards."""
    log: Path
    reference: Path
    store_port: int
    threads: int
    check: GradientMode
    """How the first step's gradient is compared."""
    check_reason: Optional[str] = None
    """Why it is not compared although a comparison was asked for."""


@dataclass
class Rank:
    """What a scenario sees of the rank it runs on."""

    index: int
    request: Request
    heartbeat: mmap.mmap
    device: Any = None  # torch.device; torch is not imported here
    phase: str = "setup"
    step: Optional[int] = None
    shared_bytes: int = 0
    """Anonymous memory that this process had from the server when it was forked."""
    observed: Dict[str, Any] = field(default_factory=dict)
    """What this rank saw of its surroundings, for the record: see `bench.controller.outcome`."""
    _beats: int = field(default=0, repr=False)
    _rows: Optional[RowsWriter] = field(default=None, repr=False)

    @property
    def configuration(self) -> Configuration:
        """What is measured."""
        return self.request.configuration

    @property
    def reference(self) -> Path:
        """Folder of the exact reference and of the initial weights."""
        return self.request.reference

    def enter(self, phase: str, step: Optional[int] = None) -> None:
        """Say where this rank is: for the record if it fails, and as a sign of life.

        Raises TypeError where `phase` is no text, struct.error where `step` is no number of one.
        """
        if not isinstance(phase, str):
            raise TypeError(f"a rank's phase must be text, not {shown(phase)}")
        name = plain_text(phase).encode()[:_PHASE_BYTES]  # may end inside a character
        beat = HEARTBEAT.pack(self._beats + 1, -1 if step is None else step, name)
        self.phase, self.step = phase, step
        self._beats += 1
        start = self.index * HEARTBEAT.size
        self.heartbeat[start : start + HEARTBEAT.size] = beat

    def beat(self) -> None:
        """A sign of life in a long phase: a parameter, a layer or a bucket is done."""
        self.enter(self.phase, self.step)

    def row(self, **fields: Any) -> None:
        """Note a finding for `details["rows"]` of the record; it outlives this rank.

        The rank's index is added. Of more than twice `bench.rows.KEPT_BYTES`, those in the middle
        are left out, and the record says how many. Raises `bench.plain.Unwritable` where `fields`
        are no JSON.
        """
        if self._rows is None:
            self._rows = RowsWriter(rows_file(self.request.scratch, self.index))
        self._rows.append(json.dumps(plain({"rank": self.index, **fields})).encode())

    def entering(self, step: int) -> Callable[[str], None]:
        """`enter` for the phases of one step."""
        return lambda phase: self.enter(phase, step)


def join(rank: Rank, make_store: Callable[[], Any]) -> None:
    """Threads, device, process group: everything before the scenario.

    `make_store` gives the `torch.distributed.Store` that the ranks meet in.
    """
    import torch
    import torch.distributed as dist

    from bench.worker import nccl_settings, precision, sdpa

    c, world = rank.configuration, rank.configuration.world
    os.environ.update(
        RANK=str(rank.index),
        LOCAL_RANK=str(rank.index),
        WORLD_SIZE=str(world),
        LOCAL_WORLD_SIZE=str(world),
        LOCAL_SIZE=str(world),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(rank.request.store_port),
    )
    torch.set_num_threads(rank.request.threads)
    torch.manual_seed(c.seed)
    rank.device = torch.device("cpu")
    sdpa.restrict(c.sdpa)
    if c.comm.device == "cuda":
        gpus = usable_gpus()
        gpu = rank.index % gpus
        os.environ["LOCAL_RANK"] = str(gpu)
        if c.comm.oversubscribe:
            version = torch.cuda.nccl.version()
            os.environ.update(nccl_settings.settings(rank.index, world, gpus, version, os.environ))
        rank.observed["shared_gpu"] = world > gpus
        precision.set_matmul(c.matmul)
        torch.cuda.set_device(gpu)
        rank.device = torch.device("cuda", gpu)
    backend = "nccl" if c.comm.name == "nccl" else "gloo"
    flight_recorder.enable(rank.request.scratch, rank.index, backend)
    rank.observed["variables"] = recorded(os.environ)  # all are set now
    # Without `device_id`: torch before 2.3 does not know it, and later versions then make the
    # communicator at once and split every subgroup from it, another path than users' trainers take.
    dist.init_process_group(
        backend, store=make_store(), rank=rank.index, world_size=world, timeout=COLLECTIVES_GIVE_UP
    )
    import deepspeed

    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False)
    flight_recorder.answer(rank.request.scratch, rank.index, backend)
    if c.comm.name == "nccl_over_gloo":
        from bench.worker import nccl_over_gloo

        nccl_over_gloo.install()


def usable_gpus() -> int:
    """GPUs that torch can use; at least one. Raises RuntimeError that says why there is none."""
    import torch

    try:
        torch.cuda.init()  # until then `device_count` asks NVML, which counts cards
    except (AssertionError, RuntimeError, torch.cuda.DeferredCudaCallError) as error:
        raise _no_gpu(torch.__version__, str(error).splitlines()[0]) from error
    count = torch.cuda.device_count()
    if count == 0:
        raise _no_gpu(torch.__version__, "it counts none")
    return count


def _no_gpu(torch: str, why: str) -> RuntimeError:
    return RuntimeError(
        f"torch {torch} can use no GPU here ({why}); install a build for this machine's driver, "
        "or take comm=nccl_over_gloo"
    )


def recorded(variables: Mapping[str, str]) -> Dict[str, str]:
    """Those of `variables` that a record keeps, by name; each value is cut to 500 characters."""
    kept = sorted(name for name in variables if name.startswith(VARIABLES))
    return {name: variables[name][:_MOST_CHARACTERS] for name in kept}
