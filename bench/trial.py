"""What to run: a configuration, its validation, its hash, and the trial that repeats it.

One of the two modules that the controller, the workers and the analysis share (the
other is `bench.record`). It must import on every interpreter that we measure: Python 3.9
or later, pydantic 2, the standard library and `bench.theory`. The parts of a configuration are in
`bench.specs`; import them from here.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Dict, List, Optional, Tuple

from pydantic import Field, field_validator, model_validator

from bench import theory
from bench.specs import (
    DTYPE_BYTES,
    CommName,
    CommSpec,
    Dtype,
    EnvironmentSpec,
    Frozen,
    GradientCheck,
    Limits,
    MaskName,
    Matmul,
    MeshSetup,
    ModelSpec,
    Name,
    ReferenceName,
    Sdpa,
)

__all__ = [
    "DTYPE_BYTES",
    "REFERENCE_VERSION",
    "SET_BY_SPBENCH",
    "CommName",
    "CommSpec",
    "Configuration",
    "Dtype",
    "EnvironmentSpec",
    "Frozen",
    "GradientCheck",
    "Limits",
    "MaskName",
    "Matmul",
    "MeshSetup",
    "ModelSpec",
    "Name",
    "ReferenceName",
    "Sdpa",
    "Trial",
]

REFERENCE_VERSION = 1
"""A part of two keys since the first version. That model, data or weights were changed is in the
digest of their code (`bench.code_roles`), which a cached reference's name has beside its key."""

_EXECUTION = {"name", "activation_checkpointing", "loss_tiles"}
"""Fields of a model that do not change what it computes."""

SET_BY_SPBENCH = {
    "zero_optimization.stage": "zero",
    "bf16.enabled": "dtype",
    "fp16.enabled": "dtype",
    "train_batch_size": "micro_batch",
    "train_micro_batch_size_per_gpu": "micro_batch",
    "gradient_accumulation_steps": "micro_batch",
}
"""DeepSpeed options that follow from a key of our own; both at once could contradict."""


