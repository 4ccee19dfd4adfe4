"""Questions of `spbench selfcheck` that only a rank can answer; `options.check` names one.

    tensor           computes on the rank's device
    events           the same work by CUDA events and by the wall clock
    full_card        fills the card, then asks cuBLAS for a product: must end as `oom`
    reference        the float64 reference by layers on this device, beside the whole one on CPU
    instrumentation  steps of the harness beside steps of a bare loop

The answer is in the record's `details`.
"""

from __future__ import annotations

import statistics
import time
from typing import Any, Callable, Dict, List

import numpy as np
import torch

from bench.worker.metrics.clock import CudaClock
from bench.worker.metrics.instrumentation import interleaved
from bench.worker.rank import Rank
from bench.worker.reference import Reference

_MATRIX = 2048
_PRODUCTS = 200
_BLOCK_BYTES = (1 << 30, 1 << 24, 1 << 21)
"""Sizes of the blocks that a card is filled with, the largest first."""


def run(rank: Rank) -> Dict[str, Any]:
    """Answer one question.

    Raises:
        ValueError: `options.check` is none of the above, or the device cannot answer it.
    """
    name = rank.configuration.options.get("check", "tensor")
    answer = _CHECKS.get(name)
    if answer is None:
        raise ValueError(f"options.check={name}: unknown; allowed: {', '.join(_CHECKS)}")
    rank.enter(name)
    return {"details": answer(rank)}


def _tensor(rank: Rank) -> Dict[str, Any]:
    total = float(torch.ones(1000, device=rank.device).sum())
    if total != 1000.0:
        raise ValueError(f"1000 ones on {rank.device} add up to {total}")
    cuda = rank.device.type == "cuda"
    name = torch.cuda.get_device_name(rank.device) if cuda else "cpu"
    return {"device": name}


def _events(rank: Rank) -> Dict[str, Any]:
    """Median seconds of the phases' sum by events, and of the same by the wall clock."""
    _require_cuda(rank, "events")
    a = torch.randn(_MATRIX, _MATRIX, device=rank.device)
    by_wall: List[float] = []
    clock = CudaClock()
    for _ in range(20):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for mark in range(5):  # the start, and the end of four phases
            clock.mark()
            for _ in range(_PRODUCTS // 4 if mark < 4 else 0):
                a @ a
        torch.cuda.synchronize()
        by_wall.append(time.perf_counter() - start)
    by_events = clock.seconds()["step"]
    return {
        "events_s": statistics.median(by_events[5:]),
        "wall_s": statistics.median(by_wall[5:]),
    }


def _full_card(rank: Rank) -> Dict[str, Any]:
    """Nothing was multiplied before, so that cuBLAS has no handle and no workspace yet."""
    _require_cuda(rank, "full_card")
    a = torch.ones(_MATRIX, _MATRIX, device=rank.device)
    out = torch.empty_like(a)
    held: List[torch.Tensor] = []
    for size in _BLOCK_BYTES:
        try:
            while True:
                held.append(torch.empty(size, dtype=torch.uint8, device=rank.device))
        except torch.cuda.OutOfMemoryError:
            continue
    torch.mm(a, a, out=out)
    torch.cuda.synchronize()
    raise ValueError(f"cuBLAS found memory on a card that {len(held)} blocks had filled")


def _reference(rank: Rank) -> Dict[str, Any]:
    """The largest relative error of a parameter's gradient, NaN counting as the largest.

    Blocks and tiles are shorter than the sequence, so that all paths of the layers' code run.

    Raises:
        ValueError: a parameter has no gradient by layers.
    """
    from bench.worker.reference import layers, whole

    c, weights = rank.configuration, Reference(rank.reference, rank.configuration.model).weights()
    expected: Dict[str, np.ndarray] = {}
    errors: Dict[str, float] = {}

    def compare(name: str, gradient: np.ndarray) -> None:
        difference = np.linalg.norm(gradient - expected[name])
        errors[name] = float(difference / np.linalg.norm(expected[name]))

    whole.loss_and_gradient(c, weights, torch.float64, expected.__setitem__)
    sizes = layers.Sizes(block=24, tile=20, loss_tile=28)
    layers.loss_and_gradient(c, weights, torch.float64, compare, rank.device, sizes)
    missing = sorted(expected.keys() - errors.keys())
    if missing:
        raise ValueError(f"no gradient by layers: {', '.join(missing)}")
    worst = float(np.max(list(errors.values())))  # which is NaN where one is
    return {"relative_error": worst, "device": str(rank.device)}


def _instrumentation(rank: Rank) -> Dict[str, Any]:
    cuda = rank.device.type == "cuda"
    rounds = interleaved(rank, rounds=40 if cuda else 4, steps=10 if cuda else 5)
    ratios = [statistics.median(seen) / statistics.median(bare) for bare, seen in rounds]
    return {
        "ratio": statistics.median(ratios),
        "bare_s": statistics.median(statistics.median(bare) for bare, _ in rounds),
    }


def _require_cuda(rank: Rank, check: str) -> None:
    if rank.device.type != "cuda":
        raise ValueError(f"options.check={check}: needs a GPU")


_CHECKS: Dict[str, Callable[[Rank], Dict[str, Any]]] = {
    "tensor": _tensor,
    "events": _events,
    "full_card": _full_card,
    "reference": _reference,
    "instrumentation": _instrumentation,
}
