"""Predictions of configurations that were left out of the fit, and results that cannot be."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from analysis.prediction.files import LEAST_SHARE
from analysis.prediction.fit import Fit, Point, Residual, fit
from analysis.reading import AnalysisError
from bench.theory import Cluster, Link, Observation, impossible

Chosen = Callable[[Point], bool]

UNKNOWN = Cluster(
    name="unknown",
    gpus_per_node=2**20,
    peak_flops=1e18,
    memory_bytes=1e18,
    memory_bandwidth=1e18,
    intra=Link(1e15, 0.0),
    inter=Link(1e15, 0.0),
)
"""So fast that no rate bounds a fit: for records of a machine that nobody measured."""


def held_out(
    points: Sequence[Point], cluster: Cluster, left_out: Chosen
) -> tuple[Fit, list[Residual]]:
    """The fit to the points that are not `left_out`, and predictions of those that are.

    Raises AnalysisError when too few are left to fit.
    """
    made = fit([point for point in points if not left_out(point)], cluster)
    out = [point for point in points if left_out(point)]
    return made, [Residual(point, made.predict(point)) for point in out]


def ways(points: Sequence[Point]) -> dict[str, Chosen]:
    """What may be left out, by name: the longest sequences, and each split in turn."""
    longest = max(point.seq_len for point in points)
    found: dict[str, Chosen] = {f"{longest:,} tokens": lambda point: point.seq_len == longest}
    for split in sorted({point.split for point in points}):
        found[split] = lambda point, split=split: point.split == split  # type: ignore[misc]
    return found


def every_way(points: Sequence[Point], cluster: Cluster) -> dict[str, list[Residual]]:
    """Predictions by what was left out, wherever enough is left to fit."""
    found = {}
    for name, left_out in ways(points).items() if points else ():
        try:
            found[name] = held_out(points, cluster, left_out)[1]
        except AnalysisError:  # too few are left: there is nothing to say
            continue
    return found


def refuse_unlike(made: Fit, results: str) -> None:
    """Raise AnalysisError where a fit needs efficiencies that no machine has."""
    for name in ("matmul", "attention"):
        share = getattr(made.shares, name)
        if share < LEAST_SHARE:
            raise AnalysisError(
                f"--results {results}: its trials would mean {name} at {100 * share:.1g} % of the "
                f"peak of {made.cluster.name}, which no machine is so far below: they ran "
                "elsewhere; name the cluster that they ran on (--cluster this-machine, or a file)"
            )


def objections(points: Sequence[Point], cluster: Cluster) -> list[str]:
    """Why recorded step times cannot be true on `cluster`; empty when they can.

    A rate above the peak, of a step or between two sequence lengths of the same configuration;
    between these only beyond what the rounds scatter.
    """
    series: dict[tuple[object, ...], list[Observation]] = {}
    for point in points:
        dp = point.world // point.sp
        name = point.label.replace(f" seq_len={point.seq_len}", "")
        series.setdefault(
            (name, point.model, point.dtype, point.micro_batch, point.machine), []
        ).append(
            Observation(
                label=point.label,
                model=point.model,
                gpus=point.world,
                seq_len=point.seq_len,
                tokens_per_step=dp * point.micro_batch * point.seq_len,
                step_s=point.step_s,
                uncertainty_s=point.spread_s,
            )
        )
    return [text for one in series.values() for text in impossible(one, cluster.peak_flops)]
