"""The gradient as the optimizer took it: what one step of SGD did to the float32 master weights.

A second way to see which loss aggregation is right, which shares no code with spbench:

    python gradient_by_step.py [SP] [NAME=VALUE …]    # options of ZeRO, as JSON

trains one step of a small causal model on 4 ranks (gloo, CPU) with SP (2 or 4) of them to a
sequence, under each loss aggregation and ZeRO stage. The learning rate is a power of two, so that
scaling by it rounds nothing, and gradients are not clipped: (before - after) / rate is the gradient
that was used, up to the rounding of the subtraction, eps |w| / (rate |g|) relative, which is the
bound that a parameter is judged by. Beside it stands one process in float64 whose loss is the mean
over replicas of each replica's mean over valid tokens.

Prints a JSON object: `torch`, `deepspeed`, `mesh`, and `cells`, from `loss zero` to `x2`, `wrong`,
or the name of the exception. `all_gather` is left out where sp < world: its backward does not run
there on gloo.
"""

import json
import multiprocessing
import os
import sys
import tempfile
from pathlib import Path

os.environ["DS_ACCELERATOR"] = "cpu"
os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")

import deepspeed
import torch
import torch.distributed as dist
import torch.distributed.nn.functional as functional
import torch.nn.functional as F
from deepspeed.sequence.layer import DistributedAttention
from deepspeed.utils import safe_get_full_fp32_param

try:
    from deepspeed.runtime.sequence_parallel import parallel_state_sp
except ImportError:  # before DeepSpeed 0.17
    parallel_state_sp = None

WORLD, LENGTH, VOCAB, HIDDEN, HEADS = 4, 48, 50, 32, 4
RATE = 2.0**5
EPS = torch.finfo(torch.float32).eps


def all_gather(mean, count, group):
    means, counts = (torch.stack(functional.all_gather(x, group=group)) for x in (mean, count))
    return (means * counts).sum() / counts.sum()


def weighted_all_reduce(mean, count, group):
    weighted, total = mean * count, count.clone()
    dist.all_reduce(weighted, group=group)
    dist.all_reduce(total, group=group)
    return weighted / total


def functional_all_reduce(mean, count, group):
    total = count.clone()
    dist.all_reduce(total, group=group)
    return functional.all_reduce(mean * count, group=group) / total


def local(mean, count, group):
    total = count.clone()
    dist.all_reduce(total, group=group)
    return mean * count / total


LOSSES = (all_gather, weighted_all_reduce, functional_all_reduce, local)


def attend(q, k, v, *_):
    """Causal attention over whole sequences, [batch, seq, heads, head_dim]."""
    q, k, v = (one.transpose(1, 2) for one in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)


class Model(torch.nn.Module):
    """Embeddings, attention, a head; gives the mean over valid labels and their number."""

    def __init__(self, attention):
        super().__init__()
        self.attention = [attention]  # hidden from torch: it has no parameters
        self.tokens = torch.nn.Embedding(VOCAB, HIDDEN)
        self.places = torch.nn.Embedding(LENGTH, HIDDEN)
        self.qkv = torch.nn.Linear(HIDDEN, 3 * HIDDEN)
        self.head = torch.nn.Linear(HIDDEN, VOCAB)

    def forward(self, tokens, labels, places):
        x = self.tokens(tokens) + self.places(places)
        parts = self.qkv(x).chunk(3, dim=-1)
        q, k, v = (one.view(*one.shape[:2], HEADS, -1).contiguous() for one in parts)
        logits = self.head(x + self.attention[0](q, k, v, 0).reshape(x.shape))
        valid = (labels >= 0).sum().to(logits.dtype)
        total = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
        return total / valid.clamp(min=1), valid


def batch(replicas):
    """Tokens and labels [replica, position]; replicas and shards have unequal numbers of labels."""
    random = torch.Generator().manual_seed(1)
    tokens = torch.randint(VOCAB, (replicas, LENGTH), generator=random)
    labels = torch.roll(tokens, -1, 1)
    labels[:, -1] = -100
    for replica in range(replicas):
        labels[replica, : 5 + 9 * replica] = -100
    return tokens, labels


def fresh(attention):
    torch.manual_seed(0)
    return Model(attention)


def reference(replicas):
    """Each parameter's gradient, one process in float64 [name -> tensor]."""
    model, (tokens, labels) = fresh(attend).double(), batch(replicas)
    places = torch.arange(LENGTH)[None]
    losses = [model(tokens[[r]], labels[[r]], places)[0] for r in range(replicas)]
    (sum(losses) / replicas).backward()
    return {name: one.grad for name, one in model.named_parameters()}


class AllRanks:
    """An mpu for DeepSpeed before 0.17: its data-parallel group is all ranks, as ZeRO reduces."""

    def __init__(self, group):
        self.group = group

    def get_sequence_parallel_group(self):
        return self.group

    def get_sequence_parallel_world_size(self):
        return dist.get_world_size(self.group)

    def get_sequence_parallel_rank(self):
        return dist.get_rank(self.group)

    def get_data_parallel_group(self):
        return dist.group.WORLD

    def get_data_parallel_world_size(self):
        return dist.get_world_size()

    def get_data_parallel_rank(self):
        return dist.get_rank()

    get_sequence_data_parallel_group = get_data_parallel_group
    get_sequence_data_parallel_world_size = get_data_parallel_world_size
    get_sequence_data_parallel_rank = get_data_parallel_rank

    def get_model_parallel_world_size(self):
        return 1

    def get_model_parallel_rank(self):
        return 0

    def get_model_parallel_group(self):
        return None


