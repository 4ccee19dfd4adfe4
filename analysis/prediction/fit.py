"""Efficiencies from recorded trials: a step's time as a sum of few physical parts.

    t = overhead(ZeRO stage) + layers * overhead(layer) + a matmul + b attention + c all-to-all
        + memory traffic + gradient reduction

`matmul`, `attention` and `all-to-all` are seconds at the cluster's full rates, so that a, b and
c are 1 or more: 1/a, 1/b and 1/c are efficiencies. Memory traffic and gradient reduction are
taken at their full rates: within one model they vary as the matrix products do, or not at all,
and cannot be told apart. What minimises the relative errors, least squares, is taken.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from analysis.identities import RESULT
from analysis.reading import AnalysisError
from bench.rounds import median
from bench.theory import Cluster, Efficiencies, StepTime, Work, step_time, work_per_rank
from bench.trial import DTYPE_BYTES, ModelSpec

_SIZES = ("layers", "hidden", "heads", "kv_heads", "ffn", "vocab")
_IDEAL = Efficiencies()


@dataclass(frozen=True)
class Point:
    """A configuration and the median over its rounds of the step time."""

    label: str
    model: ModelSpec
    dtype: str
    world: int
    sp: int
    zero: int
    micro_batch: int
    seq_len: int
    step_s: float
    spread_s: float = math.inf
    """The largest distance of a round from the median [s]; unknown of a single round."""
    sent_bytes: float | None = None
    """What a rank was seen to send for gradients and weights; None: as theory says."""
    machine: str = ""
    """Class of the machine; empty: not known."""

    @property
    def split(self) -> str:
        """`sp=2 dp=2`."""
        return f"sp={self.sp} dp={self.world // self.sp}"


@dataclass(frozen=True)
class Residual:
    """A recorded step time beside the predicted one [s]."""

    point: Point
    predicted_s: float

    @property
    def relative(self) -> float:
        """Predicted over recorded, less 1."""
        return self.predicted_s / self.point.step_s - 1


@dataclass(frozen=True)
class Fit:
    """What recorded trials say of a cluster's efficiencies."""

    cluster: Cluster
    shares: Efficiencies
    """Without the overhead of a step, which depends on the ZeRO stage."""
    step_overhead_s: Mapping[int, float]
    """By ZeRO stage."""
    not_fitted: tuple[str, ...]
    """Resources that the trials say nothing about; they stay at 1."""
    residuals: tuple[Residual, ...]

    def efficiencies(self, zero: int) -> Efficiencies:
        """For a ZeRO stage; of one that was not recorded, the nearest recorded one's overhead."""
        nearest = min(self.step_overhead_s, key=lambda stage: (abs(stage - zero), stage))
        return replace(self.shares, step_overhead_s=self.step_overhead_s[nearest])

    def predict(self, point: Point) -> float:
        """The step time of a point [s]."""
        return _seconds(point, self.cluster, self.efficiencies(point.zero))

    @property
    def error(self) -> float:
        """Median absolute relative error of the residuals."""
        return median([abs(one.relative) for one in self.residuals])


def points_of(frame: pd.DataFrame) -> list[Point]:
    """The configurations of `analysis.frame.load`'s frame that trained with a valid time.

    On each class of machines; of several results there, by other code say, the latest one.
    """
    found = []
    for group in _latest(_timed(frame)):
        row, rounds = group.iloc[0], group.step_s.tolist()
        middle = median(rounds)
        split = f"sp={row.sp} dp={row.dp}"
        found.append(
            Point(
                f"{row.environment} {row.loss} zero={row.zero} {split} seq_len={row.seq_len}",
                _model(row),
                row["dtype"],
                int(row.world),
                int(row.sp),
                int(row.zero),
                int(row.micro_batch),
                int(row.seq_len),
                middle,
                max(abs(one - middle) for one in rounds) if len(rounds) > 1 else math.inf,
                _seen_traffic(row),
                machine=str(row.machine_class),
            )
        )
    return found


def earlier(frame: pd.DataFrame) -> int:
    """How many results `points_of` leaves out, since there are later ones of the same."""
    timed = _timed(frame)
    return len(timed[RESULT].drop_duplicates()) - len(_latest(timed))


