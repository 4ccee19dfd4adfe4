"""A sketch of every parameter's gradient, kept for comparisons with other trials.

Each rank sketches what ZeRO left on it and the sums are added, in float64: nothing is gathered, and
rank 0 writes `sketches/<trial_id>.npz`, some 10 MB for 8 billion parameters. It judges nothing;
`analysis.sketches` compares two of them.

Cost: one pass over the rank's own part, in chunks (`countsketch.CHUNK`), and one all-reduce of the
sums. Where a rank's part cannot be seen, the parameter is gathered, one at a time, and each rank
sketches its share of the indices.

The file holds, for P parameters: `names`, `sizes` [P], `sums` (the parameters' sums one after
another), `squares` [P] (exact squared norms), `spread` [P] (furthest rank's distance from the mean
over ranks, relative, where each rank holds the whole gradient; else 0), `missing` [P], and `about`,
a JSON object: `version`, `buckets`, `reference_key`, `dtype`, `matmul`, `world`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Tuple

import numpy as np
import torch
import torch.distributed as dist
from deepspeed.utils import safe_get_full_grad
from torch import Tensor, nn

from bench.worker.gradient_share import Share, held, size_of
from bench.worker.mesh import Mesh
from bench.worker.metrics.countsketch import BUCKETS, SKETCH_VERSION, buckets_of, sketch, square
from bench.worker.rank import Rank
from bench.worker.training import Trainer

Parameters = List[Tuple[str, nn.Parameter]]


class Sketch(NamedTuple):
    """What the ranks found together, on the CPU; see the file's fields above."""

    sums: np.ndarray
    squares: np.ndarray
    spread: np.ndarray
    missing: np.ndarray


def check(rank: Rank, trainer: Trainer, mesh: Mesh) -> Dict[str, Any]:
    """The fields `sketch`, a path relative to the results folder, and `sketch_version`.

    `gradient_reason` in their stead where the file cannot be written: that costs no measurement.
    """
    parameters = [(n, p) for n, p in trainer.engine.module.named_parameters() if size_of(p)]
    # optimizers for 16 bit scale the loss and divide the gradient by as much when they step
    loss_scale = float(getattr(trainer.engine.optimizer, "loss_scale", 1.0))
    found = sketched(parameters, rank.device, lambda: rank.enter("gradient", 0))
    path = sketch_path(rank)
    if rank.index == 0:
        try:
            _write(path, parameters, _unscaled(found, loss_scale), about(rank))
        except OSError as error:
            why = f"{path.name} could not be written: {error.strerror or error}"
            return {"gradient_reason": f"not compared: the sketch {why}"}
    return {"sketch": str(path.relative_to(path.parents[1])), "sketch_version": SKETCH_VERSION}


def sketch_path(rank: Rank) -> Path:
    """Where the sketch goes: beside the logs, named by the trial."""
    log = rank.request.log
    return log.parents[1] / "sketches" / f"{log.stem}.npz"


def about(rank: Rank) -> Dict[str, Any]:
    """What must agree, or be known, for two sketches to be compared."""
    c = rank.configuration
    judged_alike = c.model_copy(update={"reference": "replica_mean"})  # a sketch judges nothing
    return {
        "version": SKETCH_VERSION,
        "buckets": BUCKETS,
        "reference_key": judged_alike.reference_key,
        "dtype": c.dtype,
        "matmul": c.matmul,
        "world": c.world,
    }


def sketched(parameters: Parameters, device: torch.device, beat: Callable[[], None]) -> Sketch:
    """The gradient's sketch, the same on every rank; all ranks must call this together.

    `beat` is called before each parameter. An element that k ranks hold counts 1/k on each.
    """
    table = _Table(parameters, device)
    for index, (_, parameter) in enumerate(parameters):
        beat()
        table.add(index, held(parameter))
    own, counts = table.sums.clone(), table.counts.clone()
    table.reduce()
    copies = table.copies()
    gathered = [index for index, copy in enumerate(copies) if not copy]
    if gathered:  # every rank sees the same counts and so takes the same way
        _gather(table, gathered, parameters, beat)
    table.divide([copy or 1 for copy in copies])
    missing = table.counts == 0
    spread = _spread(table, own, counts)
    return Sketch(*(one.cpu().numpy() for one in (table.sums, table.squares, spread, missing)))


