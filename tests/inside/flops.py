"""Operations of one step of decoders, counted by torch; prints them as a JSON list.

Usage: flops.py TOKENS MODEL …, each MODEL a `ModelSpec` as JSON. Attention is written as two
batched products, which every version of torch counts alike.
"""

import json
import sys

import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.trial import ModelSpec
from bench.worker import model


def everywhere(q, k, v):
    """Full attention without a mask: the sum over heads is the same with and without one."""
    groups = q.shape[2] // k.shape[2]
    k, v = k.repeat_interleave(groups, dim=2), v.repeat_interleave(groups, dim=2)
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    return ((q @ k.transpose(2, 3)).softmax(-1) @ v).transpose(1, 2)


def counted(spec, tokens):
    shapes = model.parameter_shapes(spec)
    weights = {name: torch.randn(shape) * 0.02 for name, shape in shapes.items()}
    decoder = model.build(spec, everywhere, weights)
    ids = torch.arange(tokens)[None] % spec.vocab
    with FlopCounterMode(display=False) as counter:
        mean, _ = decoder(ids, ids, torch.arange(tokens)[None])
        mean.backward()
    return counter.get_total_flops()


if __name__ == "__main__":
    specs = [ModelSpec.model_validate_json(text) for text in sys.argv[2:]]
    print(json.dumps([counted(spec, int(sys.argv[1])) for spec in specs]))
