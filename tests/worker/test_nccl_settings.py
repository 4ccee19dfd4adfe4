"""NCCL's variables by numbers of ranks and GPUs, and what a record keeps of a rank's variables."""

from __future__ import annotations

import pytest

from bench.worker.nccl_settings import settings
from bench.worker.rank import recorded

SHARED = {
    "NCCL_SOCKET_IFNAME": "lo",
    "NCCL_IB_DISABLE": "1",
    "NCCL_NVLS_ENABLE": "0",
    "NCCL_MAX_CTAS": "2",
}


def test_ranks_that_share_a_gpu_are_hosts_of_their_own() -> None:
    found = [settings(index, 4, 3, (2, 19, 3), {}) for index in range(4)]
    assert found == [{**SHARED, "NCCL_HOSTID": f"spbench-{index}"} for index in range(4)]


@pytest.mark.parametrize("gpus", [4, 8])
def test_ranks_with_a_gpu_each_are_left_alone(gpus: int) -> None:
    assert settings(0, 4, gpus, (2, 30, 1), {}) == {}


@pytest.mark.parametrize(
    ("version", "allowed"),
    [((2, 9, 9), False), ((2, 29, 7), False), ((2, 30, 0), True), ((3, 0, 0), True)],
)
def test_nccl_that_knows_of_shared_gpus_is_told(
    version: tuple[int, int, int], allowed: bool
) -> None:
    found = settings(0, 2, 1, version, {})
    assert found.get("NCCL_MULTI_RANK_GPU_ENABLE") == ("1" if allowed else None)


def test_the_users_values_win_but_for_the_host() -> None:
    given = {"NCCL_MAX_CTAS": "8", "NCCL_IB_DISABLE": "", "NCCL_HOSTID": "mine", "HOME": "/"}
    found = settings(1, 2, 1, (2, 28, 3), given)
    assert found == {
        "NCCL_SOCKET_IFNAME": "lo",
        "NCCL_NVLS_ENABLE": "0",
        "NCCL_HOSTID": "spbench-1",
    }


def test_a_record_keeps_variables_by_their_prefix_and_cuts_long_ones() -> None:
    variables = {
        "NCCL_DEBUG": "INFO",
        "TORCH_NCCL_TRACE_BUFFER_SIZE": "2000",
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
        "CUDA_VISIBLE_DEVICES": "",
        "DS_ACCELERATOR": "x" * 501,
        "HF_TOKEN": "secret",
        "MY_NCCL_DEBUG": "1",
        "NCCL": "1",
    }
    assert recorded(variables) == {
        "CUDA_VISIBLE_DEVICES": "",
        "DS_ACCELERATOR": "x" * 500,
        "NCCL_DEBUG": "INFO",
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
        "TORCH_NCCL_TRACE_BUFFER_SIZE": "2000",
    }
