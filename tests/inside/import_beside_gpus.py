"""Import the stack as a server does, beside pretended GPUs; print what that asked of CUDA.

Runs with `tests/inside/fake_gpus` on the path. Forked processes import with all GPUs visible, with
all of them visible and without CUDA's compiler, and with all hidden and without the compiler; each
tells the calls that reached CUDA, what the import raised, its threads and the version of NCCL.
"""

import json
import os
from pathlib import Path

import torch

LEARNT = [
    "torch.profiler._cupti_monitor",
    "torch._inductor.utils",
    "torch._dynamo.device_interface",
]


def imported():
    log = Path(os.environ["FAKE_GPUS_LOG"])
    log.write_text("")
    from bench.worker import preload

    found = {"raised": None, "nccl": None}
    try:
        preload.import_stack(False)
        preload.import_modules(LEARNT)
        found["nccl"] = preload.versions()["nccl"]
    except Exception as error:  # noqa: BLE001 (whatever an import may raise)
        found["raised"] = type(error).__name__
    found["calls"] = [json.loads(line)["call"] for line in log.read_text().splitlines()]
    found["threads"] = len(os.listdir("/proc/self/task"))
    found["gpus"] = torch.cuda.device_count()
    return found


def in_a_process_of_its_own(**variables):
    read_end, write_end = os.pipe()
    if os.fork() == 0:
        os.environ.update(variables)
        os.write(write_end, json.dumps(imported()).encode())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        answer = json.loads(pipe.read())
    os.wait()
    return answer


ALL = "0,1,2,3,4,5,6,7"
found = {
    "visible": in_a_process_of_its_own(CUDA_VISIBLE_DEVICES=ALL),
    "visible, no nvcc": in_a_process_of_its_own(CUDA_VISIBLE_DEVICES=ALL, FAKE_NO_NVCC="1"),
    "hidden, no nvcc": in_a_process_of_its_own(CUDA_VISIBLE_DEVICES="", FAKE_NO_NVCC="1"),
}
print()
print(json.dumps(found))
