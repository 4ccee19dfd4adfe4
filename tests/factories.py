"""Schema-valid synthetic records with numbers that are easy to follow by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.record import (
    CollectiveCount,
    GradientError,
    MachineProvenance,
    OtherReference,
    RankError,
    RankMemory,
    RankOutcome,
    RankSamples,
    Record,
    Status,
    WorkerProvenance,
)
from bench.record_files import RecordWriter
from bench.trial import CommSpec, Configuration, EnvironmentSpec, ModelSpec, Trial

STARTED = "2025-01-01T00:00:00+00:00"

TINY = ModelSpec(name="tiny", layers=2, hidden=64, heads=4, kv_heads=2, ffn=128, vocab=256)


def environment(name: str = "torch-2.13", torch: str = "2.13.0") -> EnvironmentSpec:
    """An installable environment with DeepSpeed 0.18.2."""
    return EnvironmentSpec(name=name, torch=torch, deepspeed="0.18.2")


def configuration(**fields: Any) -> Configuration:
    """World 4, sp 2, 512 tokens on the emulated NCCL path; `fields` override."""
    values: dict[str, Any] = {
        "environment": environment(),
        "model": TINY,
        "comm": CommSpec(name="nccl_over_gloo"),
    }
    return Configuration(**{**values, **fields})


def samples(rank: int, step_s: list[float], warmup_s: list[float] | None = None) -> RankSamples:
    """Samples of one rank whose phases are 40, 10, 30 and 20 % of each step."""
    warmup = [1.0, 0.5] if warmup_s is None else warmup_s
    shares = {"forward": 0.4, "aggregate": 0.1, "backward": 0.3, "optimizer": 0.2}
    return RankSamples(
        rank=rank,
        warmup_s=warmup,
        step_s=step_s,
        phases_s={name: [share * s for s in step_s] for name, share in shares.items()},
        losses=[5.5] * (len(warmup) + len(step_s)),
    )


def gradient(**fields: Any) -> GradientError:
    """A gradient that matches; `fields` override."""
    values: dict[str, Any] = {
        "verdict": "match",
        "scale": 1.0,
        "scale_label": "×1",
        "relative_error": 1e-6,
        "residual": 1e-6,
        "cosine": 1.0,
        "worst_parameter": "layers.0.attention.q.weight",
        "worst_relative_error": 3e-6,
        "noise_floor": 5e-7,
        "tolerance": 1e-4,
        "parameters": 20,
        "missing": [],
        "zero": [],
        "nonfinite": [],
        "rank": 0,
        "ranks_agree": True,
        "reference_loss": 5.5,
        "loss": 5.5,
    }
    return GradientError(**{**values, **fields})


def other(**fields: Any) -> OtherReference:
    """Beside the token mean: another direction, the references 20 % apart; `fields` override."""
    values: dict[str, Any] = {
        "reference": "token_mean",
        "verdict": "wrong",
        "scale": 0.99,
        "scale_label": "×0.99",
        "relative_error": 0.2,
        "residual": 0.201,
        "reference_loss": 5.4,
        "distance": 0.2,
    }
    return OtherReference(**{**values, **fields})


def worker(torch: str = "2.13.0") -> WorkerProvenance:
    """What a worker on the CPU sees of itself."""
    return WorkerProvenance(
        python="3.11.9",
        python_path="environment/bin/python",
        torch=torch,
        deepspeed="0.18.2",
        numpy="1.26.4",
        devices=["cpu"] * 4,
        threads_per_rank=1,
    )


def machine() -> MachineProvenance:
    """A quiet machine with two cores."""
    return MachineProvenance(
        hostname="bench",
        os="Linux",
        cpu="CPU",
        cores=2,
        memory_bytes=24 * 2**30,
        load_before=0.5,
        load_after=2.5,
        steal=0.0,
        foreign_cores=0.1,
        spbench="0.1.0",
    )


def ok(round: int = 0, attempt: int = 0, step_s: float = 0.5, **fields: Any) -> Record:
    """A record with status ok: every step takes `step_s` on the slowest rank, which is the last.

    `fields` that a Record has override it; all others go into the configuration.
    """
    of_record = {name: fields.pop(name) for name in list(fields) if name in Record.model_fields}
    config = configuration(**fields)
    ranks = range(config.world)
    values: dict[str, Any] = {
        "samples": [
            samples(r, [step_s * (1 - 0.1 * (config.world - 1 - r))] * config.steps) for r in ranks
        ],
        "memory": [
            RankMemory(rank=r, peak_bytes=(r + 1) * 2**20, baseline_bytes=2**27) for r in ranks
        ],
        "ranks": [RankOutcome(rank=r, outcome="finished", phase="done") for r in ranks],
        "gradient": gradient(),
        "collectives": [
            CollectiveCount(
                rank=r, phase="forward", collective="all_to_all_single", calls=8, bytes=2**16
            )
            for r in ranks
        ],
        "worker": worker(),
        "machine": machine(),
    }
    trial = Trial(configuration=config, round=round, attempt=attempt)
    made: dict[str, Any] = {"status": Status.OK, "started": STARTED, "duration_s": 1.5}
    return Record.of(trial, **{**made, **values, **of_record})


def failed(
    status: Status = Status.ERROR, round: int = 0, attempt: int = 0, **fields: Any
) -> Record:
    """A record without samples; an error is an IndexError in backward on ranks 2 and 3."""
    values: dict[str, Any] = {
        "status": status,
        "reason": f"the trial ended as {status.value}",
        "samples": [],
        "memory": [],
        "ranks": [],
        "gradient": None,
        "collectives": [],
    }
    if status is Status.ERROR:
        values["errors"] = [error(rank) for rank in (2, 3)]
    return ok(round=round, attempt=attempt, **{**values, **fields})


def error(rank: int, type: str = "builtins.IndexError", phase: str = "backward") -> RankError:
    """What rank `rank` raised in step 0."""
    return RankError(
        rank=rank,
        type=type,
        message="tuple index out of range",
        traceback=f"Traceback (most recent call last):\n{type}: tuple index out of range",
        phase=phase,
        step=0,
    )


def write(folder: Path, *records: Record) -> Path:
    """Write `records` into one file of `folder`; returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = RecordWriter(folder)
    for record in records:
        writer.append(record)
    writer.close()
    return writer.path
