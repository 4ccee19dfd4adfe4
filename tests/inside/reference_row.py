"""The self-check's row `reference` on gradients by layers that are wrong; prints what it finds."""

import json
import math
from types import SimpleNamespace

import numpy as np

from bench.worker.reference import layers, whole
from bench.worker.scenarios import selfcheck


class Weights:
    def __init__(self, *_):
        pass

    def weights(self):
        return {}


def found(by_layers):
    def everything(configuration, weights, dtype, take):
        for name in ("a", "b"):
            take(name, np.ones(2))

    def some(configuration, weights, dtype, take, *_):
        for name, value in by_layers.items():
            take(name, np.full(2, value))

    whole.loss_and_gradient, layers.loss_and_gradient = everything, some
    rank = SimpleNamespace(configuration=SimpleNamespace(model=None), reference=None, device="cpu")
    try:
        return repr(selfcheck._reference(rank)["relative_error"])
    except ValueError as error:
        return str(error)


selfcheck.Reference = Weights
print(
    json.dumps(
        {
            "right": found({"a": 1.0, "b": 1.0}),
            "off": found({"a": 1.0, "b": 1.25}),
            "nan": found({"a": 1.0, "b": math.nan}),
            "missing": found({"a": 1.0}),
        }
    )
)
