"""The keys that users write, and their types: Hydra's structured configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Optional, Union

from omegaconf import MISSING, OmegaConf


def _open() -> Any:
    # Hydra closes dictionaries, so that new keys need a `+`; what is DeepSpeed's stays open.
    return OmegaConf.create({}, flags={"struct": False})


@dataclass
class EnvironmentSchema:
    """conf/environment: the fields of `bench.trial.EnvironmentSpec`."""

    name: str = MISSING
    torch: Optional[str] = None
    deepspeed: Optional[str] = None
    requirements: list[str] = field(default_factory=list)
    python_version: Optional[str] = None
    torch_backend: Optional[str] = None
    python: Optional[str] = None


@dataclass
class ModelSchema:
    """conf/model: the fields of `bench.trial.ModelSpec`."""

    name: str = MISSING
    layers: int = MISSING
    hidden: int = MISSING
    heads: int = MISSING
    kv_heads: int = MISSING
    ffn: int = MISSING
    vocab: int = MISSING
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5
    activation_checkpointing: bool = False
    loss_tiles: int = 1


@dataclass
class CommSchema:
    """conf/comm: the fields of `bench.trial.CommSpec`, and the name `auto`."""

    name: str = MISSING
    oversubscribe: bool = "${oversubscribe}"  # type: ignore[assignment]
    deepspeed_shm: bool = False


@dataclass
class LimitsSchema:
    """Bounds on one trial: `bench.trial.Limits`."""

    timeout_s: float = MISSING
    hang_s: Optional[float] = None


@dataclass
class EnvSchema:
    """How a sweep comes by its environments."""

    keep: Optional[int] = None


@dataclass
class Schema:
    """Every key and its type; conf/config.yaml has the values and says what they mean."""

    environment: EnvironmentSchema = field(default_factory=EnvironmentSchema)
    model: ModelSchema = field(default_factory=ModelSchema)
    comm: CommSchema = field(default_factory=CommSchema)
    limits: LimitsSchema = field(default_factory=LimitsSchema)
    scenario: str = MISSING
    attention: str = MISSING
    loss: str = MISSING
    dtype: str = MISSING
    world: int = MISSING
    sp: int = MISSING
    zero: int = MISSING
    seq_len: int = MISSING
    micro_batch: int = MISSING
    mask: str = MISSING
    warmup_steps: int = MISSING
    steps: int = MISSING
    learning_rate: float = MISSING
    seed: int = MISSING
    gradient_check: Union[bool, str] = MISSING
    reference: str = MISSING
    matmul: str = MISSING
    sdpa: str = MISSING
    mesh_setup: str = MISSING
    memory_limit: Optional[Union[int, str]] = None
    oversubscribe: bool = MISSING
    deepspeed: Any = field(default_factory=_open)
    options: Any = field(default_factory=_open)
    scenario_options: dict[str, str] = field(default_factory=dict)
    """Names and meanings of the options that the scenario knows."""
    experiment: Optional[str] = None
    rounds: int = MISSING
    precision: Optional[Union[int, float, str]] = None
    max_rounds: int = MISSING
    results: Optional[str] = None
    retry: list[str] = field(default_factory=list)
    report: bool = MISSING
    env: EnvSchema = field(default_factory=EnvSchema)


def keys(schema: Any = Schema, prefix: str = "") -> Iterator[str]:
    """The dotted names of every key of the schema."""
    for entry in dataclasses.fields(schema):
        yield prefix + entry.name
        nested = entry.default_factory
        if dataclasses.is_dataclass(nested):
            yield from keys(nested, f"{prefix}{entry.name}.")
