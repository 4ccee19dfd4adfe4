"""The exact gradient: one process, the whole batch, float64, dense attention.

`Configuration.reference` says of which loss (`bench.worker.loss_definitions`). Where data-parallel
replicas may have different numbers of valid labels the other definition's gradient is kept, too:
it comes from the same pass.

It is computed once per model, data and sequence length, in a process of its own, kept on disk
and shared by every trial that has the same `Configuration.reference_key` and the same code for
model, batch and reference: a folder is named by both. The initial weights lie beside it: they are
drawn once and loaded by all, so that no version draws its own.

    weights.npy    float32, all parameters one after another in the model's order; a link to
                   the file beside the folders, which all lengths and splits share
    gradient.npy   float64, likewise
    gradient-other.npy  likewise, by the other definition, where there are two
    reference.json loss, `reference` (the definition), `other` (the other one, its loss, and the
                   distance of the two gradients; null where they are one), and how it was made:
                   `torch`, `by` (`whole` or `layers`), `device`, `seconds`, `peak_bytes`
    noise-<dtype>-<torch>[-cuda-<device>][-<matmul>][-<sdpa>].json
                   relative error of one process in that dtype, on that torch, device, precision
                   of matrix products and kernel of attention; `cpu`, `highest` and `auto` are
                   left out

`whole` keeps the graph of the whole model, `layers` the memory of one layer: `theory` says which
(`reference_by_layers`), and both give the same to 1e-10.
"""

from bench.worker.reference.files import Reference, noise_file
from bench.worker.reference.making import create, missing

__all__ = ["Reference", "create", "missing", "noise_file"]
