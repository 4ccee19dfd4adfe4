"""What a process that makes a reference sees of the GPUs that its server hides.

Runs with `tests/inside/fake_gpus` on the path and the variables of a server for GPUs. For each of
the user's values (`none`: not set) such a process is forked; it tells its CUDA_VISIBLE_DEVICES, how
many GPUs torch counts once it has initialised CUDA, and what was handed over and not taken away.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

import torch

from bench.worker import reference, reference_process


def seen():
    return [os.environ.get("CUDA_VISIBLE_DEVICES"), torch.cuda.device_count()]


def create(folder, *_):
    if torch.cuda.device_count():
        torch.cuda.init()  # raises where the server had reached CUDA
    left = [name for name in os.environ if name.startswith("SPBENCH_CUDA")]
    (folder / "seen.json").write_text(json.dumps([*seen(), left]))


def forked(user, folder):
    if user != "none":
        os.environ["SPBENCH_CUDA_VISIBLE_DEVICES"] = user
    read_end, write_end = os.pipe()
    server = os.getpid()
    if os.fork() == 0:
        where = {"folder": folder, "log": folder / "log"}
        reference_process.make_reference(
            None, check="exact", **where, threads=1, pipe=write_end, server=server
        )
    os.wait()
    os.environ.pop("SPBENCH_CUDA_VISIBLE_DEVICES", None)
    answer = json.loads(os.read(read_end, 1 << 16))
    assert answer["outcome"] == "finished", answer
    return json.loads((folder / "seen.json").read_text())


reference.create = create
before = seen()  # torch 2.2 remembers the count
with tempfile.TemporaryDirectory() as folder:
    found = {user: forked(user, Path(folder)) for user in sys.argv[1:]}
print(json.dumps({"server": [before, seen()], **found}))
