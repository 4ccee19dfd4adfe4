"""The files of a reference folder: read through memory maps, written whole or not at all."""

from __future__ import annotations

import json
import math
import os
import re
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Mapping, NamedTuple, Optional, Tuple

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor

from bench.trial import Configuration, ModelSpec
from bench.worker import model
from bench.worker.metrics.gradient import Noise, Other

Shapes = Mapping[str, Tuple[int, ...]]
Take = Callable[[str, np.ndarray], None]
"""Is told each parameter's name and gradient, float64, once."""
OTHER_FILE = "gradient-other.npy"


class Losses(NamedTuple):
    """The loss of the whole batch by both definitions."""

    own: float
    """By `configuration.reference`."""
    other: float

    def plus(self, part: float, ratio: float) -> Losses:
        """With a part of the own loss added, which counts `ratio` times as much in the other."""
        return Losses(self.own + part, self.other + part * ratio)


class Reference:
    """What lies in a reference folder, memory-mapped."""

    def __init__(self, folder: Path, spec: ModelSpec) -> None:
        self._folder = folder
        self._shapes = model.parameter_shapes(spec)

    def weights(self) -> Dict[str, Tensor]:
        """Initial weights by name, float32; read-only views of the file."""
        flat = np.load(self._folder / "weights.npy", mmap_mode="c")
        return {name: torch.from_numpy(part) for name, part in _parts(flat, self._shapes)}

    def gradient(self) -> Dict[str, np.ndarray]:
        """The exact gradient by name, float64."""
        flat = np.load(self._folder / "gradient.npy", mmap_mode="r")
        return dict(_parts(flat, self._shapes))

    def loss(self) -> float:
        """The exact loss."""
        return float(self._about()["loss"])

    def other(self) -> Optional[Other]:
        """The exact gradient by the other definition; None where the two are one."""
        about = self._about().get("other")
        if about is None:
            return None
        flat = np.load(self._folder / OTHER_FILE, mmap_mode="r")
        return Other(gradient=dict(_parts(flat, self._shapes)), **about)

    def _about(self) -> Dict[str, Any]:
        about: Dict[str, Any] = json.loads((self._folder / "reference.json").read_text())
        return about

    def noise(self, configuration: Configuration) -> Noise:
        """What dtype and precision of `configuration` alone cost on this torch and device."""
        content = json.loads(noise_file(self._folder, configuration).read_text())
        return Noise(content["overall"], content["parameters"])


def noise_file(folder: Path, configuration: Configuration) -> Path:
    """Where the noise floor of `configuration` on this interpreter's torch is kept.

    A GPU is named by the first that this process sees, whichever of them the rank uses.
    """
    c = configuration
    name = f"noise-{c.dtype}-{torch.__version__}"
    if c.comm.device == "cuda":
        name += "-cuda-" + re.sub(r"[^\w.+-]+", "_", torch.cuda.get_device_name(0))
    if c.matmul != "highest":
        name += f"-{c.matmul}"
    if c.sdpa != "auto":
        name += f"-{c.sdpa}"
    return folder / f"{name}.json"


@contextmanager
def new_vector(path: Path, shapes: Shapes, dtype: type) -> Iterator[Dict[str, np.ndarray]]:
    """Views by name, to be filled, of one vector of all parameters in the file `path`.

    The file appears when the block ends without an exception. Its room on disk is taken
    beforehand: a disk that fills up under a memory map kills the process.

    Raises:
        OSError: there is no room for it.
    """
    temporary = path.with_name(f".{path.stem}-{os.getpid()}.npy")
    total = sum(math.prod(shape) for shape in shapes.values())
    try:
        flat = open_memmap(temporary, mode="w+", dtype=dtype, shape=(total,))
        with temporary.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, temporary.stat().st_size)
        yield dict(_parts(flat, shapes))
        flat.flush()
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write `content` into a file that appears whole or not at all."""
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    temporary.write_text(json.dumps(content))
    temporary.replace(path)


def _parts(flat: np.ndarray, shapes: Shapes) -> Iterator[Tuple[str, np.ndarray]]:
    start = 0
    for name, shape in shapes.items():
        size = math.prod(shape)
        yield name, flat[start : start + size].reshape(shape)
        start += size
