"""The exact gradient: one process, the whole batch, float64, dense attention.

It is computed once per model, data and sequence length, in a process of its own, kept on disk
and shared by every trial that has the same `Configuration.reference_key`. The initial weights
lie beside it: they are drawn once and loaded by all, so that no version draws its own.

    weights.npy    float32, all parameters one after another in the model's order; a link to
                   the file beside the folders, which all lengths and splits share
    gradient.npy   float64, likewise
    reference.json loss, shapes, who computed it
    noise-<dtype>-<torch>.json   relative error of one process in that dtype, on that torch
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, Tuple

import numpy as np
import torch
from torch import Tensor

from bench.record import GradientMode
from bench.trial import Configuration, ModelSpec
from bench.worker import model
from bench.worker.attention.local import causal_attention
from bench.worker.batch import global_batch, shard
from bench.worker.metrics.gradient import Noise, combine, compare

INITIAL_STD = 0.02
"""Standard deviation of every matrix at the start, as in GPT-2; norms start at 1."""


class Reference:
    """What lies in a reference folder, memory-mapped."""

    def __init__(self, folder: Path, spec: ModelSpec) -> None:
        self._folder = folder
        self._shapes = model.parameter_shapes(spec)

    def weights(self) -> Dict[str, Tensor]:
        """Initial weights by name, float32; read-only views of the file."""
        flat = np.load(self._folder / "weights.npy", mmap_mode="c")
        return {name: torch.from_numpy(part) for name, part in self._parts(flat)}

    def gradient(self) -> Dict[str, np.ndarray]:
        """The exact gradient by name, float64."""
        return dict(self._parts(np.load(self._folder / "gradient.npy", mmap_mode="r")))

    def loss(self) -> float:
        """The exact loss."""
        return float(json.loads((self._folder / "reference.json").read_text())["loss"])

    def noise(self, dtype: str) -> Noise:
        """What `dtype` alone costs on this torch."""
        content = json.loads(noise_file(self._folder, dtype).read_text())
        return Noise(content["overall"], content["parameters"])

    def _parts(self, flat: np.ndarray) -> Iterator[Tuple[str, np.ndarray]]:
        start = 0
        for name, shape in self._shapes.items():
            size = math.prod(shape)
            yield name, flat[start : start + size].reshape(shape)
            start += size


def noise_file(folder: Path, dtype: str) -> Path:
    """Where the noise floor of `dtype` on this interpreter's torch is kept."""
    return folder / f"noise-{dtype}-{torch.__version__}.json"


def missing(folder: Path, configuration: Configuration, check: GradientMode) -> List[str]:
    """What `create` would have to make: `weights`, and for `exact` also `gradient` and `noise`."""
    wanted = {"weights": folder / "weights.npy"}
    if check == "exact":
        wanted["gradient"] = folder / "reference.json"
        wanted["noise"] = noise_file(folder, configuration.dtype)
    return [part for part, path in wanted.items() if not path.exists()]


def create(folder: Path, configuration: Configuration, check: GradientMode) -> None:
    """Make what `check` needs and `folder` lacks; each file appears whole or not at all."""
    parts = missing(folder, configuration, check)
    folder.mkdir(parents=True, exist_ok=True)
    spec = configuration.model
    if "weights" in parts:
        _link_weights(folder, configuration)
    reference = Reference(folder, spec)
    if "gradient" in parts:
        loss, gradient = _loss_and_gradient(configuration, reference.weights(), torch.float64)
        _save(folder / "gradient.npy", (g.ravel() for g in gradient.values()))
        _write_json(folder / "reference.json", {"loss": loss, "torch": torch.__version__})
    if "noise" in parts:
        dtype = getattr(torch, configuration.dtype)
        _, gradient = _loss_and_gradient(configuration, reference.weights(), dtype)
        exact = reference.gradient()
        single = {name: compare(gradient[name], exact[name]) for name in exact}
        content = {
            "overall": combine(single.values()).relative_error,
            "parameters": {name: one.relative_error for name, one in single.items()},
        }
        _write_json(noise_file(folder, configuration.dtype), content)


def _link_weights(folder: Path, configuration: Configuration) -> None:
    """Make `weights.npy` a link to the weights that all references of the model share."""
    shared = folder.parent / f"weights-{configuration.weights_key}.npy"
    if not shared.exists():
        _save(shared, _initial_weights(configuration.model, configuration.seed))
    link = folder / f".weights-{os.getpid()}"
    link.symlink_to(Path("..") / shared.name)
    link.replace(folder / "weights.npy")


def _initial_weights(spec: ModelSpec, seed: int) -> Iterator[np.ndarray]:
    """Every parameter as a float32 vector: each its own stream, so that order does not matter."""
    for index, (name, shape) in enumerate(model.parameter_shapes(spec).items()):
        if name.endswith("norm.weight"):
            yield np.ones(shape, np.float32).ravel()
        else:
            generator = np.random.Generator(np.random.Philox(key=[seed, 2 + index]))
            normal = generator.standard_normal(math.prod(shape), np.float32)
            yield normal * np.float32(INITIAL_STD)


def _loss_and_gradient(
    configuration: Configuration, weights: Dict[str, Tensor], dtype: torch.dtype
) -> Tuple[float, Dict[str, np.ndarray]]:
    """Mean over replicas of the mean over a replica's valid labels, and its gradient by name.

    Replicas are taken one after another, and their gradients add up in place.
    """
    module = model.build(configuration.model, causal_attention, weights).to(dtype)
    batch, total = global_batch(configuration), 0.0
    for replica in range(configuration.dp):
        mean, _ = module(*map(torch.from_numpy, shard(batch, replica, 0, 1)))
        (mean / configuration.dp).backward()
        total += mean.item() / configuration.dp
    gradient = {}
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        gradient[name] = parameter.grad.double().numpy()
    return total, gradient


def _save(path: Path, parts: Iterable[np.ndarray]) -> None:
    """One vector of all parts, in a file that appears whole or not at all."""
    temporary = path.with_name(f".{path.stem}-{os.getpid()}.npy")
    np.save(temporary, np.concatenate(list(parts)))
    temporary.replace(path)


def _write_json(path: Path, content: object) -> None:
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    temporary.write_text(json.dumps(content))
    temporary.replace(path)
