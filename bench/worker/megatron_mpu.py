"""An mpu as Megatron-DeepSpeed's: before 0.17, DeepSpeed brought none for sequence parallelism."""

from __future__ import annotations

from dataclasses import dataclass

import torch.distributed as dist


@dataclass(frozen=True)
class MegatronMpu:
    """Answers DeepSpeed's questions for groups, under the names that Megatron gave them.

    ZeRO reduces over `sequence_data_parallel`, all ranks. ZeRO 3 partitions parameters over
    `data_parallel`, unless `zero.Init` did it before over another group.
    """

    sp_group: dist.ProcessGroup
    dp_group: dist.ProcessGroup
    own_group: dist.ProcessGroup
    """This rank alone: there is no tensor parallelism."""

    def get_sequence_parallel_group(self) -> dist.ProcessGroup:
        """Ranks that share one sequence."""
        return self.sp_group

    def get_sequence_parallel_world_size(self) -> int:
        """sp."""
        return dist.get_world_size(self.sp_group)

    def get_sequence_parallel_rank(self) -> int:
        """Index of this rank's shard."""
        return dist.get_rank(self.sp_group)

    def get_data_parallel_group(self) -> dist.ProcessGroup:
        """Ranks that hold the same shard of different sequences."""
        return self.dp_group

    def get_data_parallel_world_size(self) -> int:
        """dp."""
        return dist.get_world_size(self.dp_group)

    def get_data_parallel_rank(self) -> int:
        """Index of this rank's replica."""
        return dist.get_rank(self.dp_group)

    def get_sequence_data_parallel_group(self) -> dist.ProcessGroup:
        """All ranks."""
        return dist.group.WORLD

    def get_sequence_data_parallel_world_size(self) -> int:
        """world."""
        return dist.get_world_size()

    def get_sequence_data_parallel_rank(self) -> int:
        """Global rank."""
        return dist.get_rank()

    def get_model_parallel_group(self) -> dist.ProcessGroup:
        """This rank alone."""
        return self.own_group

    def get_model_parallel_world_size(self) -> int:
        """1."""
        return 1

    def get_model_parallel_rank(self) -> int:
        """0."""
        return 0

    get_tensor_model_parallel_group = get_model_parallel_group
    get_tensor_model_parallel_world_size = get_model_parallel_world_size
    get_tensor_model_parallel_rank = get_model_parallel_rank
