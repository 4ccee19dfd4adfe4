"""Makes what a reference folder lacks, each file whole or not at all."""

from __future__ import annotations

import resource
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional

import numpy as np
import torch
from torch import Tensor

from bench import theory
from bench.record import Wanted
from bench.record_files import first_loss_file
from bench.trial import Configuration
from bench.worker import model, precision, sdpa
from bench.worker.loss_definitions import OTHER
from bench.worker.metrics.gradient import Comparison, combine, compare
from bench.worker.reference import layers, whole
from bench.worker.reference.files import (
    OTHER_FILE,
    Losses,
    Reference,
    Take,
    new_vector,
    noise_file,
    write_json,
)
from bench.worker.reference.initial import link_weights

Beat = Optional[Callable[[], None]]


def missing(folder: Path, configuration: Configuration, check: Wanted) -> List[str]:
    """What `create` would have to make: `weights`, and for `exact` also `gradient` and `noise`.

    `other` is the gradient by the other definition, where there are two.
    """
    wanted = {"weights": folder / "weights.npy"}
    if check == "first_loss":
        wanted["first_loss"] = first_loss_file(folder)
    if check == "exact":
        wanted["gradient"] = folder / "reference.json"
        if configuration.ragged_replicas:
            wanted["other"] = folder / OTHER_FILE
        wanted["noise"] = noise_file(folder, configuration)
    return [part for part, path in wanted.items() if not path.exists()]


def create(
    folder: Path,
    configuration: Configuration,
    check: Wanted,
    *,
    by_layers: Optional[bool] = None,
    beat: Beat = None,
) -> None:
    """Make what `check` needs and `folder` lacks, on the first GPU where the trial runs on GPUs.

    `by_layers` is for tests: None does as `theory.reference_by_layers` says. `beat` is called
    now and then, as a sign of life, where the reference is made by layers.

    Raises:
        OSError: there is no room for the files.
        torch.OutOfMemoryError, or MemoryError: there is no memory for the reference.
    """
    parts = missing(folder, configuration, check)
    folder.mkdir(parents=True, exist_ok=True)
    if by_layers is None:
        by_layers = theory.reference_by_layers(configuration)
    if "weights" in parts:
        link_weights(folder, configuration)
    if "gradient" in parts or "other" in parts:
        _gradient(folder, configuration, by_layers, beat)
    if "noise" in parts:
        _noise(folder, configuration, by_layers, beat)
    if "first_loss" in parts:
        _first_loss(folder, configuration, beat)


def _gradient(folder: Path, configuration: Configuration, by_layers: bool, beat: Beat) -> None:
    """The float64 gradient and loss; by both definitions where replicas may differ."""
    c = configuration
    weights = Reference(folder, c.model).weights()
    shapes = model.parameter_shapes(c.model)
    device, began = _device(c), time.monotonic()
    with ExitStack() as files:
        own = files.enter_context(new_vector(folder / "gradient.npy", shapes, np.float64))
        other: Optional[Dict[str, np.ndarray]] = None
        if c.ragged_replicas:
            other = files.enter_context(new_vector(folder / OTHER_FILE, shapes, np.float64))
        take_other = None if other is None else _into(other)
        losses = _computed(c, weights, torch.float64, _into(own), by_layers, beat, take_other)
        about_other = None if other is None else _about_other(c, own, other, losses)
    content = {
        "loss": losses.own,
        "reference": c.reference,
        "other": about_other,
        "torch": torch.__version__,
        "by": "layers" if by_layers else "whole",
        "device": _device_name(device),
        "seconds": round(time.monotonic() - began, 3),
        "peak_bytes": _peak_bytes(device),
    }
    write_json(folder / "reference.json", content)


def _into(vector: Mapping[str, np.ndarray]) -> Take:
    def take(name: str, value: np.ndarray) -> None:
        vector[name][...] = value

    return take


def _about_other(
    configuration: Configuration,
    own: Mapping[str, np.ndarray],
    other: Mapping[str, np.ndarray],
    losses: Losses,
) -> Optional[Dict[str, Any]]:
    """What `reference.json` says of the other definition; None where the two gradients are one."""
    distance = combine(compare(own[name], other[name]) for name in own).relative_error
    if not distance:
        return None
    return {
        "reference": OTHER[configuration.reference],
        "loss": losses.other,
        "distance": distance,
    }


def _first_loss(folder: Path, configuration: Configuration, beat: Beat) -> None:
    """The float64 loss without a gradient."""
    weights = Reference(folder, configuration.model).weights()
    loss = layers.loss(configuration, weights, _device(configuration), beat=beat)
    write_json(first_loss_file(folder), {"loss": loss, "torch": torch.__version__})


def _noise(folder: Path, configuration: Configuration, by_layers: bool, beat: Beat) -> None:
    """The error of one process in the trial's dtype, one parameter in memory at a time."""
    reference = Reference(folder, configuration.model)
    exact = reference.gradient()
    found: Dict[str, Comparison] = {}

    def take(name: str, value: np.ndarray) -> None:
        found[name] = compare(value, exact[name])

    dtype = getattr(torch, configuration.dtype)
    precision.set_matmul(configuration.matmul)
    sdpa.restrict(configuration.sdpa)  # for good: what is exact was made before
    _computed(configuration, reference.weights(), dtype, take, by_layers, beat)
    content = {
        "overall": combine(found.values()).relative_error,
        "parameters": {name: found[name].relative_error for name in exact},
    }
    write_json(noise_file(folder, configuration), content)


def _computed(
    configuration: Configuration,
    weights: Mapping[str, Tensor],
    dtype: torch.dtype,
    take: Take,
    by_layers: bool,
    beat: Beat,
    take_other: Optional[Take] = None,
) -> Losses:
    if not by_layers:
        return whole.loss_and_gradient(configuration, weights, dtype, take, take_other)
    return layers.loss_and_gradient(
        configuration,
        weights,
        dtype,
        take,
        device=_device(configuration),
        beat=beat,
        take_other=take_other,
    )


def _device(configuration: Configuration) -> torch.device:
    return torch.device("cuda:0" if configuration.comm.device == "cuda" else "cpu")


def _device_name(device: torch.device) -> str:
    return str(torch.cuda.get_device_name(device)) if device.type == "cuda" else "cpu"


def _peak_bytes(device: torch.device) -> int:
    """Most memory so far: of the GPU's allocator, or of this process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
