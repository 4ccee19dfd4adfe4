"""Rows on failures: forking, running out of memory, drills, and what they leave behind."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Optional

import psutil

from bench.controller import gpu_states, gpus
from bench.controller.selfcheck.row import Seen, together
from bench.controller.selfcheck.stand import SMALL, SMALL_BUCKETS, RowFailed, Stand, preset
from bench.record import Record, Status
from bench.trial import Limits

DRILLS = {
    "raise": Status.ERROR,
    "kill": Status.CRASH,
    "exit": Status.CRASH,
    "hang": Status.HANG,
    "spin": Status.HANG,
    "memory": Status.OOM,
}
"""Faults of the scenario `drill`, and how each must end. On CPU computing is progress, so that a
rank that spins runs out of time."""
HANG_S, SPIN_S = {True: 20.0, False: 4.0}, 12.0
"""How long ranks that hang are left alone, on GPU and on CPU; how long a rank may spin on CPU.
Where nothing hangs, a first step that makes communicators and loads kernels is no hang."""
LIMIT_BYTES = {True: 4 << 30, False: 300 << 20}
"""Memory that a rank may take, on GPU and on CPU."""
USUAL_NVCC = Path("/usr/local/cuda/bin/nvcc")
KEPT_BYTES = 64 << 20
"""Memory of a GPU by which two readings may differ without a process that holds it."""
RESOLUTION_TOKENS = 512
_WIDE = SMALL.model_copy(update={"vocab": 32000})
"""A model whose logits fill a CPU's limit at lengths that take it a second."""


def fork(stand: Stand) -> Seen:
    """A rank uses its device after the server imported everything."""
    record = stand.ok(scenario="selfcheck", options={"check": "tensor"}, gradient_check="off")
    parts = [(f"a tensor on {record.details['device']}", True)]
    threads = [text for text in _warnings(record) if "threads when it forked" in text]
    parts.append((threads[0] if threads else "one thread in the server", not threads))
    if stand.on_gpu:
        there = _pids_on_gpus() & {process.pid for process in _servers()}
        parts.append((f"{len(there)} servers on the GPU", not there))
    return together(parts)


def no_nvcc(stand: Stand) -> Seen:
    """The same where CUDA's compiler is not installed."""
    kept = [part for part in os.get_exec_path() if not os.path.exists(os.path.join(part, "nvcc"))]  # noqa: PTH110, PTH118
    absent: dict[str, Optional[str]] = {"CUDA_PATH": None, "PATH": os.pathsep.join(kept)}
    # torch looks in /usr/local/cuda unless it is told another place
    absent["CUDA_HOME"] = str(stand.folder / "no-cuda") if USUAL_NVCC.exists() else None
    with stand.elsewhere(absent) as other:
        return fork(other)


def full_card(stand: Stand) -> Seen:
    """cuBLAS on a full card, or an allocation beyond a limit, is `oom`."""
    if stand.on_gpu:
        record = stand.launch(
            scenario="selfcheck", options={"check": "full_card"}, gradient_check="off"
        )
    else:
        record = _drill(stand, "memory")
    return Seen(f"{record.status.value}: {record.reason}", record.status is Status.OOM)


def drills(stand: Stand) -> Seen:
    """Every fault has its status, leaves nothing, and the next trial is ok."""
    parts = []
    for fault, due in DRILLS.items():
        if fault == "spin" and not stand.on_gpu:
            due = Status.TIMEOUT
        before, used = _left(), _memory_in_use(stand)
        status = _drill(stand, fault).status
        left = sorted(_left() - before)
        kept = [now - then for now, then in zip(_memory_in_use(stand), used, strict=True)]
        left += [f"{size >> 20} MiB on GPU {i}" for i, size in enumerate(kept) if size > KEPT_BYTES]
        after = stand.launch(2, gradient_check="off")
        text = fault if status is due else f"{fault} is {status.value}, not {due.value}"
        text += f", left {', '.join(left)}" if left else ""
        text += "" if after.status is Status.OK else f", then {after.status.value}: {after.reason}"
        parts.append((text, status is due and not left and after.status is Status.OK))
    return together(parts)


def capacity(stand: Stand) -> Seen:
    """The longest sequence that trains under a memory limit, within 512 tokens."""
    fields: dict[str, Any] = {"model": preset("160m"), "dtype": "bfloat16", "seq_len": 8192}
    if not stand.on_gpu:
        fields = {"model": _WIDE, "seq_len": 1024}
    record = stand.ok(
        scenario="capacity",
        options={"resolution": RESOLUTION_TOKENS},
        memory_limit=LIMIT_BYTES[stand.on_gpu],
        deepspeed=SMALL_BUCKETS,
        **fields,
    )
    longest, failed = record.details["longest"], record.details["shortest_failed"]
    if failed is None:
        raise RowFailed(f"{longest:,} tokens train, and nothing failed")
    text = f"{longest:,} tokens train, {failed:,} do not"
    return Seen(text, longest > 0 and 0 < failed - longest <= RESOLUTION_TOKENS)


def _drill(stand: Stand, fault: str) -> Record:
    fields: dict[str, Any] = {}
    if fault in ("hang", "spin"):
        timeout_s = SPIN_S if fault == "spin" and not stand.on_gpu else 120.0
        fields["limits"] = Limits(timeout_s=timeout_s, hang_s=HANG_S[stand.on_gpu])
    if fault == "memory":
        fields |= {"memory_limit": LIMIT_BYTES[stand.on_gpu], "deepspeed": SMALL_BUCKETS}
    return stand.launch(
        2, scenario="drill", options={"fault": fault}, gradient_check="off", **fields
    )


def _left() -> set[str]:
    """Shared memory, and ranks that still run."""
    shared = {f"/dev/shm/{name}" for name in os.listdir("/dev/shm")}
    ranks = (rank for server in _servers() for rank in server.children(recursive=True))
    return shared | {f"process {rank.pid}" for rank in ranks}


def _memory_in_use(stand: Stand) -> list[int]:
    """Bytes in use on each GPU by NVML; empty on CPU, where what is left are processes."""
    if not stand.on_gpu:
        return []
    nvml, handles = gpus.visible_handles()
    readings = (gpu_states.memory(nvml, gpu)[0] for gpu in handles)
    return [0 if used is None else used for used in readings]


def _servers() -> list[psutil.Process]:
    return psutil.Process().children()


def _pids_on_gpus() -> set[int]:
    nvml, handles = gpus.visible_handles()
    question = "nvmlDeviceGetComputeRunningProcesses"
    return {one.pid for gpu in handles for one in gpus.ask(nvml, question, gpu) or []}


def _warnings(record: Record) -> list[str]:
    return record.worker.warnings if record.worker is not None else []
