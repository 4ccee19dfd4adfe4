"""What is to be audited: one interpreter, one split, and the user's own choices."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Optional, get_args

from bench.controller import doctor_collectives
from bench.controller.config import CONF
from bench.controller.deepspeed_file import OPTION, DeepspeedFile
from bench.controller.messages import ConfigurationError, hint
from bench.trial import (
    CommName,
    CommSpec,
    Configuration,
    EnvironmentSpec,
    Limits,
    MeshSetup,
    ModelSpec,
    ReferenceName,
    Trial,
)

STAGES = (0, 1, 2, 3)
TOKENS_PER_SHARD = 32
LIMITS = Limits(timeout_s=120.0, hang_s=20.0)
SETUPS: tuple[str, ...] = get_args(MeshSetup)
REFERENCES: tuple[ReferenceName, ...] = get_args(ReferenceName)


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
    reference: ReferenceName = "replica_mean"
    """Whose gradient is right."""
    file: Optional[DeepspeedFile] = None
    """The user's DeepSpeed configuration; None: spbench's own, which leaves the defaults."""
    mesh_setup: str = "auto"
    """How DeepSpeed is told of sequence parallelism."""

    def __post_init__(self) -> None:
        for option, value in (("--world", self.world), ("--sp", self.sp)):
            if value < 1:
                raise ConfigurationError(f"{option} {value}: must be at least 1")
        if self.world % self.sp:
            allowed = ", ".join(str(n) for n in range(1, self.world + 1) if self.world % n == 0)
            raise ConfigurationError(
                f"--sp {self.sp}: must divide --world {self.world}; allowed: {allowed}"
            )
        if self.loss is not None:
            _require("--loss", self.loss, losses(), "unknown loss aggregation")
        _require("--reference", self.reference, REFERENCES, "unknown reference")
        _require("--mesh-setup", self.mesh_setup, SETUPS, "unknown")
        if self.sp == 1 and self.mesh_setup not in ("auto", "no_mpu"):
            raise ConfigurationError(
                f"--mesh-setup {self.mesh_setup}: has nothing to tell DeepSpeed with --sp 1"
            )
        if self.zero is not None and self.zero not in STAGES:
            raise ConfigurationError(f"--zero {self.zero}: unknown ZeRO stage; allowed: 0, 1, 2, 3")
        if self.file is not None:
            self._take_stage(self.file)

    def _take_stage(self, file: DeepspeedFile) -> None:
        if self.zero is None:
            object.__setattr__(self, "zero", file.zero)
        elif file.zero_given and file.zero != self.zero:
            raise ConfigurationError(
                f"--zero {self.zero}: {OPTION} {file.path} says zero_optimization.stage="
                f"{file.zero}; leave --zero out, or change the file"
            )

    @property
    def dp(self) -> int:
        """Data-parallel replicas."""
        return self.world // self.sp

    @property
    def stages(self) -> tuple[int, ...]:
        """The ZeRO stages to audit."""
        return STAGES if self.zero is None else (self.zero,)

    @property
    def references(self) -> tuple[ReferenceName, ...]:
        """The definitions that recipes are for: both, where there are replicas to differ in."""
        return REFERENCES if self.dp > 1 else (self.reference,)

    @property
    def surveyed(self) -> tuple[CommName, ...]:
        """On what to try the collectives: where NCCL is emulated, its transport too, since the
        emulation reaches one module only. Nothing where there is no group to try them on.
        """
        if self.sp == 1 or not self.collectives or not doctor_collectives.available():
            return ()
        return (self.comm.name, "gloo") if self.comm.emulated else (self.comm.name,)

    def without_options(self, names: list[str], why: str) -> Question:
        """The same without some options of the user's file."""
        assert self.file is not None
        return replace(self, file=self.file.without(names, why))

    def trial(self, **fields: Any) -> Trial:
        """A trial of a small model; masks leave shards with unequal numbers of labels."""
        values: dict[str, Any] = {
            "environment": EnvironmentSpec(name="doctor", python=str(self.python)),
            "model": model(self.sp),
            "comm": self.comm,
            "world": self.world,
            "sp": self.sp,
            "mesh_setup": self.mesh_setup,
            "seq_len": TOKENS_PER_SHARD * self.sp,
            "reference": self.reference,
            "warmup_steps": 1,
            "steps": 1,
            "limits": LIMITS,
        }
        if self.file is not None:
            values |= {"deepspeed": dict(self.file.options), "dtype": self.file.dtype}
            values["micro_batch"] = self.file.micro_batch
        return Trial(configuration=Configuration(**{**values, **fields}), round=0)


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


def _require(option: str, value: str, allowed: Any, what: str) -> None:
    if value not in allowed:
        raise ConfigurationError(
            f"{option} {value}: {what}; allowed: {', '.join(allowed)}{hint(value, allowed)}"
        )
