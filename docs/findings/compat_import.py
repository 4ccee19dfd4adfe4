"""Does DeepSpeed's Ulysses layer import on this torch? Plain DeepSpeed, no spbench.

    uv run --no-project --python 3.11 --with torch==2.2.2 --with deepspeed==0.19.8 \
        --with 'numpy<2' --with setuptools python docs/findings/compat_import.py

Prints the versions, then `imports`, or the traceback of what DeepSpeed could not find.
"""

import os

os.environ.setdefault("DS_ACCELERATOR", "cpu")

import deepspeed
import torch

print("torch", torch.__version__, "deepspeed", deepspeed.__version__, flush=True)
import deepspeed.sequence.layer  # noqa: E402

print("imports")
