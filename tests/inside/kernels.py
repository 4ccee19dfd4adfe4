"""What `matmul` and `sdpa` set in torch; prints it as JSON.

For both precisions: torch's own readings of what cuBLAS and cuDNN may use. For each kernel, in a
process of its own: the one that is noted, and how attention ended, on float32 tensors on CPU.
"""

import json
import os
import warnings

import torch

from bench.worker import precision, sdpa

warnings.simplefilter("error")


def precision_of(choice):
    precision.set_matmul(choice)
    return [
        torch.get_float32_matmul_precision(),
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.allow_tf32,
    ]


def kernel_of(choice):
    read_end, write_end = os.pipe()
    if os.fork() == 0:
        sdpa.restrict(choice)
        q, k, v = (torch.ones(1, 2, 8, 4, requires_grad=True) for _ in range(3))
        if choice == "auto":
            sdpa.causal(q, k, v)  # not noted: nobody asked
        before = sdpa.noted()
        sdpa.note_next()
        try:
            sdpa.causal(q, k, v).sum().backward()
            ended = "ok"
        except RuntimeError as error:
            ended = str(error).split(" was found")[0]
        os.write(write_end, json.dumps([before, sdpa.noted(), ended]).encode())
        os._exit(0)
    os.wait()
    return json.loads(os.read(read_end, 1 << 16))


kernels = ("auto", "flash", "math", "efficient", "cudnn")
found = {"kernels": {choice: kernel_of(choice) for choice in kernels}}
found["precision"] = {choice: precision_of(choice) for choice in ("highest", "tf32", "highest")}
print(json.dumps(found))
