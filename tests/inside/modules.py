"""Modules of ours that Python imports for a scenario, and that its fingerprint has not.

For every scenario a fork imports what a rank does before its first step, and tells what is missing.
"""

import json
import os

import deepspeed  # noqa: F401

from bench.code_roles import RANKS, _stands_by_itself, reachable
from bench.fingerprint import PACKAGE
from bench.worker.code import imported

SCENARIOS = ("train", "profile", "collectives", "recipe", "mutation", "machine", "drill")
CHOSEN = ("loss.all_gather", "attention.ulysses", "checking.exact", "checking.sketch")


def missing(scenario):
    import importlib
    import sys

    roots = [RANKS, f"bench.worker.scenarios.{scenario}"]
    roots += [f"bench.worker.{name}" for name in CHOSEN]
    for name in roots:
        importlib.import_module(name)
    ours = {name for name in sys.modules if name.split(".")[0] == PACKAGE}
    known = reachable(roots, imported().facts)
    return sorted(name for name in ours - known if not _stands_by_itself(name))


def forked(scenario):
    read_end, write_end = os.pipe()
    if os.fork() == 0:
        os.write(write_end, json.dumps(missing(scenario)).encode())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        found = json.loads(pipe.read())
    os.wait()
    return found


print(json.dumps({scenario: forked(scenario) for scenario in SCENARIOS}))
