"""A simulated GPU: fakes stand in for functions of `torch.cuda` and show who calls them and when.

Nothing of this ran on a GPU: it shows the order of calls and the arithmetic. Prints JSON.
"""

import json
import mmap
from pathlib import Path
from types import SimpleNamespace

import torch

from bench.trial import CommSpec, Configuration, EnvironmentSpec, ModelSpec
from bench.worker import warm_up
from bench.worker.collectives import timing
from bench.worker.metrics import batch, memory, snapshot
from bench.worker.rank import HEARTBEAT, Rank
from bench.worker.scenarios import machine, train

DEVICE = torch.device("cuda", 0)
LAUNCH_S, CALL_S, SYNCHRONIZE_S = 3e-6, 50e-6, 400e-6
MODEL = ModelSpec(name="none", layers=1, hidden=2, heads=1, kv_heads=1, ffn=1, vocab=2)


class Device:
    """One stream: the host enqueues, and both have a clock [s]."""

    def __init__(self, call_s=CALL_S):
        self.host = self.device = 0.0
        self.calls, self.call_s = 0, call_s

    def call(self):
        self.calls += 1
        self.host += LAUNCH_S
        self.device = max(self.device, self.host) + self.call_s

    def synchronize(self):
        self.host = max(self.host, self.device) + SYNCHRONIZE_S


def event_of(gpu):
    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.at = gpu.device = max(gpu.device, gpu.host)

        def synchronize(self):
            gpu.synchronize()

        def elapsed_time(self, end):
            return (end.at - self.at) * 1e3

    return Event


def configuration(**fields):
    values = {"comm": CommSpec(name="nccl"), "world": 1, "sp": 1, "gradient_check": "off"}
    return Configuration(
        environment=EnvironmentSpec(name="x", torch="2.13.0", deepspeed="0.18.2"),
        model=MODEL,
        **{**values, **fields},
    )


def order(seconds_of_a_step, **fields):
    """What `train.measure` does: steps, and calls of the allocator."""
    c, done, now = configuration(**fields), [], [0.0]

    class Trainer:
        def __init__(self, *arguments):
            self.steps, self.shard_loss, self.engine = 0, None, None

        def step(self, enter, measuring, before_optimizer):
            for phase in ("forward", "aggregate", "backward"):
                measuring.mark()
                enter(phase)
            measuring.mark()
            before_optimizer()
            measuring.mark()
            done.append(f"step {self.steps}")
            self.steps += 1
            now[0] += seconds_of_a_step
            return torch.tensor(float(self.steps))

    gpu = Device()
    torch.cuda.Event = event_of(gpu)
    torch.cuda.synchronize = gpu.synchronize
    torch.cuda.empty_cache = lambda: done.append("empty cache")
    torch.cuda.reset_peak_memory_stats = lambda: done.append("reset peak")
    torch.cuda.max_memory_allocated = lambda: done.append("read") or 40
    torch.cuda.max_memory_reserved = lambda: 60
    torch.cuda.memory_reserved = lambda: 55
    torch.cuda.mem_get_info = lambda: (10, 100)
    memory.limit = lambda *arguments: None
    warm_up.time = SimpleNamespace(perf_counter=lambda: now[0])
    warm_up._as_rank_0_says = lambda more, device: more
    train.Mesh = SimpleNamespace(of=lambda rank: None)
    unclipped = SimpleNamespace(model_dump=dict)
    train.ClippingWatch = lambda *arguments: SimpleNamespace(
        before_optimizer=lambda: None, found=lambda: unclipped
    )
    train.Reference = lambda *arguments: None
    train.Trainer = Trainer
    request = SimpleNamespace(configuration=c, check="off", reference=None)
    rank = Rank(0, request, mmap.mmap(-1, HEARTBEAT.size), DEVICE)
    _, fields = train.measure(rank)
    return {"done": done, "memory": fields["memory"], "samples": fields["samples"]}


def snapshots():
    """What is kept on demand, and when memory runs out though nothing was demanded."""
    done = []
    rank = SimpleNamespace(
        device=DEVICE,
        index=3,
        request=SimpleNamespace(log=Path("logs/trial.log")),
        row=lambda **fields: done.append(fields),
    )
    torch.cuda.memory._record_memory_history = lambda **options: done.append(options)
    torch.cuda.memory._dump_snapshot = done.append
    with snapshot.kept(rank, True):
        done.append("steps")
    try:
        with snapshot.kept(rank, False):
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
    except torch.cuda.OutOfMemoryError:
        done.append("raised")
    return done


def batches():
    """Seconds of a call: on its own by the host's clock, in a batch, and as the scenarios say."""
    alone = Device()
    alone.call()
    alone.synchronize()
    gpu = Device()
    torch.cuda.Event, torch.cuda.synchronize = event_of(gpu), lambda *device: gpu.synchronize()
    found = {"alone": alone.host, "batch": batch.seconds_per_call(gpu.call, 20, DEVICE)}
    found["enqueued"] = gpu.calls
    # numbers that ranks exchange stay on the CPU here: one rank
    here = SimpleNamespace(device=DEVICE, phase="all-to-all", enter=lambda phase: None)
    torch.tensor = lambda values, dtype=None, device=None: torch.as_tensor(values, dtype=dtype)
    for module in (machine, timing):
        module.barrier = lambda device, group=None: None
        module.dist = SimpleNamespace(
            all_reduce=lambda one, op=None, group=None: None,
            ReduceOp=SimpleNamespace(MAX=None),
        )
    found["machine"] = machine._seconds(here, gpu.call)
    before = gpu.calls
    found["timing"] = timed(gpu)
    found["timing_calls"] = gpu.calls - before
    slow = Device(call_s=0.4)
    torch.cuda.Event = event_of(slow)
    found["slow machine"] = [machine._seconds(here, slow.call), slow.calls]
    before = slow.calls
    found["slow timing"] = [timed(slow)["seconds"], slow.calls - before]
    return found


def timed(gpu):
    return timing._timed(
        gpu.call,
        SimpleNamespace(device=DEVICE),
        SimpleNamespace(group=None, size=2),
        timing.Timed("nn.all_to_all_single", "all_to_all"),
        1000,
    )


if __name__ == "__main__":
    two = {"warmup_steps": 2, "steps": 2}
    shared = CommSpec(name="nccl", oversubscribe=True)
    print(
        json.dumps(
            {
                "short steps": order(1.0, **two),
                "long steps": order(9.0, **{**two, "warmup_steps": 1}),
                "audit": order(1.0, **{**two, "steps": 1}),
                "shared": order(1.0, **two, comm=shared),
                "messages": {name: [m[0], m[-1]] for name, m in machine.MESSAGES.items()},
                "snapshots": snapshots(),
                "batches": batches(),
            }
        )
    )
