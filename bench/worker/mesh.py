"""Which rank is where: sequence-parallel groups of consecutive ranks, and how DeepSpeed is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Mapping

import torch.distributed as dist

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
    """For `deepspeed.initialize`: `mpu`, or `mesh_param` where there is no mpu for sequences."""

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

        The groups are those that DeepSpeed's own tutorial for Ulysses makes. An mpu with
        Megatron's `get_data_parallel_group` would not do: ZeRO 3 then partitions parameters
        over that group, and gradients over all ranks.
        """
        rank, world = dist.get_rank(), dist.get_world_size()
        arguments: Dict[str, Any] = {}
        if sp > 1 and parallel_state_sp is not None:
            parallel_state_sp.initialize_sequence_parallel(sp)
            group = parallel_state_sp.get_sequence_parallel_group()
            arguments["mpu"] = parallel_state_sp
        else:
            first = rank - rank % sp
            group = dist.new_group(list(range(first, first + sp)), use_local_synchronization=True)
            if sp > 1:
                arguments["mesh_param"] = (world // sp, sp)
        return cls(rank, world, sp, group, arguments)
