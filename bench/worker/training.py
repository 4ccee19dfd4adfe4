"""The DeepSpeed engine around the decoder, and one training step with its phases."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional, Protocol

import deepspeed
import torch
from torch import Tensor

from bench.trial import Configuration
from bench.worker import plugins, sdpa
from bench.worker.batch import Batch, global_batch, shard
from bench.worker.deepspeed_options import Watched
from bench.worker.mesh import Mesh, barrier
from bench.worker.model import ShardLoss, build
from bench.worker.reference import Reference


class Clock(Protocol):
    """What `bench.worker.metrics.clock` offers."""

    def mark(self) -> None: ...

    def synchronize(self) -> None: ...

    def seconds(self) -> Dict[str, List[float]]: ...


class Trainer:
    """One rank's engine, data and loss aggregation."""

    def __init__(
        self,
        configuration: Configuration,
        mesh: Mesh,
        reference: Reference,
        device: torch.device,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        """`beat` is called as a sign of life whenever a part is made.

        Raises UnaskedOption for one in `configuration.deepspeed` that DeepSpeed ignores.
        """
        core = plugins.load("attention", configuration.attention).build(mesh, configuration.model)
        dtype = getattr(torch, configuration.dtype)  # as DeepSpeed casts the module anyway
        module = build(configuration.model, core, reference.weights(), device, dtype, beat)
        config = Watched(deepspeed_config(configuration))
        mesh.partition(module, config, configuration.zero)
        self.engine, *_ = deepspeed.initialize(
            model=module,
            model_parameters=list(module.parameters()),
            config=config,
            **mesh.deepspeed_arguments,
        )
        beat()
        config.refuse_unasked(configuration.deepspeed)
        self._aggregate = plugins.load("loss", configuration.loss).aggregate
        self._group, self._device = mesh.sp_group, device
        self.shard_loss: Optional[ShardLoss] = None
        """What the forward pass of the last step gave this rank, before any aggregation."""
        self._batch = _on_device(_shard(configuration, mesh), device)
        sdpa.note_next()  # in the first step, which is never measured

    def step(
        self, enter: Callable[[str], None], clock: Clock, before_optimizer: Callable[[], None]
    ) -> Tensor:
        """One step on the same data; returns the loss that was back-propagated, detached.

        `enter(phase)` is told each phase's name as it begins, and `clock` marks its end.
        """
        barrier(self._device)
        enter("forward")
        clock.mark()
        shard_loss = ShardLoss(*self.engine(*self._batch))
        clock.mark()
        enter("aggregate")
        loss = self._aggregate(shard_loss, self._group)
        clock.mark()
        enter("backward")
        self.engine.backward(loss)
        clock.mark()
        before_optimizer()
        enter("optimizer")
        self.engine.step()
        clock.synchronize()
        clock.mark()
        self.shard_loss = ShardLoss(shard_loss.mean.detach(), shard_loss.tokens)
        return loss.detach()


def deepspeed_config(configuration: Configuration) -> Dict[str, Any]:
    """What `deepspeed.initialize` is given; the user's options go over spbench's.

    An optimizer is replaced as a whole: the parameters of one do not fit another.
    """
    c = configuration
    config: Dict[str, Any] = {
        "train_micro_batch_size_per_gpu": c.micro_batch,
        "gradient_accumulation_steps": 1,
        "steps_per_print": 2**31,
        "optimizer": {"type": "Adam", "params": {"lr": c.learning_rate, "torch_adam": True}},
        "zero_optimization": {"stage": c.zero},
        "bf16": {"enabled": c.dtype == "bfloat16"},
    }
    if "optimizer" in c.deepspeed:
        del config["optimizer"]
    return _merged(config, c.deepspeed)


def _merged(base: Dict[str, Any], over: Dict[str, Any]) -> Dict[str, Any]:
    """`over` wins, dictionary by dictionary."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _shard(configuration: Configuration, mesh: Mesh) -> Batch:
    return shard(global_batch(configuration), mesh.replica, mesh.sp_rank, mesh.sp)


def _on_device(batch: Batch, device: torch.device) -> List[Tensor]:
    return [torch.from_numpy(array).to(device) for array in batch]