def refuse_several_machines(points: Sequence[Point]) -> None:
    """Raise AnalysisError where points are of several classes of machines: a fit is of one."""
    classes = sorted({point.machine for point in points} - {""})
    if len(classes) > 1:
        raise AnalysisError(
            f"the trials ran on machines of {len(classes)} classes ({' | '.join(classes)}), and "
            "efficiencies are those of one; keep each in a results folder of its own"
        )


def _timed(frame: pd.DataFrame) -> pd.DataFrame:
    """The trials that trained with a valid time."""
    timed = frame[(frame.status == "ok") & (frame.scenario == "train") & frame.step_s.notna()]
    return timed[timed.timings_valid.astype(bool)]


def _latest(timed: pd.DataFrame) -> list[pd.DataFrame]:
    """The trials of each configuration's last result on each class of machines."""
    latest: dict[tuple[str, str], pd.DataFrame] = {}
    for _, group in timed.groupby(RESULT, sort=False):
        key = (str(group.config_hash.iloc[0]), str(group.machine_class.iloc[0]))
        if key not in latest or group.started.max() > latest[key].started.max():
            latest[key] = group
    return list(latest.values())


def fit(points: Sequence[Point], cluster: Cluster) -> Fit:
    """The efficiencies that explain the points best.

    Raises AnalysisError when there are fewer points than unknowns, or they are of several machines.
    """
    refuse_several_machines(points)
    from scipy.optimize import lsq_linear  # half a second, and not every reader of points fits

    stages = sorted({point.zero for point in points})
    rates = ["matmul", "attention"]
    if any(point.sp > 1 for point in points):
        rates.append("all_to_all")
    by_layer = len({point.model.layers for point in points}) > 1
    unknowns = len(rates) + len(stages) + by_layer
    if len(points) < unknowns:
        raise AnalysisError(
            f"{len(points)} configurations with valid step times are too few to fit {unknowns} "
            "unknowns; record more sequence lengths or splits"
        )
    rows, known = [], []
    for point in points:
        ideal = _ideal(point, cluster)
        row = [getattr(ideal, name) for name in rates]
        row += [float(point.zero == stage) for stage in stages]
        row += [float(point.model.layers)] if by_layer else []
        rows.append(np.array(row) / point.step_s)
        known.append((ideal.memory + ideal.gradient) / point.step_s)
    lowest = [1.0] * len(rates) + [0.0] * (unknowns - len(rates))
    solved = lsq_linear(np.array(rows), 1 - np.array(known), (lowest, np.inf)).x
    shares = {name: 1 / value for name, value in zip(rates, solved, strict=False)}
    overheads = dict(zip(stages, solved[len(rates) :].tolist(), strict=False))
    layer = float(solved[-1]) if by_layer else 0.0
    made = Fit(
        cluster=cluster,
        shares=Efficiencies(**shares, layer_overhead_s=layer),
        step_overhead_s=overheads,
        not_fitted=() if "all_to_all" in rates else ("all_to_all",),
        residuals=(),
    )
    return replace(made, residuals=tuple(Residual(one, made.predict(one)) for one in points))


def _ideal(point: Point, cluster: Cluster) -> StepTime:
    return step_time(_work(point), cluster, point.world, point.sp, _IDEAL)


def _seconds(point: Point, cluster: Cluster, efficiencies: Efficiencies) -> float:
    return step_time(_work(point), cluster, point.world, point.sp, efficiencies).predicted


def _work(point: Point) -> Work:
    work = work_per_rank(
        point.model,
        world=point.world,
        sp=point.sp,
        zero=point.zero,
        micro_batch=point.micro_batch,
        seq_len=point.seq_len,
        element_bytes=DTYPE_BYTES[point.dtype],
    )
    seen = point.sent_bytes
    return work if seen is None else replace(work, gradient_bytes=seen)


def _seen_traffic(row: pd.Series) -> float | None:
    """Counted bytes of the first step, which are those of every step but under ZeRO 3."""
    counted = row.state_traffic_bytes
    return None if row.zero == 3 or pd.isna(counted) else float(counted)


def _model(row: pd.Series) -> ModelSpec:
    sizes = {name: int(row[f"model.{name}"]) for name in _SIZES}
    checkpointing = bool(row["model.activation_checkpointing"])
    return ModelSpec(name=row["model"], activation_checkpointing=checkpointing, **sizes)
