"""Does DeepSpeed's Ulysses layer import on this torch? Plain DeepSpeed, no spbench.

    uv run --no-project --python 3.11 --with torch==2.2.2 --with deepspeed==0.19.8 \
        --with 'numpy<2' --with setuptools python docs/findings/compat_import.py

Prints the versions, then `imports`, or the AttributeError of what torch does not have.
"""

import importlib
import os

os.environ.setdefault("DS_ACCELERATOR", "cpu")

import deepspeed
import torch

if __name__ == "__main__":
    print(f"torch {torch.__version__}, DeepSpeed {deepspeed.__version__}", flush=True)
    try:
        importlib.import_module("deepspeed.sequence.layer")
        print("imports")
    except AttributeError as error:
        print(f"AttributeError: {error}")
