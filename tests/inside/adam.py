"""Peak of what one step of torch's AdamW allocates [elements of float32], on CPU; prints JSON.

Two sets of tensors: all of a model, and one flat partition. `foreach` is torch's default on a
GPU only, but its lists are as long on CPU.
"""

import json

import torch
from torch.profiler import ProfilerActivity, profile

SIZES = {"all": [400_000, 100_000, 100_000, 100_000], "flat": [700_000]}


def peak(sizes, foreach):
    parameters = [torch.nn.Parameter(torch.zeros(size)) for size in sizes]
    optimizer = torch.optim.AdamW(parameters, foreach=foreach)

    def give_gradients():
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)

    give_gradients()
    optimizer.step()  # makes the moments
    give_gradients()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        optimizer.step()
    held = highest = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            highest = max(highest, held)
    return highest / 4


if __name__ == "__main__":
    print(json.dumps({name: [peak(s, True), peak(s, False)] for name, s in SIZES.items()}))
