"""What a configuration is made of: environment, model, communication, limits, and its axes' values.

`bench.trial` puts them together, and all who need one import it from there. Like it, this must
import on every interpreter that we measure.
"""

from __future__ import annotations

from typing import Annotated, Dict, Literal, Optional, Tuple

from pydantic import BaseModel, ConfigDict, Field, StrictBool, model_validator

Dtype = Literal["float32", "bfloat16"]
CommName = Literal["gloo", "nccl", "nccl_over_gloo"]
MaskName = Literal["none", "prompt", "ragged", "empty_shard"]
GradientCheck = Literal["auto", "exact", "proxy", "sketch", "directional", "off"]
ReferenceName = Literal["replica_mean", "token_mean"]
"""Which loss of the whole batch a gradient is to be that of. `replica_mean`: the mean over
data-parallel replicas of each one's mean over its valid tokens. `token_mean`: the mean over all
valid tokens of the batch, one cross-entropy. They are one where all replicas have equally many."""
Matmul = Literal["highest", "tf32"]
Sdpa = Literal["auto", "flash", "efficient", "cudnn", "math"]
MeshSetup = Literal["auto", "parallel_state_sp", "megatron", "megatron_mpu", "mesh_param", "no_mpu"]

Name = Annotated[str, Field(pattern=r"^[\w.+<>=!~-]{1,100}$")]
"""A label that may become part of a file's name: letters, digits and ._+<>=!~-, up to 100."""

DTYPE_BYTES: Dict[str, int] = {"float32": 4, "bfloat16": 2, "float64": 8}


class Frozen(BaseModel):
    """Base of every value here: immutable, and a misspelt field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class EnvironmentSpec(Frozen):
    """One interpreter with one torch and one DeepSpeed: what it must contain."""

    name: Name
    """Label in records and figures. Two names for the same content are two configurations,
    which is how an A/A comparison is made."""
    torch: Optional[str] = None
    """Exact version to install (`2.2.2`); None only together with `python`."""
    deepspeed: Optional[str] = None
    requirements: Tuple[str, ...] = ()
    """Further requirements, in pip's syntax (`numpy<2`)."""
    python_version: Optional[str] = None
    """Version request in uv's syntax (`3.11`, `>=3.9,<3.13`); None: the newest that fits."""
    torch_backend: Optional[str] = None
    """uv's `--torch-backend` (`cpu`, `cu126`, `auto`); None: the user's own index settings."""
    python: Optional[str] = None
    """Path of an interpreter that exists already; it is used as it is and never changed."""

    @model_validator(mode="after")
    def _installable_or_given(self) -> EnvironmentSpec:
        if self.python is None and (self.torch is None or self.deepspeed is None):
            raise ValueError(
                f"environment '{self.name}' needs both `torch` and `deepspeed` versions, "
                "or `python`, the path of an interpreter that has them"
            )
        return self


class ModelSpec(Frozen):
    """A Llama-shaped decoder. Sizes count elements, not bytes."""

    name: Name
    layers: int = Field(gt=0)
    hidden: int = Field(gt=0)
    heads: int = Field(gt=0)
    kv_heads: int = Field(gt=0)
    ffn: int = Field(gt=0)
    """Width of the SwiGLU's gate, up and down projections."""
    vocab: int = Field(gt=1)
    rope_theta: float = Field(default=10000.0, gt=0)
    norm_eps: float = Field(default=1e-5, gt=0)
    activation_checkpointing: bool = False
    loss_tiles: int = Field(default=1, gt=0)
    """Parts of a shard's tokens whose logits are computed, and computed again in backward, one
    after another; 1: all at once, and kept."""

    @property
    def head_dim(self) -> int:
        """Size of one head [elements]."""
        return self.hidden // self.heads

    @model_validator(mode="after")
    def _shapes_agree(self) -> ModelSpec:
        if self.hidden % self.heads or self.head_dim % 2:
            raise ValueError(
                f"model.hidden={self.hidden} must be an even multiple of model.heads={self.heads}"
            )
        if self.heads % self.kv_heads:
            raise ValueError(
                f"model.heads={self.heads} must be a multiple of model.kv_heads={self.kv_heads}"
            )
        return self


class CommSpec(Frozen):
    """How ranks communicate. `auto` is resolved before a configuration is made."""

    name: CommName
    oversubscribe: StrictBool = False
    """Several ranks may share a GPU: gradients are then valid, timings are not."""
    deepspeed_shm: StrictBool = False
    """DeepSpeed's CPU shared-memory all-reduce."""

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        """The device type that ranks compute on."""
        return "cuda" if self.name == "nccl" else "cpu"

    @property
    def emulated(self) -> bool:
        """Whether torch's NCCL code path runs on another transport."""
        return self.name == "nccl_over_gloo"


class Limits(Frozen):
    """Bounds on one trial. They do not define what is measured, so the hash leaves them out."""

    timeout_s: float = Field(default=600.0, gt=0, allow_inf_nan=False)
    """A trial that is still running after this many seconds ends as `timeout`."""
    hang_s: Optional[float] = Field(default=None, gt=0, allow_inf_nan=False)
    """A trial in which no rank made progress for this many seconds ends as `hang`. On GPU a
    phase of a step is the unit of progress; on CPU, computing counts as progress too. None: it
    follows from how long theory expects a phase to take."""
