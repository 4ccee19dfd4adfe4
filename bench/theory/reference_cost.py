"""What the exact float64 reference costs: operations, bytes on the device, in memory and on disk.

There are two ways to make it. `whole` keeps the graph of the whole model in memory; `layers`
(`bench.worker.reference.layers`) keeps each layer's input only, takes one sequence and one layer at
a time, and computes the layer again in backward. In formulas t is the number of tokens of all
replicas; the other symbols are those of this package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.theory.flops import layer_matmul_parameters, total_parameters
from bench.theory.memory import LOGITS_COPIES, live_layer_bytes

if TYPE_CHECKING:
    from bench.trial import Configuration

ATTENTION_BLOCK = 1024
"""Queries, and keys, whose scores are computed at once [tokens]."""
TILE_BYTES = 2**29
"""What one float64 tensor of a tile of tokens may take: logits, or a feed-forward's width."""
INPUTS_ON_DEVICE_BYTES = 2**32
"""Layers' inputs stay on the device up to here, and go to the host's memory beyond."""
WHOLE_BYTES = 2**33
"""The whole graph is kept on CPU up to here: what a machine with 16 GiB can spare."""

_WIDE = 8
"""Bytes of a float64."""
_SCORES = 3
"""Tensors of a block's scores alive at once in backward: probabilities, their gradient, mask."""


def reference_by_layers(configuration: Configuration) -> bool:
    """Whether the reference is made layer by layer: on GPU always, on CPU above `WHOLE_BYTES`."""
    on_gpu = configuration.comm.device == "cuda"
    return on_gpu or whole_reference_bytes(configuration) > WHOLE_BYTES


def reference_flops(configuration: Configuration) -> float:
    """Float64 FLOPs of the reference by layers.

    A layer's matrix products run forward, again in backward, and twice more for the gradients of
    inputs and weights: 8 a weight and token; q, k and v once more, 2, since attention needs whole
    sequences of them and their own backward is tiled; the lm_head 6, as its backward follows its
    forward. Attention: 4 H d a pair of query and key, times 1 + 1 + 5/2, since its backward has
    five products where its forward has two.
    """
    c, model = configuration, configuration.model
    qkv = model.hidden * model.head_dim * (model.heads + 2 * model.kv_heads)
    a_layer = 8 * layer_matmul_parameters(model) + 2 * qkv
    products = model.layers * a_layer + 6 * model.vocab * model.hidden
    sequences = c.dp * c.micro_batch
    pairs = attention_pairs(c.seq_len)
    attention = 4.5 * 4 * model.heads * model.head_dim * model.layers * pairs
    return float(sequences) * (c.seq_len * products + attention)


def forward_flops(configuration: Configuration) -> float:
    """Float64 FLOPs of the reference's forward pass alone: 2 a weight and token, 4 H d a pair."""
    c, model = configuration, configuration.model
    products = 2 * (model.layers * layer_matmul_parameters(model) + model.vocab * model.hidden)
    attention = 4 * model.heads * model.head_dim * model.layers * attention_pairs(c.seq_len)
    return float(c.dp * c.micro_batch) * (c.seq_len * products + attention)


def attention_pairs(seq_len: int, block: int = ATTENTION_BLOCK) -> int:
    """Scores that causal attention in blocks computes: the blocks on the diagonal are whole."""
    blocks, rest = divmod(seq_len, block)
    return block * block * blocks * (blocks + 1) // 2 + rest * seq_len


def stored_inputs_bytes(configuration: Configuration) -> int:
    """Inputs of all layers and of the last norm, of all sequences: 8 t h (L + 1)."""
    c, model = configuration, configuration.model
    return _WIDE * c.dp * c.micro_batch * c.seq_len * model.hidden * (model.layers + 1)


def reference_device_bytes(configuration: Configuration) -> int:
    """Bytes on the device at the peak of the reference by layers.

    The greater of two moments. A layer's backward: its weights, their gradients (two where replicas
    may differ: `Configuration.ragged_replicas`) and those of one tile; for one sequence x, its
    gradient, q, k, v, the attention's output, and the gradients of these four; and tiles. The loss:
    the lm_head, its gradients and that of one tile, x and its gradient, and tiles of logits. The
    layers' inputs count where they stay on the device.
    """
    c, model = configuration, configuration.model
    tile = TILE_BYTES
    stored = stored_inputs_bytes(c)
    kept = stored if stored <= INPUTS_ON_DEVICE_BYTES else 0
    heads = model.head_dim * (4 * model.heads + 4 * model.kv_heads)
    sequence = _WIDE * c.seq_len * (2 * model.hidden + heads)
    block = min(ATTENTION_BLOCK, c.seq_len)
    scores = _SCORES * _WIDE * model.heads * block * block
    weights = (2 + _gradients(c)) * _WIDE * (layer_matmul_parameters(model) + 2 * model.hidden)
    # gate, up, silu(gate), their product and the gradients of all four
    wide = min(tile, _WIDE * c.seq_len * model.ffn)
    layer = weights + sequence + max(scores, 8 * wide)
    head = (2 + _gradients(c)) * _WIDE * (model.vocab + 1) * model.hidden
    logits = LOGITS_COPIES * min(tile, _WIDE * c.seq_len * model.vocab)
    loss = head + 2 * _WIDE * c.seq_len * model.hidden + logits
    return kept + max(layer, loss)


def reference_host_bytes(configuration: Configuration) -> int:
    """Bytes in the host's memory, beyond the device's, for the reference by layers."""
    stored = stored_inputs_bytes(configuration)
    return stored if stored > INPUTS_ON_DEVICE_BYTES else 0


def reference_disk_bytes(configuration: Configuration) -> int:
    """Bytes of the files a parameter: 4 of float32 weights, 8 of each float64 gradient."""
    return (4 + _WIDE * _gradients(configuration)) * total_parameters(configuration.model)


def whole_reference_bytes(configuration: Configuration) -> int:
    """Bytes in memory of the reference that keeps the whole graph, in float64.

    Weights and gradients, 16 a parameter, 24 where there are two gradients; one replica's
    activations of all layers; its logits and what the loss makes of them. Checkpointing and loss
    tiles, which would lower it, do not count: the reference is the same with and without them.
    """
    c, model = configuration, configuration.model
    activations = model.layers * live_layer_bytes(model, 1, c.micro_batch, c.seq_len, _WIDE)
    logits = LOGITS_COPIES * _WIDE * c.micro_batch * c.seq_len * model.vocab
    return (1 + _gradients(c)) * _WIDE * total_parameters(model) + activations + logits


def _gradients(configuration: Configuration) -> int:
    """How many gradients a reference has: one of each definition of the loss that may differ."""
    return 2 if configuration.ragged_replicas else 1
