"""`spbench predict`: what every split of a cluster would do."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from bench.cli_errors import one_line
from bench.cli_reading import loaded
from bench.printable import json_text

if TYPE_CHECKING:
    import pandas as pd

    from analysis.prediction.files import ClusterSpec
    from analysis.prediction.fit import Fit
    from analysis.prediction.splits import Setting, Split
    from bench.theory import Cluster

NOTHING_FITS = 1


class Dtype(str, Enum):
    """Of weights and activations."""

    BFLOAT16 = "bfloat16"
    FLOAT32 = "float32"


class PredictionFormat(str, Enum):
    """What `predict` prints."""

    TABLE = "table"
    JSON = "json"


def predict(
    model: Annotated[str, typer.Option(help="A model in conf/model.")] = "8b",
    cluster: Annotated[
        str, typer.Option(help="A cluster in conf/cluster, or a YAML file like those.")
    ] = "h100",
    gpus: Annotated[
        str, typer.Option(help="GPUs (on this-machine: ranks).", metavar="INTEGER")
    ] = "8",
    seq_len: Annotated[int, typer.Option(help="Global sequence length [tokens].")] = 131072,
    zero: Annotated[int, typer.Option(min=0, max=3, help="ZeRO stage.")] = 3,
    micro_batch: Annotated[int, typer.Option(help="Sequences per data-parallel replica.")] = 1,
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="Recompute activations in backward.")
    ] = False,
    dtype: Annotated[
        Optional[Dtype],
        typer.Option(help="Default: bfloat16; float32 on this-machine."),
    ] = None,
    results: Annotated[
        Optional[Path],
        typer.Option(help="Fit the efficiencies to the trials of this folder, of that cluster."),
    ] = None,
    to: Annotated[PredictionFormat, typer.Option("--format", help="Format.")] = (
        PredictionFormat.TABLE
    ),
    figure: Annotated[
        Optional[Path], typer.Option(help="Draw the splits into this file (svg, png, pdf).")
    ] = None,
    remeasure: Annotated[
        bool, typer.Option("--remeasure", help="Measure this-machine again.")
    ] = False,
) -> None:
    """Predict step time, throughput, MFU, memory and the limit of every sp x dp split.

    Exit code 1 where no split has enough memory.

    Example: spbench predict --model 8b --cluster h100 --gpus 32 --seq-len 131072 --checkpointing
    """
    from analysis.prediction.errors import published_errors
    from analysis.prediction.files import THIS_MACHINE, model_named
    from analysis.prediction.splits import NothingFits, Setting, predict_splits, recommend
    from analysis.prediction.table import as_json, show_basis, show_splits
    from analysis.reading import AnalysisError
    from bench.console import Console

    with one_line(AnalysisError):
        count = _count(gpus)
        machine = _cluster(cluster, count, remeasure)
        chosen = dtype or (Dtype.FLOAT32 if cluster == THIS_MACHINE else Dtype.BFLOAT16)
        setting = Setting(
            model=model_named(model, checkpointing),
            cluster=machine.cluster,
            efficiencies=machine.assumed,
            gpus=count,
            seq_len=seq_len,
            zero=zero,
            micro_batch=micro_batch,
            dtype=chosen.value,
            errors=published_errors(),
        )
        fitted, impossible, skipped = None, list[str](), list[str]()
        if results is not None:
            fitted, setting, impossible, skipped = _fitted(results, setting)
        splits = predict_splits(setting)
    try:
        recommendation, refusal = recommend(setting, splits), None
    except NothingFits as nothing:
        recommendation, refusal = None, str(nothing)
    if to is PredictionFormat.JSON:
        typer.echo(
            json_text(
                {
                    **as_json(setting, splits, recommendation, fitted, impossible),
                    "skipped": skipped,
                },
                indent=2,
            )
        )
    else:
        console = Console()
        show_basis(setting, fitted, console)
        for text in impossible:
            console.print(f"Impossible: {text}.", highlight=False)
        best = recommendation.split if recommendation else None
        show_splits(setting, splits, best, console)
        if recommendation:
            typer.echo(f"recommended: {recommendation.split.name}: {recommendation.reason}")
    if figure is not None:
        _draw(setting, splits, figure)
    if refusal is not None:
        typer.echo(f"spbench: {refusal}", err=True)
        raise typer.Exit(NOTHING_FITS)


def _count(text: str) -> int:
    """A whole number as people write large ones; raises AnalysisError."""
    from analysis.prediction.splits import refuse_gpus
    from analysis.reading import AnalysisError

    try:
        number = float(text)
        if number != int(number):
            raise ValueError
    except (ValueError, OverflowError) as error:
        raise AnalysisError(f"--gpus {text}: must be a whole number") from error
    refuse_gpus(int(number))
    return int(number)


def _cluster(name: str, gpus: int, remeasure: bool) -> ClusterSpec:
    """The cluster as its file has it, or measured where the file says so."""
    from analysis.prediction.files import ClusterSpec, cluster_named
    from bench.theory import Efficiencies

    described = cluster_named(name)
    if described is not None:
        return described
    return ClusterSpec(cluster=this_machine(gpus, remeasure), assumed=Efficiencies())


def _fitted(results: Path, setting: Setting) -> tuple[Fit, Setting, list[str], list[str]]:
    """What the trials of a folder say of the cluster, which of them cannot be, lines not read."""
    from dataclasses import replace

    from analysis.prediction.checks import objections, refuse_unlike
    from analysis.prediction.errors import fitted_errors
    from analysis.prediction.files import THIS_MACHINE
    from analysis.prediction.fit import earlier, fit, points_of

    cluster = setting.cluster
    frame = loaded(results)
    recorded, others = points_of(frame), earlier(frame)
    if others:
        typer.echo(
            f"note: {others:,} results of {results} are left out: there are later ones of the same "
            "configurations, by other code or versions",
            err=True,
        )
    if cluster.name != THIS_MACHINE and "nccl" not in set(frame.comm):
        typer.echo(
            f"note: no trial of {results} ran on GPUs; its efficiencies are not those of "
            f"{cluster.name}, unless that is where it ran",
            err=True,
        )
    made = fit(recorded, cluster)
    refuse_unlike(made, str(results))
    errors = fitted_errors(made, recorded, setting)
    known = replace(setting, efficiencies=made.efficiencies(setting.zero), errors=errors)
    return made, known, objections(recorded, cluster), frame.attrs["skipped"]


def this_machine(ranks: int, remeasure: bool = False) -> Cluster:
    """The machine at hand as `ranks` ranks see it; measured at first use, then remembered."""
    from bench.console import Console
    from bench.controller.environments import EnvironmentProblem
    from bench.controller.this_machine import MeasurementFailed, measured

    with one_line(EnvironmentProblem, MeasurementFailed), Console(stderr=True).status("measuring"):
        return measured(ranks, remeasure)


def contradictions(frame: pd.DataFrame) -> list[str]:
    """Recorded times that this machine, as it measured itself, could not have reached.

    Of trials that ran here; nothing is said where the machine never measured itself.
    """
    import platform

    from analysis.prediction.checks import objections
    from analysis.prediction.fit import points_of
    from bench.controller.this_machine import remembered

    found = []
    points = points_of(frame[frame.hostname == platform.node()])
    for world in sorted({point.world for point in points}):
        machine = remembered(world)
        if machine is not None:
            found += objections([one for one in points if one.world == world], machine)
    return found


def _draw(setting: Setting, splits: list[Split], figure: Path) -> None:
    from analysis.figures.prediction import predicted_splits
    from analysis.output import output_file
    from analysis.reading import AnalysisError

    with one_line(AnalysisError):
        try:
            with output_file(figure, option="--figure ") as partial:
                predicted_splits(setting, splits).savefig(partial)
        except ValueError as error:  # of an ending that no figure has
            raise AnalysisError(f"--figure {figure}: cannot be written: {error}") from error
    typer.echo(f"figure: {figure}", err=True)
