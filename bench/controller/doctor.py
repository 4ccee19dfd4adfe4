"""An audit of one interpreter: which loss aggregations are right on it, and what to paste.

Everything is observed on real ranks of that interpreter; nothing is known by version.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from bench.controller import doctor_collectives, doctor_recipe, torch_gpus
from bench.controller.config import CONF
from bench.controller.doctor_collectives import Survey
from bench.controller.doctor_recipe import Candidate, Cell, Recipe
from bench.controller.interpreter import CURRENT, EnvironmentProblem, locate, require_complete
from bench.controller.messages import ConfigurationError, hint
from bench.record import Record, Status, WorkerProvenance
from bench.trial import CommName, CommSpec, Configuration, EnvironmentSpec, Limits, ModelSpec, Trial

STAGES = (0, 1, 2, 3)
TOKENS_PER_SHARD = 32
LIMITS = Limits(timeout_s=120.0, hang_s=20.0)
ATTEMPTS = 3
"""Candidates for a recipe that are tried at a ZeRO stage before it is left without one."""

Launch = Callable[[Trial], Record]
Note = Callable[[str], None]


@dataclass(frozen=True)
class Question:
    """What is to be audited; raises `ConfigurationError` for values that cannot be."""

    python: Path
    world: int
    sp: int
    comm: CommSpec
    loss: Optional[str] = None
    """The aggregation that the user trains with; None: asks for any that is right."""
    zero: Optional[int] = None
    """The ZeRO stage that the user trains with; None: all."""
    collectives: bool = True
    """Whether to try the collectives too."""

    def __post_init__(self) -> None:
        for option, value in (("--world", self.world), ("--sp", self.sp)):
            if value < 1:
                raise ConfigurationError(f"{option} {value}: must be at least 1")
        if self.world % self.sp:
            allowed = ", ".join(str(n) for n in range(1, self.world + 1) if self.world % n == 0)
            raise ConfigurationError(
                f"--sp {self.sp}: must divide --world {self.world}; allowed: {allowed}"
            )
        if self.loss is not None and self.loss not in losses():
            raise ConfigurationError(
                f"--loss {self.loss}: unknown loss aggregation; allowed: {', '.join(losses())}"
                f"{hint(self.loss, losses())}"
            )
        if self.zero is not None and self.zero not in STAGES:
            raise ConfigurationError(f"--zero {self.zero}: unknown ZeRO stage; allowed: 0, 1, 2, 3")

    @property
    def stages(self) -> tuple[int, ...]:
        """The ZeRO stages to audit."""
        return STAGES if self.zero is None else (self.zero,)

    @property
    def surveyed(self) -> tuple[CommName, ...]:
        """On what to try the collectives: where NCCL is emulated, its transport too, since the
        emulation reaches one module only. Nothing where there is no group to try them on.
        """
        if self.sp == 1 or not self.collectives or not doctor_collectives.available():
            return ()
        return (self.comm.name, "gloo") if self.comm.emulated else (self.comm.name,)

    def trial(self, **fields: Any) -> Trial:
        """A trial of a small model; masks leave shards with unequal numbers of labels."""
        values: dict[str, Any] = {
            "environment": EnvironmentSpec(name="doctor", python=str(self.python)),
            "model": model(self.sp),
            "comm": self.comm,
            "world": self.world,
            "sp": self.sp,
            "seq_len": TOKENS_PER_SHARD * self.sp,
            "warmup_steps": 1,
            "steps": 1,
            "limits": LIMITS,
        }
        return Trial(configuration=Configuration(**{**values, **fields}), round=0)


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
    def stages_with_recipe(self) -> list[int]:
        """ZeRO stages for which the printed text gave the reference gradient."""
        return sorted({zero for one in self.recipes for zero in one.right_at})


def losses() -> list[str]:
    """The loss aggregations that spbench knows."""
    return sorted(path.stem for path in (CONF / "loss").glob("*.yaml"))


def model(sp: int) -> ModelSpec:
    """Two layers whose heads divide by `sp`, and whose key/value heads are half as many."""
    heads = math.lcm(8, sp)
    return ModelSpec(
        name="doctor",
        layers=2,
        hidden=8 * heads,
        heads=heads,
        kv_heads=heads // 2,
        ffn=96,
        vocab=64,
    )


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
    started, found = time.monotonic(), Audit(question)
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
    found.recipes = _recipes(found, launch, note)
    for name in question.surveyed:
        note(f"collectives on {name}")
        found.surveys.append(Survey.of(name, launch(_survey(question, name))))
    found.seconds = time.monotonic() - started
    return found


def _recipes(found: Audit, launch: Launch, note: Note) -> list[Recipe]:
    """Run the texts that will be printed, the best candidates first, until each stage has one."""
    recipes: list[Recipe] = []
    left = list(found.question.stages)
    for attempt in range(ATTEMPTS):
        groups: dict[Candidate, list[int]] = {}
        for zero in left:
            for candidate in doctor_recipe.candidates(found.cells, zero)[attempt : attempt + 1]:
                groups.setdefault(candidate, []).append(zero)
        for candidate, zeros in groups.items():
            text = doctor_recipe.source(candidate, zeros, stack(found))
            proof = []
            for zero in zeros:
                note(f"ZeRO {zero}: the recipe as printed ({candidate.loss})")
                options = {"source": text}
                trial = found.question.trial(scenario="recipe", zero=zero, options=options)
                proof.append(Cell.of(candidate.loss, zero, launch(trial)))
            recipes.append(Recipe(candidate, text, tuple(proof)))
            left = [zero for zero in left if zero not in recipes[-1].right_at]
    return recipes


def _survey(question: Question, name: CommName) -> Trial:
    comm = question.comm.model_copy(update={"name": name})
    scenario = doctor_collectives.SCENARIO
    options = doctor_collectives.OPTIONS
    return question.trial(scenario=scenario, comm=comm, options=options, gradient_check="off")


def stack(found: Audit) -> str:
    """`torch 2.13.0, DeepSpeed 0.18.2 (sp=2, dp=2, nccl)`: where a recipe was measured."""
    q, w = found.question, found.worker
    versions = f"torch {w.torch}, DeepSpeed {w.deepspeed}" if w is not None else "this stack"
    return f"{versions} (sp={q.sp}, dp={q.world // q.sp}, {q.comm.name})"
