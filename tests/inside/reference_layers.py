"""The reference by layers beside the one that keeps the whole graph; prints how far they are apart.

Arguments: configurations as JSON, a list. Sizes are small, so that every loop has a rest.
"""

import gc
import hashlib
import itertools
import json
import resource
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from bench.theory import reference_device_bytes
from bench.trial import CommSpec, Configuration
from bench.worker import model, reference
from bench.worker.attention.local import causal_attention
from bench.worker.batch import global_batch
from bench.worker.metrics.gradient import combine, compare
from bench.worker.reference import blocks, layers, whole
from bench.worker.reference.files import new_vector

SIZES = layers.Sizes(block=7, tile=9, loss_tile=5)


def gradient(make, *arguments, **named):
    """Gradient by name, and the loss."""
    found = {}
    losses = make(*arguments, found.__setitem__, **named)
    return found, losses.own


def other(make, *arguments, **named):
    """Gradient and loss by the other definition, from the same pass."""
    found = {}
    losses = make(*arguments, nothing, take_other=found.__setitem__, **named)
    return found, losses.other


def at_once(one, weights):
    """The token mean: one forward pass over all replicas, one cross-entropy, one backward pass."""
    module = model.build(one.model, causal_attention, weights, dtype=torch.float64)
    whole_batch = [torch.from_numpy(part.copy()).flatten(0, 1) for part in global_batch(one)]
    mean, _ = module(*whole_batch)
    mean.backward()
    return {n: p.grad.numpy() for n, p in module.named_parameters()}, mean.item()


def both_definitions(one, weights):
    """How far each way to the token mean is from `at_once`, and how far the replica mean is."""
    expected = at_once(one, weights)
    tokens = one.model_copy(update={"reference": "token_mean"})
    float64 = torch.float64
    found = {
        "whole": gradient(whole.loss_and_gradient, tokens, weights, float64),
        "whole, other": other(whole.loss_and_gradient, one, weights, float64),
        "layers": gradient(layers.loss_and_gradient, tokens, weights, float64, sizes=SIZES),
        "layers, other": other(layers.loss_and_gradient, one, weights, float64, sizes=SIZES),
        "replica mean": gradient(whole.loss_and_gradient, one, weights, float64),
    }
    return {name: apart(one, expected) for name, one in found.items()}


def apart(found, expected):
    """The largest relative error of a parameter or of the loss."""
    errors = [compare(found[0][name], expected[0][name]).relative_error for name in expected[0]]
    return max(*errors, abs(found[1] / expected[1] - 1))


def with_fault(module, name, fault, *arguments, **named):
    right = getattr(module, name)
    setattr(module, name, fault)
    try:
        return gradient(layers.loss_and_gradient, *arguments, **named)
    finally:
        setattr(module, name, right)


def without_the_last_key_block(queries, block):
    right = list(blocks.query_blocks(queries.stop, block))
    return right[:-1] or right


def later_keys_seen(rows, keys, queries, part):
    return rows @ keys.transpose(-1, -2)


def first_sequence_only(configuration, device):
    return right_sequences(configuration, device)[:1]


right_sequences = layers._sequences
FAULTS = {
    "last key block dropped": (blocks, "key_blocks", without_the_last_key_block),
    "not causal": (blocks, "_scores", later_keys_seen),
    "one sequence only": (layers, "_sequences", first_sequence_only),
}


def noise(make, one, weights, exact, dtype, **named):
    found, _ = gradient(make, one, weights, dtype, **named)
    return combine(compare(found[name], exact[name]) for name in exact).relative_error


def files(one, folder, by_layers):
    """What `create` leaves, and how `reference.json` says it was made."""
    place = Path(folder) / str(by_layers) / one.reference_key
    beats = []
    reference.create(place, one, "exact", by_layers=by_layers, beat=lambda: beats.append(1))
    stored = reference.Reference(place, one.model)
    value = np.load(place / "gradient.npy", mmap_mode="r")
    return {
        "names": sorted(path.name for path in place.iterdir()),
        "gradient": [str(value.dtype), value.shape[0], (place / "gradient.npy").stat().st_size],
        "how": json.loads((place / "reference.json").read_text()),
        "noise": stored.noise(one).overall,
        "missing": reference.missing(place, one, "exact"),
        "beats": len(beats),
    }


