"""A CountSketch: a few thousand signed sums that stand for a vector of any length.

Charikar, Chen, Farach-Colton, "Finding frequent items in data streams", ICALP 2002. Element i of
parameter `name` is added, with a sign, to one of `BUCKETS` sums:

    h = output i of SplitMix64 seeded with `key_of(name)`      (i from 0, the global index)
    bucket = h mod 4096 (its 12 lowest bits)      sign = -1 where h's highest bit is set, else 1

SplitMix64 is Steele, Lea, Flood, OOPSLA 2014. A parameter of at most `BUCKETS` elements is kept as
it is: element i in sum i. The map is linear, so that the sketches of a gradient's parts add up to
the sketch of the gradient; and it knows neither ranks nor types nor devices, so that sketches of
one model can be compared wherever they were made.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

SKETCH_VERSION = 1
"""Raised whenever the hash or the file changes: sketches of two versions cannot be compared."""
BUCKETS = 4096
CHUNK = 1 << 22
"""Elements that are hashed at once: their indices, hashes and float64 values take about 150 MB."""

_WORD = 1 << 64
_GOLDEN, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def buckets_of(size: int) -> int:
    """How many sums stand for a parameter of `size` elements."""
    return min(size, BUCKETS)


def key_of(name: str) -> int:
    """Seed of a parameter's hash: the first 8 bytes of its name's SHA-256, lowest byte first."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")


def hashes(key: int, start: int, count: int, device: torch.device) -> Tensor:
    """Outputs `start` to `start + count - 1` of SplitMix64 seeded with `key`, as int64 bits.

    int64 arithmetic wraps around as that of uint64 does; only the shifts must be made logical.
    """
    z = torch.arange(start + 1, start + count + 1, dtype=torch.int64, device=device)
    z.mul_(_signed(_GOLDEN)).add_(_signed(key))
    z.bitwise_xor_(_shifted(z, 30)).mul_(_signed(_FIRST))
    z.bitwise_xor_(_shifted(z, 27)).mul_(_signed(_SECOND))
    return z.bitwise_xor_(_shifted(z, 31))


def sketch(name: str, size: int, start: int, values: Tensor) -> Tensor:
    """Sums [buckets_of(size)], float64 on the device of `values`, of a part of a parameter.

    `values` [count] are elements `start` to `start + count - 1` of the `size` elements of `name`.
    """
    sums = torch.zeros(buckets_of(size), dtype=torch.float64, device=values.device)
    if size <= BUCKETS:
        sums[start : start + values.numel()] = values.double()
        return sums
    key = key_of(name)
    for first in range(0, values.numel(), CHUNK):
        part = values[first : first + CHUNK].double()
        places = hashes(key, start + first, part.numel(), values.device)
        part.mul_((places >> 63).bitwise_or_(1))  # -1 where the highest bit is set
        sums.index_add_(0, places.bitwise_and_(BUCKETS - 1), part)
    return sums


def square(values: Tensor) -> Tensor:
    """The exact squared norm of `values` [count], a float64 scalar."""
    total = torch.zeros((), dtype=torch.float64, device=values.device)
    for first in range(0, values.numel(), CHUNK):
        part = values[first : first + CHUNK].double()
        total += part.dot(part)
    return total


def _shifted(z: Tensor, bits: int) -> Tensor:
    """`z` shifted to the right, with zeros from the left: int64 shifts in copies of the sign."""
    return (z >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _signed(word: int) -> int:
    """The int64 that has the bits of an unsigned word."""
    return word - _WORD if word >= _WORD >> 1 else word
