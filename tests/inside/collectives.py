"""Two ranks run cases on gloo with one collective broken on purpose; prints each rank's rows.

Usage: collectives.py FAULT PATTERN…, of cases; faults are the functions of `FAULTS`. The groups are
the world, and each rank alone as `sp`.
"""

import json
import multiprocessing
import sys
import tempfile
from fnmatch import fnmatchcase

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as collectives
import torch.distributed.nn.functional as functional

from bench.worker.collectives import catalogue, running

right = functional.all_reduce
PARTITIONS = {"world": [[0, 1]], "sp": [[0], [1]]}


def none(index):
    """Nothing is broken."""


def value(index):
    """Rank 1 gets one element wrong."""
    if index == 1:
        offset = torch.zeros(3, 4)
        offset[0, 0] = 1.0
        functional.all_reduce = lambda *args, **kwargs: right(*args, **kwargs) + offset


def gradient(index):
    """Rank 1's gradient is twice the right one, its value is right."""
    if index == 1:

        def doubled(tensor, **kwargs):
            output = right(tensor, **kwargs)
            return output.detach() + 2 * (output - output.detach())

        functional.all_reduce = doubled


def detached(index):
    """The value is right and there is no graph."""
    functional.all_reduce = lambda *args, **kwargs: right(*args, **kwargs).detach()


def error(index):
    """Rank 1 raises before it communicates: rank 0 waits for it."""
    if index == 1:

        def failing(*args, **kwargs):
            raise IndexError("on purpose")

        functional.all_reduce = failing


def unwritten(index):
    """The function returns memory that it never wrote to."""
    functional.all_reduce = lambda tensor, **kwargs: torch.empty_like(tensor) + 0 * tensor


def later(index):
    """`y.wait()` gives the right value and a gradient of 0, unlike the other ways; broadcast takes
    the source's rank in the group as `group_src`.
    """

    def wait(self):
        inner = collectives.wait_tensor(self.elem)
        return inner.detach() + 0 * inner

    def by_group(tensor, src=None, group=None, group_src=None):
        if (src, group_src, dist.get_world_size(group)) != (None, 0, 1):
            raise ValueError(f"group_src={group_src}, src={src}")
        return tensor.clone()

    collectives.AsyncCollectiveTensor.wait = wait
    functional.broadcast = by_group


def listed(index):
    """A later version's module: one function more, one less."""

    def all_to_some(tensor, group=None):
        return tensor

    all_to_some.__module__ = functional.__name__
    functional.all_to_some = all_to_some
    del functional.gather


FAULTS = {
    one.__name__: one for one in (none, value, gradient, detached, error, unwritten, later, listed)
}


def rank(index, store, fault, names, queue):
    dist.init_process_group("gloo", store=dist.FileStore(store, 2), rank=index, world_size=2)
    FAULTS[fault](index)
    rows = []
    every = catalogue.cases(tuple(PARTITIONS), ("nn", "fc"))
    cases = [case for case in every if any(fnmatchcase(case.name, name) for name in names)]
    running.run_cases(
        PARTITIONS,
        torch.device("cpu"),
        lambda **row: rows.append(row),
        cases=cases,
    )
    queue.put((index, rows))


def main():
    fault, *names = sys.argv[1:]
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        arguments = (f"{folder}/store", fault, names, queue)
        ranks = [context.Process(target=rank, args=(i, *arguments)) for i in range(2)]
        for process in ranks:
            process.start()
        found = dict(queue.get(timeout=60) for _ in ranks)
        for process in ranks:
            process.join()
    FAULTS[fault](0)
    listing = {"absent": catalogue.absent(("nn",)), "unknown": catalogue.unknown(("nn",))}
    print(json.dumps({"rows": [found[0], found[1]], **listing}))


if __name__ == "__main__":
    main()
