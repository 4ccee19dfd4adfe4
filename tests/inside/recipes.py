"""Two ranks run the recipes of `bench.recipes`; prints each rank's loss and gradient by recipe.

With one weight w = 1, cross-entropies over tokens whose logits are (w x, 0) and whose label is 0;
a rank without a label hands in what `F.cross_entropy` gives there. Arguments: tokens of each rank.
"""

import json
import math
import multiprocessing
import sys
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F

import bench

RECIPES = Path(bench.__file__).parent / "recipes"
X = (2.0, 5.0)


def rank(index, store, tokens, queue):
    dist.init_process_group("gloo", store=dist.FileStore(store, 2), rank=index, world_size=2)
    found = {}
    for path in sorted(RECIPES.glob("[!_]*.py")):
        weight = torch.tensor(1.0, requires_grad=True)
        logits = torch.stack([weight * X[index], torch.tensor(0.0)]).expand(4, 2)
        labels = torch.tensor([0] * tokens[index] + [-100] * (4 - tokens[index]))
        loss = F.cross_entropy(logits, labels)
        assert math.isnan(loss) == (tokens[index] == 0)
        names = {}
        exec(compile(path.read_text(), path.name, "exec"), names)
        try:
            value = names["aggregate"](loss, torch.tensor(float(tokens[index])), dist.group.WORLD)
            value.backward()
            found[path.stem] = [value.item(), weight.grad.item()]
        except AttributeError as error:  # torch 2.2 has no functional all-gather with autograd
            found[path.stem] = type(error).__name__
    queue.put((index, found))
    dist.barrier()


if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    tokens = [int(argument) for argument in sys.argv[1:]]
    with tempfile.NamedTemporaryFile() as store:
        ranks = [
            context.Process(target=rank, args=(i, store.name, tokens, queue)) for i in range(2)
        ]
        for process in ranks:
            process.start()
        found = dict(queue.get(timeout=60) for _ in ranks)
        for process in ranks:
            process.join()
    print(json.dumps([found[0], found[1]]))
