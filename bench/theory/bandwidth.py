"""Bandwidth of collectives as nccl-tests defines it: bytes over time, and what the bus must carry.

Source of sizes and factors: nccl-tests, doc/PERFORMANCE.md. With n ranks, the size is what all
of them share in the end for all-gather (n times what one hands in) and what one hands in for
all-reduce, reduce-scatter and all-to-all; algorithm bandwidth is size over time; bus bandwidth is
that times

    all_reduce      2 (n-1)/n
    all_gather      (n-1)/n
    reduce_scatter  (n-1)/n
    all_to_all      (n-1)/n

so that it can be compared with the hardware's peak, whatever n.
"""

from __future__ import annotations

BUS_FACTORS = {"all_reduce": 2.0, "all_gather": 1.0, "reduce_scatter": 1.0, "all_to_all": 1.0}
"""Times (n-1)/n: bus bandwidth over algorithm bandwidth."""


def algorithm_bandwidth(collective: str, handed_in: int, seconds: float, ranks: int) -> float:
    """Algorithm bandwidth [bytes/s] of a collective to which each rank hands in so many bytes.

    Raises KeyError for a collective that is not in `BUS_FACTORS`.
    """
    BUS_FACTORS[collective]
    size = handed_in * ranks if collective == "all_gather" else handed_in
    return size / seconds


def bus_bandwidth(collective: str, handed_in: int, seconds: float, ranks: int) -> float:
    """Bus bandwidth [bytes/s]; raises KeyError as `algorithm_bandwidth` does."""
    factor = BUS_FACTORS[collective] * (ranks - 1) / ranks
    return algorithm_bandwidth(collective, handed_in, seconds, ranks) * factor
