"""Does a pasted `aggregate(loss, tokens, group)` give the gradient of one process in float64?

Plain torch and DeepSpeed; spbench is not needed:

    python recipe_check.py RECIPE.py ZERO [replica_mean|token_mean]

trains one step of a small causal model on 4 ranks (gloo, CPU), sequence parallel over 2 and
data parallel over 2, with RECIPE.py's `aggregate`, and prints the relative error and the scale
of the gradient as JSON, and whether the loss was finite. Rank 1 has no label, so that its
cross-entropy is NaN. The reference is the mean over replicas of each one's token mean, or the mean
over all tokens. Exit code 0: the error is below 1e-4 and the loss finite; 1: not so.
"""

import json
import multiprocessing
import os
import sys
import tempfile
import time

os.environ["DS_ACCELERATOR"] = "cpu"
os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")

import deepspeed
import torch
import torch.distributed as dist
import torch.nn.functional as F
from deepspeed.runtime.sequence_parallel import parallel_state_sp as groups
from deepspeed.sequence.layer import DistributedAttention
from deepspeed.utils import safe_get_full_grad

WORLD, SP, LENGTH, VOCAB, HIDDEN, HEADS = 4, 2, 48, 50, 32, 4
REPLICAS, SHARD = WORLD // SP, LENGTH // SP


def attend(q, k, v, *_):
    """Causal attention over whole sequences, [batch, seq, heads, head_dim]."""
    q, k, v = (one.transpose(1, 2) for one in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)


class Model(torch.nn.Module):
    """Embeddings, one attention layer with a feed-forward network, a head."""

    def __init__(self, attention):
        super().__init__()
        self.attention = [attention]  # hidden from torch: it has no parameters
        self.tokens = torch.nn.Embedding(VOCAB, HIDDEN)
        self.places = torch.nn.Embedding(LENGTH, HIDDEN)
        self.qkv = torch.nn.Linear(HIDDEN, 3 * HIDDEN)
        self.out = torch.nn.Linear(HIDDEN, HIDDEN)
        self.ffn = torch.nn.Sequential(
            torch.nn.Linear(HIDDEN, 64), torch.nn.GELU(), torch.nn.Linear(64, HIDDEN)
        )
        self.head = torch.nn.Linear(HIDDEN, VOCAB)

    def forward(self, tokens, labels, places):
        x = self.tokens(tokens) + self.places(places)
        parts = self.qkv(x).chunk(3, dim=-1)
        q, k, v = (one.view(*one.shape[:2], HEADS, -1).contiguous() for one in parts)
        x = x + self.out(self.attention[0](q, k, v, 0).reshape(x.shape))
        logits = self.head(x + self.ffn(x))
        count = (labels != -100).sum().to(logits.dtype)
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten()), count


def batch(replica):
    """Tokens, labels and places [1, seq]; few labels count in the second half, or none."""
    random = torch.Generator().manual_seed(7 + replica)
    stream = torch.randint(VOCAB, (1, LENGTH + 1), generator=random)
    share = torch.linspace(1.0, 0.1, LENGTH)
    valid = torch.rand(1, LENGTH, generator=random) < share
    if replica == 0:
        valid[:, -SHARD:] = False
    return stream[:, :-1], torch.where(valid, stream[:, 1:], -100), torch.arange(LENGTH)[None]


def seeded(attention):
    torch.manual_seed(0)
    return Model(attention)


def reference(definition):
    """The gradient of the mean over replicas of each one's mean, or over all tokens; float64."""
    model = seeded(attend).double()
    if definition == "token_mean":
        parts = zip(*map(batch, range(REPLICAS)))
        model(*map(torch.cat, parts))[0].backward()
    else:
        for replica in range(REPLICAS):
            (model(*batch(replica))[0] / REPLICAS).backward()
    return {name: one.grad for name, one in model.named_parameters()}


def rank(index, store, recipe, zero, queue):
    os.environ.update(RANK=str(index), LOCAL_RANK=str(index), WORLD_SIZE=str(WORLD))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=index, world_size=WORLD)
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # else it compiles for a minute
    deepspeed.init_distributed(dist_backend="gloo", auto_mpi_discovery=False, verbose=False)
    groups.initialize_sequence_parallel(SP)
    group = groups.get_sequence_parallel_group()
    engine, *_ = deepspeed.initialize(
        model=seeded(DistributedAttention(attend, group, scatter_idx=2, gather_idx=1)),
        config={
            "train_micro_batch_size_per_gpu": 1,
            "optimizer": {"type": "Adam", "params": {"torch_adam": True}},
            "zero_optimization": {"stage": zero},
        },
        mpu=groups,
    )
    part = slice(index % SP * SHARD, (index % SP + 1) * SHARD)
    loss, count = engine(*(one[:, part] for one in batch(index // SP)))
    names = {}
    exec(compile(recipe, "recipe", "exec"), names)
    aggregated = names["aggregate"](loss, count, group)
    engine.backward(aggregated)
    found = {name: safe_get_full_grad(one) for name, one in engine.module.named_parameters()}
    if index == 0:
        finite = bool(aggregated.isfinite())
        queue.put((finite, {name: one.double().numpy() for name, one in found.items()}))
    dist.barrier()


def main():
    with open(sys.argv[1]) as file:  # noqa: PTH123 (a script to be copied anywhere)
        recipe = file.read()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        arguments = (f"{folder}/store", recipe, int(sys.argv[2]), queue)
        ranks = [
            context.Process(target=rank, args=(i, *arguments), daemon=True) for i in range(WORLD)
        ]
        for process in ranks:
            process.start()
        while queue.empty():
            if any(process.exitcode for process in ranks):
                sys.exit("a rank failed")
            time.sleep(0.05)
        finite, found = queue.get()
        for process in ranks:
            process.join()
    definition = sys.argv[3] if len(sys.argv) > 3 else "replica_mean"
    # after the ranks: they must not be forked from a process with threads
    exact = reference(definition)
    g = torch.cat([torch.from_numpy(found[name]).flatten() for name in exact])
    r = torch.cat([one.flatten() for one in exact.values()])
    error = float((g - r).norm() / r.norm())
    scale = float((g @ r) / (r @ r))
    print(json.dumps({"relative_error": error, "scale": scale, "finite": finite}))
    sys.exit(error > 1e-4 or not finite)


if __name__ == "__main__":
    main()
