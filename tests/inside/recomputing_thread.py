"""Backward of a checkpointed model on a thread of its own, profiled for real; prints JSON.

So it is on a GPU, where autograd has a thread for each device. On CPU backward runs on the thread
that calls it, so that this one calls it from another. Printed are the label of each node, and how
many operations of the two threads have the same sequence number.
"""

import json
import tempfile
import threading
import time
from pathlib import Path

import torch
from torch._C._profiler import _ExperimentalConfig
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils.checkpoint import checkpoint

from bench.worker.profiling import labels, trace
from bench.worker.profiling.recorder import threads_of

NODE = "autograd::engine::evaluate_function: "
LAYERS = 4


def layer(x):
    with record_function("spbench/attention"):
        attended = torch.softmax(x @ x.T, -1).tanh()
    return (attended.exp() + 1.0).sigmoid()


def main():
    x = torch.rand(8, 8, requires_grad=True)
    everywhere = _ExperimentalConfig(profile_all_threads=True)
    with profile(activities=[ProfilerActivity.CPU], experimental_config=everywhere) as profiler:
        stamps = [("spbench/step", time.perf_counter_ns())]
        with record_function("spbench/step"):
            made = (x + 1.0) * 2.0  # shifts the forward's numbers against those computed again
            for _ in range(LAYERS):
                made = checkpoint(layer, made, use_reentrant=False)
            backward = threading.Thread(target=made.sum().backward)
            backward.start()
            backward.join()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = trace.read(path, stamps, threads_of(profiler))
    [main_thread] = {event.thread for event in events if event.name == "spbench/step"}
    host = [event for event in events if event.kind in ("cpu_op", "user_annotation")]
    made_by, found, numbers = {}, [], []
    for thread in [main_thread, *sorted({event.thread for event in host} - {main_thread})]:
        ordered = labels.nested([event for event in host if event.thread == thread])
        labelled = labels.label(ordered, [], made_by)
        found += [
            (event.name[len(NODE) :], one.label)
            for event, one in zip(ordered, labelled)
            if event.name.startswith(NODE)
        ]
        numbers.append({e.sequence for e in ordered if e.sequence is not None and not e.node})
    print(json.dumps({"nodes": found, "same_number": len(numbers[0] & numbers[1])}))


if __name__ == "__main__":
    main()
