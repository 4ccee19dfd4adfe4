"""A process that fills its memory limit with small objects, then reports as a rank does.

Prints a JSON object: whether it reached the limit, and how many names it could sort afterwards.
"""

import json
import sys

import torch  # noqa: F401

from bench.worker import process
from bench.worker.metrics import memory

LIMIT_BYTES = 16 << 20
NAMES = 200_000


def fill():
    kept = []
    try:
        while True:
            kept.append(str(len(kept)))
    except MemoryError:
        process._lift_memory_limit()
        return len(sorted({f"module {index}" for index in range(NAMES)})), len(kept)


memory.limit("cpu", LIMIT_BYTES)
named, kept = fill()
sys.stdout.write(json.dumps({"reached": kept > 1000, "named": named == NAMES}) + "\n")