def on_a_gpu(one, folder):
    """A GPU by name only: the files, and what each part is computed in, where and how precisely."""
    one = one.model_copy(update={"comm": CommSpec(name="nccl"), "matmul": "tf32"})
    place, calls = Path(folder) / "gpu" / one.reference_key, []

    def by_layers(configuration, weights, dtype, take, device, beat, take_other):
        calls.append([str(dtype), str(device), torch.get_float32_matmul_precision()])
        return right(configuration, weights, dtype, take)

    right, layers.loss_and_gradient = layers.loss_and_gradient, by_layers
    named, torch.cuda.get_device_name = (
        torch.cuda.get_device_name,
        lambda device: "NVIDIA H100 80GB",
    )
    try:
        reference.create(place, one, "exact")
        choices = [{}, {"matmul": "highest"}, {"dtype": "bfloat16", "sdpa": "flash"}]
        names = [
            reference.noise_file(place, one.model_copy(update=choice)).name for choice in choices
        ]
        missing = reference.missing(place, one.model_copy(update=choices[1]), "exact")
    finally:
        layers.loss_and_gradient, torch.cuda.get_device_name = right, named
    torch.set_float32_matmul_precision("highest")
    how = json.loads((place / "reference.json").read_text())
    return {
        "calls": calls,
        "files": sorted(path.name for path in place.iterdir()),
        "names": [name.replace(torch.__version__, "TORCH") for name in names],
        "missing": missing,
        "device": how["device"],
    }


def left_by_failures(folder):
    """What is in a folder after a file had no room, and after its maker failed."""
    place = Path(folder) / "failures"
    place.mkdir()
    seen, shapes = [], {"a": (1000,)}
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, before[1]))
    try:
        with new_vector(place / "gradient.npy", shapes, np.float64):
            seen.append("made")
    except OSError as error:
        seen.append(type(error).__name__)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    try:
        with new_vector(place / "gradient.npy", shapes, np.float64) as views:
            views["a"][...] = 1.0
            raise MemoryError
    except MemoryError:
        seen.append("MemoryError")
    return [seen, sorted(path.name for path in place.iterdir())]


SHAPES = {
    "attention": ({"seq_len": 256}, {}),
    "feed-forward": ({"seq_len": 64}, {"hidden": 128, "ffn": 1024}),
    "loss": ({"seq_len": 64}, {"vocab": 8192}),
    "stored inputs": ({"seq_len": 256, "micro_batch": 8}, {"layers": 8}),
    "two gradients": ({"seq_len": 64, "world": 2, "mask": "ragged"}, {"hidden": 128, "ffn": 1024}),
}
"""What each shape has most of: fields of the configuration, and of its model."""


def nothing(name, gradient):
    """A gradient that nobody wants."""


def memory(one, folder):
    """Most bytes that tensors take at once, as a share of what theory predicts, by shape."""
    shares = {}
    for name, (fields, of_model) in SHAPES.items():
        model = one.model.model_copy(update=of_model)
        case = one.model_copy(update={"world": 1, "sp": 1, "model": model, **fields})
        place = Path(folder) / name / case.reference_key
        reference.create(place, case, "off")
        weights = reference.Reference(place, model).weights()
        other = nothing if case.ragged_replicas else None
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
            layers.loss_and_gradient(case, weights, torch.float64, nothing, take_other=other)
        events = seen.profiler.kineto_results.events()
        changes = [event.nbytes() for event in events if event.name() == "[memory]"]
        shares[name] = max(itertools.accumulate(changes)) / reference_device_bytes(case)
    return shares


def initial_weights(one, folder):
    return hashlib.sha256((folder / one.reference_key / "weights.npy").read_bytes()).hexdigest()


def main():
    torch.set_num_threads(1)
    gc.freeze()
    configurations = [Configuration.model_validate(one) for one in json.loads(sys.argv[1])]
    result = {"apart": [], "faults": {}, "noise": {}, "files": {}}
    with tempfile.TemporaryDirectory() as folder:
        for one in configurations:
            place = Path(folder) / one.reference_key
            reference.create(place, one, "off")
            weights = reference.Reference(place, one.model).weights()
            expected = gradient(whole.loss_and_gradient, one, weights, torch.float64)
            found = gradient(layers.loss_and_gradient, one, weights, torch.float64, sizes=SIZES)
            result["apart"].append(apart(found, expected))
        for name, fault in FAULTS.items():
            found = with_fault(*fault, one, weights, torch.float64, sizes=SIZES)
            result["faults"][name] = apart(found, expected)
        for dtype in (torch.float32, torch.bfloat16):
            result["noise"][str(dtype)] = [
                noise(whole.loss_and_gradient, one, weights, expected[0], dtype),
                noise(layers.loss_and_gradient, one, weights, expected[0], dtype, sizes=SIZES),
            ]
        for by_layers in (False, True):
            result["files"]["layers" if by_layers else "whole"] = files(one, folder, by_layers)
        result["definitions"] = both_definitions(one, weights)
        result["gpu"] = on_a_gpu(configurations[0], folder)
        result["memory"] = memory(configurations[0], folder)
        result["failures"] = left_by_failures(folder)
        result["weights"] = initial_weights(configurations[0], Path(folder))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
