"""NCCL's environment variables where several ranks share a GPU."""

from __future__ import annotations

from typing import Dict, Mapping, Sequence

# NCCL refuses two ranks of one host on one GPU (src/init.cc compares host hashes and UUIDs), so
# each rank says that it is a host of its own; they then talk through sockets, here over loopback.
# NVLink SHARP does not go with it, and all their kernels must fit one GPU at once, else they hang.
_SHARED = {
    "NCCL_SOCKET_IFNAME": "lo",
    "NCCL_IB_DISABLE": "1",
    "NCCL_NVLS_ENABLE": "0",
    "NCCL_MAX_CTAS": "2",
}


def settings(
    index: int, world: int, gpus: int, version: Sequence[int], given: Mapping[str, str]
) -> Dict[str, str]:
    """What rank `index` of `world` adds to its variables on a machine with `gpus` GPUs.

    Nothing where each rank has a GPU of its own. `version` is NCCL's (`(2, 19, 3)`), `given` the
    variables that are set: the user's value wins, but for NCCL_HOSTID, without which it fails.
    """
    if world <= gpus:
        return {}
    wanted = dict(_SHARED)
    if tuple(version[:2]) >= (2, 30):
        # experimental; it alone would be enough for NCCL to take ranks that share a GPU, through
        # its shared-memory transport. With host ids it changes nothing that we know of: it stands
        # by should a version see through them. It has never run on a GPU.
        wanted["NCCL_MULTI_RANK_GPU_ENABLE"] = "1"
    added = {name: value for name, value in wanted.items() if name not in given}
    return {**added, "NCCL_HOSTID": f"spbench-{index}"}
