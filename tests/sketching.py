"""CountSketches by their definition, in NumPy, and files of them for tests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

BUCKETS = 4096


def splitmix64(key: int, count: int) -> np.ndarray:
    """The first `count` outputs of the generator seeded with `key`, in unsigned arithmetic."""
    z = np.uint64(key) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def sketch_of(name: str, vector: np.ndarray) -> np.ndarray:
    """A parameter's sketch, float64."""
    vector = vector.ravel().astype(np.float64)
    if vector.size <= BUCKETS:
        return vector
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    hashes = splitmix64(key, vector.size)
    signs = 1.0 - 2.0 * (hashes >> np.uint64(63)).astype(np.float64)
    places = (hashes % np.uint64(BUCKETS)).astype(np.int64)
    return np.bincount(places, vector * signs, minlength=BUCKETS)


def save(path: Path, gradient: Mapping[str, np.ndarray], spread: float = 0.0, **about: Any) -> Path:
    """A file as rank 0 leaves it; a parameter without elements of its own is missing."""
    values: dict[str, Any] = {
        "version": 1,
        "buckets": BUCKETS,
        "reference_key": "0123456789abcdef",
        "dtype": "float32",
        "matmul": "highest",
        "world": 4,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        path,
        names=np.array(list(gradient)),
        sizes=np.array([vector.size for vector in gradient.values()]),
        sums=np.concatenate([sketch_of(name, vector) for name, vector in gradient.items()]),
        squares=np.array([float((vector**2).sum()) for vector in gradient.values()]),
        spread=np.full(len(gradient), spread),
        missing=np.array([not vector.any() for vector in gradient.values()]),
        about=np.array(json.dumps({**values, **about})),
    )
    return path