def mesh(sp):
    """The group of this rank's sequence, and what tells DeepSpeed of it."""
    if parallel_state_sp is not None:
        parallel_state_sp.initialize_sequence_parallel(sp)
        return parallel_state_sp.get_sequence_parallel_group(), parallel_state_sp
    groups = [dist.new_group(list(range(first, first + sp))) for first in range(0, WORLD, sp)]
    group = groups[dist.get_rank() // sp]
    return group, AllRanks(group)


def used_gradient(aggregate, stage, options, sp, group, mpu):
    """What SGD took off each float32 master weight over its rate, and the weights before."""
    module = fresh(DistributedAttention(attend, group, 2, 1))
    before = {name: one.detach().clone() for name, one in module.named_parameters()}
    engine, *_ = deepspeed.initialize(
        model=module,
        optimizer=torch.optim.SGD(module.parameters(), lr=RATE),
        mpu=mpu,
        config={
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": 1,
            "zero_allow_untested_optimizer": True,
            "gradient_clipping": 0.0,
            "zero_optimization": {"stage": stage, **options},
        },
    )
    rank, (tokens, labels) = dist.get_rank(), batch(WORLD // sp)
    shard = LENGTH // sp
    part = slice(rank % sp * shard, (rank % sp + 1) * shard)
    replica = [rank // sp]
    places = torch.arange(LENGTH)[None, part]
    mean, valid = engine(tokens[replica, part], labels[replica, part], places)
    engine.backward(aggregate(mean, valid, group))
    engine.step()
    master = safe_get_full_fp32_param if stage else lambda parameter: parameter
    after = {name: master(one).detach().clone() for name, one in module.named_parameters()}
    # In float32 as they are: their difference is exact in float64.
    return {n: (before[n].double() - after[n].double()) / RATE for n in before}, before


def verdict(gradient, weights, wanted):
    """`x2` where every parameter is that multiple of `wanted` up to the rounding of one step."""
    flat, right = (torch.cat([one[n].flatten() for n in wanted]) for one in (gradient, wanted))
    scale = (flat @ right / (right @ right)).item()
    for name, exact in wanted.items():
        used, bound = gradient[name], EPS * weights[name].double().norm() / RATE
        # The step rounds once; float32 itself costs some eps of the gradient's own length.
        if (used - scale * exact).norm() > bound + 100 * EPS * abs(scale) * exact.norm():
            return "wrong"
    return f"x{scale:.4g}"


def run(rank, place, sp, options, output):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(WORLD))
    os.environ.update(LOCAL_SIZE=str(WORLD), LOCAL_WORLD_SIZE=str(WORLD))
    dist.init_process_group("gloo", f"file://{place}", rank=rank, world_size=WORLD)
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # it would compile for a minute
    deepspeed.init_distributed("gloo", auto_mpi_discovery=False, verbose=False)
    deepspeed.utils.logger.setLevel("ERROR")
    torch.set_num_threads(1)
    group, mpu = mesh(sp)
    wanted, cells = reference(WORLD // sp), {}
    for aggregate in LOSSES:
        for stage in range(4):
            if aggregate is all_gather and sp < WORLD:
                continue
            try:
                found = verdict(*used_gradient(aggregate, stage, options, sp, group, mpu), wanted)
            except Exception as error:  # noqa: BLE001 (every one is a finding)
                found = type(error).__name__
            cells[f"{aggregate.__name__} {stage}"] = found
    if rank == 0:
        kind = getattr(mpu, "__name__", type(mpu).__name__).rpartition(".")[2]
        found = {"torch": torch.__version__, "deepspeed": deepspeed.__version__, "mesh": kind}
        output.write_text(json.dumps({**found, "sp": sp, "cells": cells}))
    leave()


def leave():
    """Ends a rank that has done its part.

    No rank goes while another may still talk to it, and the interpreter is not torn down: gloo's
    threads that outlive their groups abort there now and then, after all is measured.
    """
    dist.barrier()
    dist.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def main():
    numbers = [int(one) for one in sys.argv[1:] if "=" not in one]
    sp = numbers[0] if numbers else 2
    pairs = (one.split("=", 1) for one in sys.argv[1:] if "=" in one)
    options = {name: json.loads(value) for name, value in pairs}
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "found.json"
        arguments = (Path(folder) / "store", sp, options, output)
        ranks = [
            multiprocessing.get_context("spawn").Process(target=run, args=(rank, *arguments))
            for rank in range(WORLD)
        ]
        for one in ranks:
            one.start()
        for one in ranks:
            one.join()
        if any(one.exitcode for one in ranks):
            sys.exit("a rank failed; its traceback is above")
        print(output.read_text())


if __name__ == "__main__":
    main()
