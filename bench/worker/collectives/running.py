"""Runs cases on every rank, one after another, so that one that fails takes no other with it.

After each case all ranks tell each other through the store (never through a collective, which may
be what just failed) that they are out of it. Where any of them was not fine, messages may still be
under way and sequence numbers differ: the groups are made anew. A collective whose peers never
come is given up by gloo after `patience_s`, or sooner where the same collective hung before in
another form; a rank that does not come back even so has to be ended from outside, and `PeerLost`
is what the others then raise.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import time
from datetime import timedelta
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Set, Tuple

import torch
import torch.distributed as dist

from bench.worker.collectives import data
from bench.worker.collectives.answers import OPERATIONS
from bench.worker.collectives.calls import Place, deepspeed_state
from bench.worker.collectives.catalogue import KNOWN, Case, function_of
from bench.worker.collectives.judging import compared, verdict, without_gradient
from bench.worker.collectives.variant import PART, input_shapes

Note = Callable[..., None]
Partition = Sequence[Sequence[int]]
"""Groups of global ranks that run a case side by side."""

PATIENCE_S = 5.0
"""Long enough for a machine with many times more processes than cores."""
_AGAIN = 0.4  # of the patience, for other forms of what hung
_NCCL_PATIENCE_S = 60.0  # its first collective on a group sets up connections
_runs = itertools.count()


class PeerLost(RuntimeError):
    """Another rank did not come out of a case."""


def run_cases(
    partitions: Mapping[str, Partition],
    device: torch.device,
    note: Note,
    *,
    cases: Sequence[Case],
    patience_s: float = PATIENCE_S,
) -> None:
    """Run `cases` on the groups of `partitions`; every rank of the default group must call this.

    Works in any process with an initialised default process group. `note` is called on every
    member of a group with `event="begin"` and `event="end"` and the case's `fields`; the end has
    the `status` (`ok`, `wrong value`, `wrong gradient`, `wrong value and gradient`, `no gradient`,
    `wrong value and no gradient`, `error`, `hang`) and what is behind it. `patience_s`: seconds
    after which a collective that waits counts as hung.

    Raises:
        PeerLost: a rank died, or hangs where no time-out reaches it.
    """
    if device.type == "cuda":
        patience_s = max(patience_s, _NCCL_PATIENCE_S)
    meeting = _Meeting(patience_s)
    groups = {name: _Groups(partition) for name, partition in partitions.items()}
    hung: Set[Tuple[str, str, str]] = set()
    for case in cases:
        family = (case.collective, case.variant.label, case.group)
        patience = patience_s * (_AGAIN if family in hung else 1.0)
        group, ranks = groups[case.group].with_patience(patience)
        status = "ok"
        if dist.get_rank() in ranks:
            note(event="begin", ranks=list(ranks), **case.fields)
            index = ranks.index(dist.get_rank())
            place = Place(group, ranks, index, case.variant, case.awaited or "direct")
            found = _attempt(case, place, device, patience)
            note(event="end", **found, **case.fields)
            status = found["status"]
        statuses = meeting.statuses(status, case.name)
        if statuses & {"error", "hang"}:
            groups[case.group].discard()
        if "hang" in statuses:
            hung.add(family)
    meeting.part()


def _attempt(case: Case, place: Place, device: torch.device, patience_s: float) -> Dict[str, Any]:
    phase, start = ["forward"], time.monotonic()

    def entered(name: str) -> None:
        nonlocal start
        phase[0], start = name, time.monotonic()

    try:
        with _poisoned_memory(), deepspeed_state(place):
            return run_case(case, place, device, entered)
    except Exception as exception:  # noqa: BLE001 (whatever a collective raises is a finding)
        waited = time.monotonic() - start
        return {"phase": phase[0], **_failure(exception, waited, patience_s)}


def run_case(
    case: Case, place: Place, device: torch.device, entered: Callable[[str], None]
) -> Dict[str, Any]:
    """One case on one rank: its status, and what is behind it. Raises what the collective raises.

    `entered` is told the phase: `forward`, `backward`.
    """
    known = KNOWN[case.collective]
    operation = OPERATIONS[known.operation]
    random = data.generator(case.name, place.ranks)
    x = data.draw_inputs(random, input_shapes(known.operation, case.variant, place.size))
    y = operation.outputs(x, case.variant)
    common = case.variant.use == "same_loss"
    u = data.draw_upstream(random, data.shapes_of(y, PART), case.layout, common=common)
    g = operation.gradients(x, u, case.variant)
    dtype = getattr(torch, case.dtype)
    given = [data.as_tensor(one, dtype, device).requires_grad_() for one in x[place.rank]]
    upstream = [data.as_tensor(one, dtype, device) for one in u[place.rank]]
    upstream = [data.laid_out(one, case.layout, place.rank) for one in upstream]

    entered("forward")
    outputs = known.call(function_of(case.collective), list(given), place)
    _synchronize(device)
    value = compared(outputs, y[place.rank], case.dtype)
    if not any(output.requires_grad for output in outputs):
        return without_gradient(value)
    if value is not None and "problem" in value:
        upstream = [_fitting(one, output) for one, output in zip(upstream, outputs)]
    entered("backward")
    gradients = torch.autograd.grad(outputs, given, upstream, allow_unused=True)
    _synchronize(device)
    if all(gradient is None for gradient in gradients):
        return without_gradient(value)
    return verdict(value, compared(gradients, g[place.rank], case.dtype))


def _fitting(upstream: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    """An output of a wrong shape takes the same values in its own shape, where it can."""
    return upstream if upstream.shape == output.shape else upstream.reshape(output.shape)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


_GAVE_UP = re.compile(r"timed? ?out", re.IGNORECASE)


def _failure(exception: Exception, waited_s: float, patience_s: float) -> Dict[str, Any]:
    """A hang where gloo gave up waiting, or lost a peer that had; an error otherwise."""
    message = (str(exception).strip().splitlines() or [""])[0][:300]
    hung = waited_s > 0.8 * patience_s or _GAVE_UP.search(message)
    kind = type(exception).__name__
    return {"status": "hang" if hung else "error", "type": kind, "message": message}


@contextlib.contextmanager
def _poisoned_memory() -> Iterator[None]:
    """Fresh tensors hold NaN: memory that was never written to must not pass for an answer."""
    deterministic: Any = getattr(torch.utils, "deterministic", None)
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    if deterministic is None:  # torch before 2.2
        yield
        return
    fill = deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    deterministic.fill_uninitialized_memory = True
    try:
        yield
    finally:
        deterministic.fill_uninitialized_memory = fill
        torch.use_deterministic_algorithms(before, warn_only=warn_only)


class _Meeting:
    """Where ranks tell each other that they are out of a case."""

    def __init__(self, patience_s: float) -> None:
        self._store = dist.distributed_c10d._get_default_store()
        self._run = next(_runs)
        self._number = 0
        # forward and backward may each wait once, and a machine may be slow
        self._wait = timedelta(seconds=4 * patience_s + 10)

    def statuses(self, status: str, case: str) -> Set[str]:
        """Everybody's status; waits until each is out of `case`."""
        at = f"collectives/{self._run}/{self._number}"
        keys = [f"{at}/{rank}" for rank in range(dist.get_world_size())]
        self._number += 1
        self._store.set(keys[dist.get_rank()], status)
        try:
            self._store.wait(keys, self._wait)
        except RuntimeError as error:  # DistStoreError is one
            raise PeerLost(f"a rank did not come out of {case}") from error
        return {self._store.get(key).decode() for key in keys}

    def part(self) -> None:
        """Rank 0, which may serve the store, leaves after all others have."""
        keys = [f"collectives/{self._run}/left/{rank}" for rank in range(dist.get_world_size())]
        self._store.set(keys[dist.get_rank()], "")
        if dist.get_rank() == 0:
            self._store.wait(keys, self._wait)


class _Groups:
    """The process groups of a partition, made when they are needed."""

    def __init__(self, partition: Partition) -> None:
        self._partition = partition
        self._patience_s: Optional[float] = None
        self._mine: Tuple[Optional[Any], Tuple[int, ...]] = (None, ())

    def discard(self) -> None:
        """Make new ones the next time."""
        self._patience_s = None

    def with_patience(self, seconds: float) -> Tuple[Optional[Any], Tuple[int, ...]]:
        """This rank's group, whose collectives give up after so long, and its members.

        Every rank of the default group must call this.
        """
        if self._patience_s != seconds:
            self._patience_s = seconds
            for ranks in self._partition:
                group = dist.new_group(list(ranks), timeout=timedelta(seconds=seconds))
                if dist.get_rank() in ranks:
                    self._mine = (group, tuple(ranks))
        return self._mine


def partitions_of(world: int, sp: int) -> Dict[str, List[List[int]]]:
    """`world`, and the sequence-parallel groups of consecutive ranks where they are smaller."""
    whole = {"world": [list(range(world))]}
    if sp in (1, world):
        return whole
    return {**whole, "sp": [list(range(at, at + sp)) for at in range(0, world, sp)]}
