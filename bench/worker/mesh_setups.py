"""How DeepSpeed is told which ranks share a sequence: the ways in use, each under a name.

    parallel_state_sp  an mpu that DeepSpeed brings along since 0.17. Its tutorial for Ulysses gives
                       it to `deepspeed.initialize`, and so do ALST and Accelerate, who have it
                       from `UlyssesSPAttentionHF.register_with_transformers`
    megatron           the mpu of Megatron-DeepSpeed. At ZeRO 3 that builds its model inside
                       `zero.Init`, which partitions parameters over all ranks
    megatron_mpu       the same mpu without `zero.Init`: the engine then partitions parameters over
                       the mpu's data-parallel group, though it reduces gradients over all ranks
    mesh_param         `deepspeed.initialize(mesh_param=(dp, sp))`, as in DeepSpeed's own tests; the
                       options `data_parallel_size` and `sequence_parallel_size` come to the same
    no_mpu             DeepSpeed is told nothing and averages over all ranks, as in trainers that
                       bring a sequence parallelism of their own

What the installed DeepSpeed can do is seen by what it has, never by its version.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, Callable, Dict, Mapping, Optional

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.utils import groups

from bench.worker.megatron_mpu import MegatronMpu

try:
    from deepspeed.runtime.sequence_parallel import parallel_state_sp
except ImportError:
    parallel_state_sp = None

AUTO = ("parallel_state_sp", "megatron")
"""What `auto` comes to: the first that the installed DeepSpeed has."""
NONE = "no_mpu"
"""What `auto` comes to where there is no sequence parallelism."""


def _leave(module: torch.nn.Module, config: Dict[str, Any]) -> None:
    """The engine partitions the parameters by itself."""


@dataclass(frozen=True)
class Told:
    """What DeepSpeed gets to know."""

    sp_group: dist.ProcessGroup
    arguments: Mapping[str, Any]
    """For `deepspeed.initialize`."""
    partition: Callable[[torch.nn.Module, Dict[str, Any]], None] = _leave
    """To be called at ZeRO 3 with the model and DeepSpeed's configuration, before the engine."""


def resolve(asked: str, sp: int) -> str:
    """The name of the set-up that `asked` comes to here.

    Raises:
        NotImplementedError: the installed DeepSpeed lacks it.
    """
    if asked == "auto" and sp == 1:
        return NONE
    for name in AUTO if asked == "auto" else (asked,):
        if (lacking := SETUPS[name].lacks()) is None:
            return name
    available = [name for name, setup in SETUPS.items() if setup.lacks() is None]
    raise NotImplementedError(
        f"mesh_setup={asked}: DeepSpeed {deepspeed.__version__} has no {lacking}; take "
        f"mesh_setup={', '.join(available)}, or another DeepSpeed"
    )


@dataclass(frozen=True)
class Setup:
    """A way to tell DeepSpeed."""

    lacks: Callable[[], Optional[str]]
    """What it needs and the installed DeepSpeed has not; None: it has all."""
    tell: Callable[[int], Told]
    """Makes the groups for a sequence-parallel size; every rank must call it."""


def _tell_parallel_state_sp(sp: int) -> Told:
    parallel_state_sp.initialize_sequence_parallel(sp)
    group = parallel_state_sp.get_sequence_parallel_group()
    return Told(group, {"mpu": parallel_state_sp})


def _lacks_parallel_state_sp() -> Optional[str]:
    missing = parallel_state_sp is None
    return "deepspeed.runtime.sequence_parallel.parallel_state_sp" if missing else None


def _mpu(sp: int) -> MegatronMpu:
    rank, world = dist.get_rank(), dist.get_world_size()
    across, alone = range(rank % sp, world, sp), range(rank, rank + 1)
    return MegatronMpu(sequence_group(sp), _group(across), _group(alone))


def _tell_megatron_mpu(sp: int) -> Told:
    mpu = _mpu(sp)
    return Told(mpu.sp_group, {"mpu": mpu})


def _lacks_mpu() -> Optional[str]:
    asked = "_get_sequence_data_parallel_group"
    return None if hasattr(groups, asked) else f"deepspeed.utils.groups.{asked}"


def _tell_megatron(sp: int) -> Told:
    mpu = _mpu(sp)

    def partition(module: torch.nn.Module, config: Dict[str, Any]) -> None:
        over = {str(_init_keyword()): mpu.get_sequence_data_parallel_group()}
        deepspeed.zero.Init(module=module, config_dict_or_path=config, mpu=mpu, **over)

    return Told(mpu.sp_group, {"mpu": mpu}, partition)


def _lacks_megatron() -> Optional[str]:
    lacking = _lacks_mpu()
    if lacking is None and _init_keyword() is None:
        lacking = "zero.Init(sequence_data_parallel_group=…)"
    return lacking


def _init_keyword() -> Optional[str]:
    """What `zero.Init` calls the group that it partitions over: the older name is deprecated."""
    known = inspect.signature(deepspeed.zero.Init.__init__).parameters
    names = ("data_parallel_group", "sequence_data_parallel_group")
    return next((name for name in names if name in known), None)


def _tell_mesh_param(sp: int) -> Told:
    return Told(sequence_group(sp), {"mesh_param": (dist.get_world_size() // sp, sp)})


def _lacks_mesh_param() -> Optional[str]:
    known = inspect.signature(deepspeed.initialize).parameters
    return None if "mesh_param" in known else "deepspeed.initialize(mesh_param=…)"


def _tell_nothing(sp: int) -> Told:
    return Told(sequence_group(sp), {})


def sequence_group(sp: int) -> dist.ProcessGroup:
    """The group of the consecutive ranks that share a sequence with this one."""
    first = dist.get_rank() - dist.get_rank() % sp
    return _group(range(first, first + sp))


def _group(ranks: range) -> dist.ProcessGroup:
    return dist.new_group(list(ranks), use_local_synchronization=True)


SETUPS: Dict[str, Setup] = {
    "parallel_state_sp": Setup(_lacks_parallel_state_sp, _tell_parallel_state_sp),
    "megatron": Setup(_lacks_megatron, _tell_megatron),
    "megatron_mpu": Setup(_lacks_mpu, _tell_megatron_mpu),
    "mesh_param": Setup(_lacks_mesh_param, _tell_mesh_param),
    NONE: Setup(lambda: None, _tell_nothing),
}
