"""Bandwidths as nccl-tests defines them, by hand."""

from __future__ import annotations

import pytest

from bench.theory import all_to_all_bus_bandwidth
from bench.theory.bandwidth import BUS_FACTORS, algorithm_bandwidth, bus_bandwidth

MIB = 2**20


@pytest.mark.parametrize(
    ("collective", "algorithm", "bus"),
    [
        ("all_reduce", 8 * MIB, 12 * MIB),  # 2 (4-1)/4
        ("reduce_scatter", 8 * MIB, 6 * MIB),
        ("all_to_all", 8 * MIB, 6 * MIB),
        ("all_gather", 32 * MIB, 24 * MIB),  # the size is what all four hand in
    ],
)
def test_four_ranks_hand_in_4_mib_and_take_half_a_second(
    collective: str, algorithm: float, bus: float
) -> None:
    assert algorithm_bandwidth(collective, 4 * MIB, 0.5, 4) == algorithm
    assert bus_bandwidth(collective, 4 * MIB, 0.5, 4) == bus


def test_it_agrees_with_the_all_to_all_of_the_traffic_module() -> None:
    assert bus_bandwidth("all_to_all", 1000, 2.0, 8) == all_to_all_bus_bandwidth(1000, 2.0, 8)


def test_every_collective_with_a_factor_has_both() -> None:
    assert set(BUS_FACTORS) == {"all_reduce", "reduce_scatter", "all_to_all", "all_gather"}
    with pytest.raises(KeyError):
        algorithm_bandwidth("gossip", 1, 1.0, 2)
