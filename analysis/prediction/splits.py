"""Every way to split a cluster over sequence and data, with its predicted step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from analysis.reading import AnalysisError
from bench.theory import (
    Cluster,
    Efficiencies,
    StepTime,
    Training,
    model_flops_per_step,
    peak_memory,
    step_time,
    tokens_per_second,
    utilization,
    work_per_rank,
)
from bench.trial import DTYPE_BYTES, CommSpec, Configuration, EnvironmentSpec, ModelSpec

CAPACITY = "memory capacity"
"""What limits a split that does not fit."""
_ANY = {
    "environment": EnvironmentSpec(name="prediction", python="none"),
    "comm": CommSpec(name="nccl"),
    "dtype": "bfloat16",
}


class NothingFits(AnalysisError):
    """No split of the cluster has enough memory; the message says how much it takes."""


@dataclass(frozen=True)
class Setting:
    """What is trained, and on what."""

    model: ModelSpec
    cluster: Cluster
    efficiencies: Efficiencies
    gpus: int
    seq_len: int
    zero: int = 3
    micro_batch: int = 1
    dtype: str = "bfloat16"


@dataclass(frozen=True)
class Split:
    """One split, predicted."""

    sp: int
    dp: int
    step: StepTime
    tokens_per_s_per_gpu: float
    mfu: float
    """Model FLOPs over the peak [0..1]."""
    memory_bytes: int
    """Peak of one GPU: `bench.theory.peak_memory`."""
    fits: bool

    @property
    def name(self) -> str:
        """`sp=8 dp=4`."""
        return f"sp={self.sp} dp={self.dp}"

    @property
    def limit(self) -> str:
        """The resource that limits it."""
        return self.step.limit if self.fits else CAPACITY


@dataclass(frozen=True)
class Recommendation:
    """The split to take, and why."""

    split: Split
    reason: str


def predict_splits(setting: Setting) -> list[Split]:
    """Every valid split, the smallest sp first.

    Raises AnalysisError where no split is valid at all, or `gpus` is not positive.
    """
    if setting.gpus < 1:
        raise AnalysisError(f"--gpus {setting.gpus}: must be 1 or more")
    if not 1 <= setting.seq_len <= 2**31:
        raise AnalysisError(f"--seq-len {setting.seq_len}: must be from 1 to {2**31:,}")
    if setting.micro_batch < 1:
        raise AnalysisError(f"--micro-batch {setting.micro_batch}: must be 1 or more")
    divisors = [sp for sp in range(1, setting.gpus + 1) if setting.gpus % sp == 0]
    reasons = {sp: _refused(setting, sp) for sp in divisors if sp <= setting.model.heads}
    valid = [sp for sp, refused in reasons.items() if not refused]
    if not valid:
        raise AnalysisError(f"no split is valid: {next(iter(reasons.values()))[0]}")
    return [_predict(setting, sp) for sp in valid]


def recommend(setting: Setting, splits: Sequence[Split]) -> Recommendation:
    """The split with the most tokens/s/GPU among those that fit.

    Raises NothingFits where there is none.
    """
    room = setting.cluster.memory_bytes
    fitting = [split for split in splits if split.fits]
    if not fitting:
        least = min(splits, key=lambda split: split.memory_bytes)
        remedies = ["--checkpointing"] if not setting.model.activation_checkpointing else []
        remedies += ["--zero 3"] if setting.zero < 3 else []
        raise NothingFits(
            f"{setting.model.name} at {setting.seq_len:,} tokens fits on no split of "
            f"{setting.gpus:,} {setting.cluster.name}: the least is {least.memory_bytes / 1e9:,.1f}"
            f" GB a GPU ({least.name}), a GPU has {room / 1e9:,.1f} GB; try "
            f"{', '.join([*remedies, 'more --gpus or a shorter --seq-len'])}"
        )
    best = max(fitting, key=lambda split: split.tokens_per_s_per_gpu)
    return Recommendation(best, _reason(best, fitting, splits, room))


def _reason(best: Split, fitting: Sequence[Split], splits: Sequence[Split], room: float) -> str:
    parts = []
    tight = [split for split in splits if not split.fits and split.sp < best.sp]
    if tight:
        closest = max(tight, key=lambda split: split.sp)
        parts.append(
            f"{closest.name} needs {closest.memory_bytes / 1e9:,.1f} GB of {room / 1e9:,.1f}"
        )
    others = [split for split in fitting if split is not best]
    if others:
        second = max(others, key=lambda split: split.tokens_per_s_per_gpu)
        gain = best.tokens_per_s_per_gpu / second.tokens_per_s_per_gpu - 1
        parts.append(
            f"{100 * gain:.1f} % more tokens/s/GPU than {second.name}, whose largest part is "
            f"{second.limit}"
        )
    elif len(splits) > 1:
        parts.append("the only split that fits")
    else:
        parts.append("the only valid split")
    return "; ".join(parts)


def _refused(setting: Setting, sp: int) -> list[str]:
    return Configuration(
        **_ANY,
        model=setting.model,
        world=setting.gpus,
        sp=sp,
        zero=setting.zero,
        seq_len=setting.seq_len,
        micro_batch=setting.micro_batch,
    ).unsupported_reasons()


def _predict(setting: Setting, sp: int) -> Split:
    s = setting
    sizes = {"world": s.gpus, "sp": sp, "zero": s.zero, "element_bytes": DTYPE_BYTES[s.dtype]}
    sizes |= {"micro_batch": s.micro_batch, "seq_len": s.seq_len}
    step = step_time(work_per_rank(s.model, **sizes), s.cluster, s.gpus, sp, s.efficiencies)
    dp = s.gpus // sp
    gpu = not s.cluster.counts_written_only
    memory = peak_memory(Training(s.model, whole_bucket=gpu, foreach=gpu, **sizes)).total
    flops = model_flops_per_step(s.model, dp, s.micro_batch, s.seq_len)
    rate = tokens_per_second(dp, s.micro_batch, s.seq_len, step.predicted)
    return Split(
        sp=sp,
        dp=dp,
        step=step,
        tokens_per_s_per_gpu=rate / s.gpus,
        mfu=utilization(flops, step.predicted, s.gpus, s.cluster.peak_flops),
        memory_bytes=memory,
        fits=memory <= s.cluster.memory_bytes,
    )
