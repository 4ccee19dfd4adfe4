"""Every way to split a cluster over sequence and data, with its predicted step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from analysis.prediction.errors import Errors, Range
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

MOST_GPUS = 1_000_000
"""More GPUs than any cluster has."""
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
    errors: Errors | None = None
    """How far such predictions err; None: nobody knows."""


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
    errors: Range | None = None
    """How far predictions of such a step err."""
    memory_most_bytes: float = 0.0
    """`memory_bytes`, and what published peaks had beyond their predictions."""

    @property
    def low_s(self) -> float:
        """The least that the step may take, by the physical bound and by errors seen."""
        seen = self.step.predicted * (self.errors.low if self.errors else 1.0)
        return min(self.step.overlapped, seen)

    @property
    def high_s(self) -> float:
        """The most that the step may take, by one resource after the other and by errors seen."""
        seen = self.step.predicted * (self.errors.high if self.errors else 1.0)
        return max(self.step.serial, seen)

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


def refuse_gpus(gpus: int) -> None:
    """Raise AnalysisError for a number of GPUs that no cluster has."""
    if gpus < 1:
        raise AnalysisError(f"--gpus {gpus}: must be 1 or more")
    if gpus > MOST_GPUS:
        raise AnalysisError(f"--gpus {gpus:,}: must be at most {MOST_GPUS:,}")


def predict_splits(setting: Setting) -> list[Split]:
    """Every valid split, the smallest sp first.

    Raises AnalysisError where no split is valid at all, or a size is out of its range.
    """
    refuse_gpus(setting.gpus)
    if not 1 <= setting.seq_len <= 2**31:
        raise AnalysisError(f"--seq-len {setting.seq_len}: must be from 1 to {2**31:,}")
    if setting.micro_batch < 1:
        raise AnalysisError(f"--micro-batch {setting.micro_batch}: must be 1 or more")
    most = min(setting.gpus, setting.model.heads)
    divisors = [sp for sp in range(1, most + 1) if setting.gpus % sp == 0]
    reasons = {sp: _refused(setting, sp) for sp in divisors}
    valid = [sp for sp, refused in reasons.items() if not refused]
    if not valid:
        raise AnalysisError(f"no split is valid: {next(iter(reasons.values()))[0]}")
    return [_predict(setting, sp) for sp in valid]


def recommend(setting: Setting, splits: Sequence[Split]) -> Recommendation:
    """The fastest split that fits, or one as fast, as far as is known, with more free memory.

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
    fastest = max(fitting, key=lambda split: split.tokens_per_s_per_gpu)
    best = _roomiest([split for split in fitting if _as_fast(split, fastest)], room)
    return Recommendation(best, _reason(best, fastest, splits, room))


def _as_fast(split: Split, fastest: Split) -> bool:
    """Whether predictions that err alike cannot tell the two apart."""
    if split.errors is None or split.errors != fastest.errors:
        return split is fastest
    return fastest.tokens_per_s_per_gpu <= split.errors.apart * split.tokens_per_s_per_gpu


def _roomiest(splits: Sequence[Split], room: float) -> Split:
    """The fastest of those with the most free memory, up to a hundredth of what there is."""
    least = min(split.memory_bytes for split in splits)
    near = [split for split in splits if split.memory_bytes <= least + room / 100]
    return max(near, key=lambda split: split.tokens_per_s_per_gpu)


def _reason(best: Split, fastest: Split, splits: Sequence[Split], room: float) -> str:
    parts = []
    tight = [split for split in splits if not split.fits and split.sp < best.sp]
    if tight:
        closest = max(tight, key=lambda split: split.sp)
        parts.append(
            f"{closest.name} needs {closest.memory_bytes / 1e9:,.1f} GB of {room / 1e9:,.1f}"
        )
    others = [split for split in splits if split.fits and split is not best]
    if best is not fastest:
        parts.append(_tie(best, fastest))
    elif others:
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
    if best.memory_most_bytes > room:
        excess = (best.memory_most_bytes - best.memory_bytes) / 1e9
        parts.append(
            f"it may not fit: published peaks were up to {excess:,.1f} GB above their predictions"
        )
    return "; ".join(parts)


def _tie(best: Split, fastest: Split) -> str:
    """Why a split is taken although another is predicted to be faster."""
    gain = fastest.tokens_per_s_per_gpu / best.tokens_per_s_per_gpu - 1
    free = (fastest.memory_bytes - best.memory_bytes) / 1e9
    apart = best.errors.apart if best.errors else 1.0
    return (
        f"{free:,.1f} GB more free than {fastest.name}, whose {100 * gain:.1f} % more tokens/s/GPU "
        f"are within the error of predictions (they err by ×{apart:.2f} from one to another)"
    )


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
    errors = s.errors.of(s.micro_batch * s.seq_len / sp) if s.errors else None
    return Split(
        sp=sp,
        dp=dp,
        step=step,
        tokens_per_s_per_gpu=rate / s.gpus,
        mfu=utilization(flops, step.predicted, s.gpus, s.cluster.peak_flops),
        memory_bytes=memory,
        fits=memory <= s.cluster.memory_bytes,
        errors=errors,
        memory_most_bytes=memory + (s.errors.memory_missing if s.errors and gpu else 0.0),
    )
