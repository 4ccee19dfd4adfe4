"""What mesh set-ups resolve to where DeepSpeed has all they need, and where it lacks some of it.

Prints a JSON object: by what is hidden, the answers to `resolve(asked, sp)`, a name or what it
raised.
"""

import json
import sys

import deepspeed
from deepspeed.utils import groups

from bench.worker import mesh_setups

ASKED = ("auto", "parallel_state_sp", "megatron", "megatron_mpu", "mesh_param", "no_mpu")


def answers():
    found = {}
    for asked in ASKED:
        try:
            found[asked] = mesh_setups.resolve(asked, 2)
        except NotImplementedError as error:
            found[asked] = str(error)
    return found


everything = answers()
alone = mesh_setups.resolve("auto", 1)
mesh_setups.parallel_state_sp = None  # as before DeepSpeed 0.17
without_its_mpu = answers()
deepspeed.initialize = lambda model, mpu=None: None  # as before mesh_param came
del groups._get_sequence_data_parallel_group  # as before sequence parallelism came
nothing = answers()
version = deepspeed.__version__
sys.stdout.write(json.dumps([everything, alone, without_its_mpu, nothing, version]) + "\n")
