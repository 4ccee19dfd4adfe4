"""Which rank is where: sequence-parallel groups of consecutive ranks, and how DeepSpeed is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Mapping, Optional

import torch
import torch.distributed as dist

from bench.worker.megatron_mpu import MegatronMpu

try:
    from deepspeed.runtime.sequence_parallel import parallel_state_sp
except ImportError:  # DeepSpeed before 0.17
    parallel_state_sp = None


@dataclass(frozen=True)
class Mesh:
    """One rank's place, its sequence-parallel group, and what tells DeepSpeed of it."""

    rank: int
    world: int
    sp: int
    sp_group: dist.ProcessGroup
    deepspeed_arguments: Mapping[str, Any]
    """For `deepspeed.initialize`."""

    @property
    def dp(self) -> int:
        """Data-parallel size."""
        return self.world // self.sp

    @property
    def sp_rank(self) -> int:
        """Index of this rank's shard of the sequence."""
        return self.rank % self.sp

    @property
    def replica(self) -> int:
        """Index of this rank's data-parallel replica."""
        return self.rank // self.sp

    @classmethod
    def create(cls, sp: int) -> Mesh:
        """Make the groups; every rank of the default process group must call this.

        From DeepSpeed 0.17 on they are those that its own tutorial for Ulysses makes: an mpu
        with Megatron's `get_data_parallel_group` would make ZeRO 3 partition parameters over
        that group, and gradients over all ranks. Before, there is only Megatron's.
        """
        rank, world = dist.get_rank(), dist.get_world_size()
        arguments: Dict[str, Any] = {}
        if sp > 1 and parallel_state_sp is not None:
            parallel_state_sp.initialize_sequence_parallel(sp)
            group = parallel_state_sp.get_sequence_parallel_group()
            arguments["mpu"] = parallel_state_sp
        else:
            first = rank - rank % sp
            group = _group(range(first, first + sp))
            if sp > 1:
                across, alone = range(rank % sp, world, sp), range(rank, rank + 1)
                arguments["mpu"] = MegatronMpu(group, _group(across), _group(alone))
        return cls(rank, world, sp, group, arguments)


def barrier(device: torch.device, group: Optional[dist.ProcessGroup] = None) -> None:
    """Wait for all ranks of `group` (None: all). NCCL is told this rank's GPU instead of guessing.

    Without it NCCL takes the GPU of the rank's number, or the first that the group used before.
    """
    dist.barrier(group=group, device_ids=[device.index] if device.type == "cuda" else None)


def _group(ranks: range) -> dist.ProcessGroup:
    return dist.new_group(list(ranks), use_local_synchronization=True)
