"""The initial weights: drawn once per model, seed and code, and shared by all its references."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from bench.trial import Configuration
from bench.worker import model
from bench.worker.code import imported
from bench.worker.reference.files import new_vector

INITIAL_STD = 0.02
"""Standard deviation of every matrix at the start, as in GPT-2; norms start at 1."""


def link_weights(folder: Path, configuration: Configuration) -> None:
    """Make `weights.npy` a link to the weights that all references of the model share."""
    key = f"{configuration.weights_key}-{imported().weights_code()}"
    shared = folder.parent / f"weights-{key}.npy"
    if not shared.exists():
        _draw(shared, configuration)
    link = folder / f".weights-{os.getpid()}"
    link.symlink_to(Path("..") / shared.name)
    link.replace(folder / "weights.npy")


def _draw(path: Path, configuration: Configuration) -> None:
    """Every parameter from a stream of its own, so that order does not matter."""
    shapes = model.parameter_shapes(configuration.model)
    with new_vector(path, shapes, np.float32) as weights:
        for index, (name, part) in enumerate(weights.items()):
            if name.endswith("norm.weight"):
                part[...] = 1.0
            else:
                key = [configuration.seed, 2 + index]
                generator = np.random.Generator(np.random.Philox(key=key))
                generator.standard_normal(dtype=np.float32, out=part)
                part *= np.float32(INITIAL_STD)
