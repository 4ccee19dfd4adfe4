"""Which rank is where: sequence-parallel groups of consecutive ranks, and how DeepSpeed is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Mapping, Optional

import torch
import torch.distributed as dist

from bench.worker import mesh_setups
from bench.worker.rank import Rank


@dataclass(frozen=True)
class Mesh:
    """One rank's place, its sequence-parallel group, and what tells DeepSpeed of it."""

    rank: int
    world: int
    sp: int
    setup: str
    """Name of the set-up: see `bench.worker.mesh_setups`."""
    told: mesh_setups.Told

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

    @property
    def sp_group(self) -> dist.ProcessGroup:
        """The ranks that share this rank's sequence."""
        return self.told.sp_group

    @property
    def deepspeed_arguments(self) -> Mapping[str, Any]:
        """For `deepspeed.initialize`."""
        return self.told.arguments

    def partition(self, module: torch.nn.Module, config: Dict[str, Any], zero: int) -> None:
        """Do what the set-up does with a model at ZeRO stage `zero` before there is an engine."""
        if zero == 3:
            self.told.partition(module, config)

    @classmethod
    def create(cls, sp: int, setup: str = "auto") -> Mesh:
        """Make the groups; every rank of the default process group must call this.

        Raises:
            NotImplementedError: the installed DeepSpeed lacks what `setup` needs.
        """
        name = mesh_setups.resolve(setup, sp)
        told = mesh_setups.SETUPS[name].tell(sp)
        return cls(dist.get_rank(), dist.get_world_size(), sp, name, told)

    @classmethod
    def of(cls, rank: Rank) -> Mesh:
        """The mesh of a rank's configuration; the record will name its set-up.

        Raises:
            NotImplementedError: the installed DeepSpeed lacks the set-up.
        """
        c = rank.configuration
        mesh = cls.create(c.sp, c.mesh_setup)
        rank.observed["mesh_setup"] = mesh.setup
        return mesh


def barrier(device: torch.device, group: Optional[dist.ProcessGroup] = None) -> None:
    """Wait for all ranks of `group` (None: all). NCCL is told this rank's GPU instead of guessing.

    Without it NCCL takes the GPU of the rank's number, or the first that the group used before.
    """
    dist.barrier(group=group, device_ids=[device.index] if device.type == "cuda" else None)