class _Table:
    """Sums, squared norms and counts of elements of all parameters, float64."""

    def __init__(self, parameters: Parameters, device: torch.device) -> None:
        self.names = [name for name, _ in parameters]
        self.sizes = [size_of(parameter) for _, parameter in parameters]
        self.buckets = [buckets_of(size) for size in self.sizes]
        self._lengths = [sum(self.buckets), len(self.sizes), len(self.sizes)]
        self._all = torch.zeros(sum(self._lengths), dtype=torch.float64, device=device)

    @property
    def sums(self) -> Tensor:
        return self._all.split(self._lengths)[0]

    @property
    def squares(self) -> Tensor:
        return self._all.split(self._lengths)[1]

    @property
    def counts(self) -> Tensor:
        return self._all.split(self._lengths)[2]

    def of_parameters(self, sums: Tensor) -> Tuple[Tensor, ...]:
        """`sums`, parameter by parameter."""
        return sums.split(self.buckets)

    def add(self, index: int, share: Optional[Share]) -> None:
        """Add some elements of a parameter's gradient."""
        if share is None:
            return
        part = sketch(self.names[index], self.sizes[index], *share)
        self.of_parameters(self.sums)[index].add_(part.to(self._all.device))
        self.squares[index] += square(share.values).to(self._all.device)
        self.counts[index] += share.values.numel()

    def clear(self, index: int) -> None:
        """Forget a parameter."""
        self.of_parameters(self.sums)[index].zero_()
        self.squares[index] = self.counts[index] = 0.0

    def reduce(self) -> None:
        """Add up what all ranks have."""
        dist.all_reduce(self._all)

    def copies(self) -> List[int]:
        """How many ranks hold each element; 0 where none does, or not all elements alike."""
        counts = [int(count) for count in self.counts.tolist()]
        return [0 if count % size else count // size for count, size in zip(counts, self.sizes)]

    def divide(self, copies: List[int]) -> None:
        """Turn sums over copies into means."""
        factors = torch.tensor(copies, dtype=torch.float64, device=self._all.device)
        self.squares.div_(factors)
        widths = torch.tensor(self.buckets, device=self._all.device)
        self.sums.div_(factors.repeat_interleave(widths))


def _gather(
    table: _Table, indices: List[int], parameters: Parameters, beat: Callable[[], None]
) -> None:
    """Sketch some parameters from their whole gradients, each rank its share of the indices."""
    rank, world = dist.get_rank(), dist.get_world_size()
    more = _Table(parameters, table.sums.device)
    for index in indices:
        beat()
        table.clear(index)
        whole = safe_get_full_grad(parameters[index][1])
        if whole is not None:
            start, end = (table.sizes[index] * part // world for part in (rank, rank + 1))
            more.add(index, Share(start, whole.detach().flatten()[start:end]))
    more.reduce()
    for mine, others in ((table.sums, more.sums), (table.squares, more.squares)):
        mine.add_(others)
    table.counts.add_(more.counts)


def _spread(table: _Table, own: Tensor, counts: Tensor) -> Tensor:
    """|own - mean| / |mean| of the sketches, the largest of all ranks, by parameter."""
    means, mine = table.of_parameters(table.sums), table.of_parameters(own)
    whole = [count == size for count, size in zip(counts.tolist(), table.sizes)]
    apart = [
        (one - mean).norm() / mean.norm().clamp(min=torch.finfo(torch.float64).tiny)
        if all_here
        else mean.new_zeros(())
        for one, mean, all_here in zip(mine, means, whole)
    ]
    # a rank of several that holds a parameter alone has nobody to differ from
    spread = torch.stack(apart) if apart else own.new_zeros(0)
    dist.all_reduce(spread, op=dist.ReduceOp.MAX)
    return spread


def _unscaled(found: Sketch, loss_scale: float) -> Sketch:
    return found._replace(sums=found.sums / loss_scale, squares=found.squares / loss_scale**2)


def _write(
    path: Path, parameters: Parameters, found: Sketch, description: Mapping[str, Any]
) -> None:
    """Write the file; it appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}-{os.getpid()}.npz")
    with temporary.open("wb") as file:
        np.savez(
            file,
            names=np.array([name for name, _ in parameters]),
            sizes=np.array([size_of(parameter) for _, parameter in parameters], dtype=np.int64),
            about=np.array(json.dumps(description)),
            **found._asdict(),
        )
    temporary.replace(path)