class Configuration(Frozen):
    """Everything that defines what is measured."""

    environment: EnvironmentSpec
    model: ModelSpec
    comm: CommSpec
    scenario: str = "train"
    attention: str = "ulysses"
    loss: str = "all_gather"
    dtype: Dtype = "float32"
    world: int = Field(default=4, gt=0)
    sp: int = Field(default=2, gt=0)
    zero: int = Field(default=1, ge=0, le=3)
    """ZeRO stage."""
    seq_len: int = Field(default=512, gt=0, le=2**31)
    """Global sequence length [tokens], before it is split over sp."""
    micro_batch: int = Field(default=1, gt=0)
    """Sequences per data-parallel replica and step."""
    mask: MaskName = "ragged"
    """Which labels are ignored: see `bench.worker.batch`."""
    warmup_steps: int = Field(default=2, ge=1)
    """Steps before the measured ones. The first of them is compared with the reference."""
    steps: int = Field(default=5, gt=0)
    learning_rate: float = Field(default=1e-4, gt=0, allow_inf_nan=False)
    seed: int = Field(default=0, ge=0, lt=2**63)
    gradient_check: GradientCheck = "auto"
    """How the first step's gradient is compared; records of schema version 1 say true or false."""
    reference: ReferenceName = "replica_mean"
    """Which loss of the whole batch the gradient is compared with the gradient of."""
    matmul: Matmul = "highest"
    """Precision of float32 matrix products on GPU: `tf32` keeps 10 bits of the mantissa."""
    sdpa: Sdpa = "auto"
    """Kernel of `torch.nn.functional.scaled_dot_product_attention`; `auto`: torch chooses."""
    mesh_setup: MeshSetup = "auto"
    """How DeepSpeed is told of sequence parallelism; `auto`: as users of the installed version do.
    `bench.worker.mesh_setups` describes each."""
    memory_limit: Optional[int] = Field(default=None, gt=0)
    """Bytes that each rank may allocate; beyond, the trial ends as `oom`. None: no limit."""
    deepspeed: Dict[str, Any] = {}
    """Options merged over the DeepSpeed configuration that spbench builds."""
    options: Dict[str, Any] = {}
    """Options of the scenario itself."""
    limits: Limits = Limits()

    @field_validator("gradient_check", mode="before")
    @classmethod
    def _was_a_boolean(cls, value: Any) -> Any:
        return {True: "auto", False: "off"}[value] if isinstance(value, bool) else value

    @field_validator("deepspeed", "options")
    @classmethod
    def _plain_json(cls, value: Dict[str, Any]) -> Dict[str, Any]:
        try:
            json.dumps(value)
        except TypeError as error:  # pydantic turns only a ValueError into its own report
            raise ValueError(str(error)) from error
        return value

    @field_validator("deepspeed")
    @classmethod
    def _not_set_by_spbench(cls, value: Dict[str, Any]) -> Dict[str, Any]:
        for path, key in SET_BY_SPBENCH.items():
            found: Any = value
            for part in path.split("."):
                found = found.get(part) if isinstance(found, dict) else None
            if found is not None:
                raise ValueError(f"deepspeed.{path} follows from `{key}`: set that instead")
        return value

    @model_validator(mode="after")
    def _sp_divides_world(self) -> Configuration:
        if self.world % self.sp:
            allowed = ", ".join(str(n) for n in range(1, self.world + 1) if self.world % n == 0)
            raise ValueError(f"sp={self.sp} must divide world={self.world}; allowed: {allowed}")
        return self

    @property
    def dp(self) -> int:
        """Data-parallel size."""
        return self.world // self.sp

    @property
    def ragged_replicas(self) -> bool:
        """Whether replicas may differ in their numbers of valid tokens, so that the definitions of
        `reference` differ: of all masks only `ragged` draws the labels of each replica anew.
        """
        return self.dp > 1 and self.mask == "ragged"

    @property
    def hash(self) -> str:
        """Identity of the configuration: 16 hex digits, the same on every machine and version.

        Fields at their default are left out, so that a field added later, with the old
        behaviour as its default, leaves the identity of older records untouched.
        """
        content = self.model_dump(mode="json", exclude={"limits"}, exclude_defaults=True)
        if self.gradient_check == "off":
            content["gradient_check"] = False  # as it was written when the key was a boolean
        return _digest(content)

    @property
    def precision(self) -> str:
        """Of matrix products: `float32`, `tf32` or `bfloat16`."""
        return "tf32" if self.dtype == "float32" and self.matmul == "tf32" else self.dtype

    @property
    def weights_key(self) -> str:
        """Identity of the initial weights."""
        model = self.model.model_dump(mode="json", exclude=_EXECUTION)
        return _digest({"model": model, "seed": self.seed, "version": REFERENCE_VERSION})

    @property
    def reference_key(self) -> str:
        """Identity of the exact reference that this configuration is compared with.

        Whatever changes the mathematics is in it; how the work is split over ranks is not.
        """
        model = self.model.model_dump(mode="json", exclude=_EXECUTION)
        data: Dict[str, Any] = {
            "seed": self.seed,
            "mask": self.mask,
            "replicas": self.dp,
            "micro_batch": self.micro_batch,
            "seq_len": self.seq_len,
        }
        if self.mask == "empty_shard":
            data["sp"] = self.sp  # the only mask that depends on where the shards end
        if self.reference != "replica_mean":
            data["reference"] = self.reference
        return _digest({"model": model, "data": data, "version": REFERENCE_VERSION})

    def unsupported_reasons(self) -> List[str]:
        """Why these valid values cannot run together; empty when they can.

        Such a configuration is recorded as `unsupported` instead of being launched.
        """
        reasons = []
        if self.mask == "empty_shard" and self.sp == 1:
            reasons.append("mask=empty_shard leaves no label at all with sp=1")
        if self.mesh_setup not in ("auto", "no_mpu") and self.sp == 1:
            reasons.append(f"mesh_setup={self.mesh_setup} has nothing to tell DeepSpeed with sp=1")
        reasons += self._memory_reasons() + self._kernel_reasons()
        if self.scenario == "capacity":  # which chooses its lengths itself
            reasons += self._capacity_reasons()
        elif self.seq_len % self.sp:
            reasons.append(f"seq_len={self.seq_len} is not divisible by sp={self.sp}")
        if self.attention == "local":
            if self.sp > 1:
                reasons.append(f"attention=local computes within one rank, but sp={self.sp}")
            return reasons
        heads, kv_heads = self.model.heads, self.model.kv_heads
        if heads % self.sp:
            reasons.append(f"model.heads={heads} is not divisible by sp={self.sp}")
        elif kv_heads % self.sp and self.sp % kv_heads:
            reasons.append(
                f"model.kv_heads={kv_heads} is neither a multiple nor a divisor of sp={self.sp}"
            )
        return reasons

    def _capacity_reasons(self) -> List[str]:
        """Why no longest sequence can be searched for."""
        reasons = []
        if self.memory_limit is None and self.comm.device == "cpu":
            reasons.append("scenario=capacity on CPU needs a memory_limit per rank, such as 1GiB")
        for name in ("resolution", "most"):
            value = self.options.get(name, 1)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                reasons.append(f"options.{name}={value}: must be a number of tokens from 1 on")
        return reasons

    def _kernel_reasons(self) -> List[str]:
        """Why a choice of precision or kernel would change nothing, or cannot be had."""
        reasons, cpu = [], f"on CPU (comm={self.comm.name})"
        if self.matmul == "tf32" and self.comm.device == "cpu":
            reasons.append(f"matmul=tf32 changes nothing {cpu}")
        if self.matmul == "tf32" and self.dtype != "float32":
            reasons.append(f"matmul=tf32 changes nothing with dtype={self.dtype}")
        if self.sdpa in ("efficient", "cudnn") and self.comm.device == "cpu":
            reasons.append(f"sdpa={self.sdpa} is no kernel {cpu}; there are flash and math")
        return reasons

    def _memory_reasons(self) -> List[str]:
        """Why the memory that is allowed cannot be enough."""
        if self.memory_limit is None:
            return []
        size = DTYPE_BYTES[self.dtype]
        state = theory.model_state_bytes(
            theory.total_parameters(self.model), self.zero, self.world, size
        )
        if state.weights <= self.memory_limit:
            return []
        return [
            f"memory_limit={self.memory_limit} is below the {state.weights} bytes of the "
            f"weights of model={self.model.name} alone (zero={self.zero}, world={self.world}): "
            "raise it, or choose a smaller model"
        ]


class Trial(Frozen):
    """A configuration in a round: the unit that is launched."""

    configuration: Configuration
    round: int = Field(ge=0)
    attempt: int = Field(default=0, ge=0)

    @property
    def key(self) -> Tuple[str, int]:
        """What a final record settles: the configuration's hash and the round."""
        return (self.configuration.hash, self.round)

    @property
    def id(self) -> str:
        """Names the record and the files beside it."""
        return f"{self.configuration.hash}-r{self.round}-a{self.attempt}"


def _digest(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
