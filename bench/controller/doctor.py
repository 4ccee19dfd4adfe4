"""An audit of one interpreter: which loss aggregations are right on it, and what to paste.

Everything is observed on real ranks of that interpreter; nothing is known by version.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

from bench.controller import doctor_collectives, doctor_recipe, torch_gpus
from bench.controller.doctor_collectives import Survey
from bench.controller.doctor_question import Question, losses, model
from bench.controller.doctor_recipe import Candidate, Cell, Recipe
from bench.controller.interpreter import CURRENT, EnvironmentProblem, locate, require_complete
from bench.controller.messages import ConfigurationError, hint
from bench.record import Record, Status, WorkerProvenance
from bench.trial import CommName, CommSpec, ReferenceName, Trial

__all__ = [
    "ATTEMPTS",
    "Audit",
    "Question",
    "audit",
    "comm",
    "interpreter",
    "losses",
    "model",
    "stack",
    "trials_of",
    "usable_comm",
]

ATTEMPTS = 3
"""Candidates for a recipe that are tried at a ZeRO stage before it is left without one."""
UNASKED = "nothing (DeepSpeed does not look at it)"

Launch = Callable[[Trial], Record]
Note = Callable[[str], None]


@dataclass
class Audit:
    """What was found."""

    question: Question
    cells: list[Cell] = field(default_factory=list)
    recipes: list[Recipe] = field(default_factory=list)
    surveys: list[Survey] = field(default_factory=list)
    """Of the collectives, one for each communication."""
    worker: Optional[WorkerProvenance] = None
    broken: Optional[str] = None
    """Why the interpreter cannot run any trial at all; None when it can."""
    seconds: float = 0.0

    @property
    def right(self) -> bool:
        """Whether the user's pair is right.

        With a loss: that aggregation at every audited stage. Without: a proven recipe for each.
        """
        q = self.question
        if q.loss is not None:
            mine = [cell for cell in self.cells if cell.loss == q.loss]
            return bool(mine) and all(cell.right for cell in mine)
        return set(self.stages_with_recipe) == set(q.stages)

    @property
    def mesh_setup(self) -> str:
        """How DeepSpeed was told of sequence parallelism; as asked for where no rank told."""
        seen = None if self.worker is None else self.worker.mesh_setup
        return seen or self.question.mesh_setup

    @property
    def stages_with_recipe(self) -> list[int]:
        """ZeRO stages for which a printed text gave the gradient that was asked for."""
        mine = [one for one in self.recipes if one.reference == self.question.reference]
        return sorted({zero for one in mine for zero in one.right_at})


def interpreter(python: Optional[str]) -> Path:
    """The interpreter to audit: the given one, else the running or the active one.

    Raises:
        ConfigurationError: it does not exist, does not start, or lacks torch or DeepSpeed.
    """
    try:
        path = locate(python or CURRENT)
        require_complete(path)
    except EnvironmentProblem as problem:
        if python is None:
            raise ConfigurationError(
                f"no interpreter to audit: {sys.executable}, which runs spbench, lacks torch or "
                "DeepSpeed, and so does the active environment; give one with "
                "--python /path/to/python"
            ) from problem
        text = str(problem).replace("environment.python=", "--python ")
        raise ConfigurationError(text) from problem
    return path


def comm(name: str, world: int, gpus: int) -> CommSpec:
    """How ranks talk: NCCL where each has a GPU, else torch's code for NCCL run on gloo.

    Raises:
        ConfigurationError: `name` is unknown, or asks for more GPUs than there are.
    """
    allowed: dict[str, CommName] = {
        "auto": "nccl" if gpus >= world else "nccl_over_gloo",
        "gloo": "gloo",
        "nccl": "nccl",
        "nccl_over_gloo": "nccl_over_gloo",
    }
    if name not in allowed:
        raise ConfigurationError(
            f"--comm {name}: unknown; allowed: {', '.join(allowed)}{hint(name, allowed)}"
        )
    if name == "nccl" and gpus < world:
        raise ConfigurationError(
            f"--comm nccl: --world {world} needs as many GPUs, but {gpus} are visible; "
            "allowed: auto, gloo, nccl_over_gloo"
        )
    return CommSpec(name=allowed[name])


def usable_comm(spec: CommSpec, asked: str, python: Path, world: int) -> tuple[CommSpec, str]:
    """How ranks talk where torch in `python` may be unable to use the GPUs; and why, if otherwise.

    Raises:
        ConfigurationError: `asked` is `nccl`, and torch cannot use as many GPUs.
    """
    lack = torch_gpus.shortage(python, world if spec.name == "nccl" else 0)
    if lack is None:
        return spec, ""
    if asked != "auto":
        raise ConfigurationError(
            f"--comm {asked}: {lack}; install a build for this machine's driver there, or take "
            "--comm nccl_over_gloo"
        )
    return CommSpec(name="nccl_over_gloo"), f"{lack}; audited with nccl_over_gloo instead"


def audit(question: Question, launch: Launch, note: Note) -> Audit:
    """Measure every aggregation at every stage, choose and prove recipes, try the collectives.

    `note` is told each step before it is done.
    """
    started = time.monotonic()
    found = Audit(_asked(question, launch, note))
    question = found.question
    for zero in question.stages:
        for loss in losses():
            note(f"ZeRO {zero}: {loss}")
            record = launch(question.trial(loss=loss, zero=zero))
            found.worker = found.worker or record.worker
            if record.status is Status.ENVIRONMENT:
                found.broken = record.reason
                found.seconds = time.monotonic() - started
                return found
            found.cells.append(Cell.of(loss, zero, record))
    for reference in question.references:
        found.recipes += _recipes(found, reference, launch, note)
    for name in question.surveyed:
        note(f"collectives on {name}")
        found.surveys.append(Survey.of(name, launch(_survey(question, name))))
    found.seconds = time.monotonic() - started
    return found


def trials_of(question: Question) -> int:
    """How many trials an audit has, if every first recipe is right."""
    proofs = len(question.references) * len(doctor_recipe.masks(question.sp))
    probe = int(question.file is not None and bool(question.file.options))
    stages = len(question.stages) * (len(losses()) + proofs)
    return probe + stages + len(question.surveyed)


def _asked(question: Question, launch: Launch, note: Note) -> Question:
    """`question` without what stands in the user's file and this DeepSpeed does not look at.

    A trial is refused with such an option, since it would seem to have an effect.
    """
    while question.file is not None and question.file.options:
        note("the DeepSpeed configuration")
        record = launch(question.trial(loss=losses()[0], zero=question.stages[0]))
        unasked = {
            name
            for error in record.errors
            if error.type.endswith("UnaskedOption")
            for name in question.file.options
            if error.message.startswith(f"deepspeed.{name}:")
        }
        if not unasked:
            break
        question = question.without_options(sorted(unasked), UNASKED)
    return question


def _recipes(found: Audit, reference: ReferenceName, launch: Launch, note: Note) -> list[Recipe]:
    """Run the texts that will be printed, the best candidates first, until each stage has one.

    Each runs twice: with replicas and shards that differ in their numbers of labels, and with a
    shard that has none and whose loss is NaN.
    """
    recipes: list[Recipe] = []
    left = list(found.question.stages)
    for attempt in range(ATTEMPTS):
        groups: dict[Candidate, list[int]] = {}
        for zero in left:
            choice = doctor_recipe.candidates(found.cells, zero, reference)
            for candidate in choice[attempt : attempt + 1]:
                groups.setdefault(candidate, []).append(zero)
        for candidate, zeros in groups.items():
            text = doctor_recipe.source(candidate, zeros, stack(found))
            proof = [
                _proof(found.question, candidate, zero, text, reference, mask, launch, note)
                for zero in zeros
                for mask in doctor_recipe.masks(found.question.sp)
            ]
            recipes.append(Recipe(candidate, text, tuple(proof), reference))
            left = [zero for zero in left if zero not in recipes[-1].right_at]
    return recipes


def _proof(
    question: Question,
    candidate: Candidate,
    zero: int,
    text: str,
    reference: ReferenceName,
    mask: str,
    launch: Launch,
    note: Note,
) -> Cell:
    note(f"ZeRO {zero}: the recipe as printed ({candidate.loss}, {reference}, mask={mask})")
    trial = question.trial(
        scenario="recipe", zero=zero, options={"source": text}, reference=reference, mask=mask
    )
    return Cell.of(candidate.loss, zero, launch(trial))


def _survey(question: Question, name: CommName) -> Trial:
    comm = question.comm.model_copy(update={"name": name})
    scenario = doctor_collectives.SCENARIO
    options = doctor_collectives.OPTIONS
    return question.trial(scenario=scenario, comm=comm, options=options, gradient_check="off")


def stack(found: Audit) -> str:
    """Where recipes were measured: `torch 2.13.0, DeepSpeed 0.18.2 (sp=2, …, mesh_setup=…)`."""
    q, w = found.question, found.worker
    versions = f"torch {w.torch}, DeepSpeed {w.deepspeed}" if w is not None else "this stack"
    where = [f"sp={q.sp}", f"dp={q.dp}", q.comm.name, f"mesh_setup={found.mesh_setup}"]
    if q.file is not None:
        where += [q.file.dtype, *(f"{name}={value}" for name, value in q.file.flat.items())]
    return f"{versions} ({', '.join(where)})"
