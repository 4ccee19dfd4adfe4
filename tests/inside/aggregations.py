"""Two ranks aggregate known shard losses; prints each rank's loss and gradient by aggregation.

With one weight w = 1, shard means m = w x for x = 2 and 5, and 3 and 1 valid tokens.
"""

import json
import multiprocessing
import sys
import tempfile

import torch
import torch.distributed as dist

from bench.worker import nccl_over_gloo, plugins
from bench.worker.model import ShardLoss

X, TOKENS = (2.0, 5.0), (3.0, 1.0)


def rank(index, store, emulate, queue):
    dist.init_process_group("gloo", store=dist.FileStore(store, 2), rank=index, world_size=2)
    if emulate:
        nccl_over_gloo.install()
    found = {}
    for name in plugins.names("loss"):
        weight = torch.tensor(1.0, requires_grad=True)
        shard = ShardLoss(weight * X[index], torch.tensor(TOKENS[index]))
        try:
            loss = plugins.load("loss", name).aggregate(shard, dist.group.WORLD)
            loss.backward()
            found[name] = [loss.item(), weight.grad.item()]
        except NotImplementedError as error:
            found[name] = type(error).__name__
    queue.put((index, found))
    dist.barrier()


if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    with tempfile.NamedTemporaryFile() as store:
        emulate = sys.argv[1] == "nccl_over_gloo"
        ranks = [
            context.Process(target=rank, args=(i, store.name, emulate, queue)) for i in range(2)
        ]
        for process in ranks:
            process.start()
        found = dict(queue.get(timeout=60) for _ in ranks)
        for process in ranks:
            process.join()
    print(json.dumps([found[0], found[1]]))
