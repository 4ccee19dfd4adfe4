"""Two real ranks on gloo whose clocks differ warm up; prints how many steps each took."""

import json
import multiprocessing
import tempfile
import time
from types import SimpleNamespace

import torch
import torch.distributed as dist

from bench.worker import warm_up


def rank(index, store, queue):
    dist.init_process_group("gloo", store=dist.FileStore(store, 2), rank=index, world_size=2)
    # rank 1's clock runs ten times as fast: left to itself it would stop long before rank 0
    clock = SimpleNamespace(perf_counter=lambda: time.perf_counter() * (1 + 9 * index))
    warm_up.time = clock
    warming = warm_up.WarmUp(warm_up.Rule(steps=2, seconds=0.2), torch.device("cpu"))
    steps = 0
    while warming.asks_for_more(steps):
        time.sleep(0.01)
        steps += 1
    queue.put((index, steps))
    dist.barrier()


if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        ranks = [
            context.Process(target=rank, args=(index, f"{folder}/store", queue)) for index in (0, 1)
        ]
        for one in ranks:
            one.start()
        steps = dict(queue.get(timeout=60) for _ in ranks)
        for one in ranks:
            one.join()
    print(json.dumps([steps[0], steps[1]]))
