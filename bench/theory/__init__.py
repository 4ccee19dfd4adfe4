"""What a step must cost: FLOPs, bytes on the wire, bytes in memory. Pure arithmetic.

Symbols: b sequences per replica, S global sequence length, P = sp, H/K query/kv heads,
d head size, e bytes per element, L layers, h hidden, f SwiGLU width, V vocabulary.
Imports on every interpreter that we measure: Python 3.9 or later, standard library only.
"""

from bench.theory.flops import (
    causal_share,
    hardware_flops_per_step,
    layer_matmul_parameters,
    matmul_parameters,
    model_flops_per_step,
    model_flops_per_token,
    tokens_per_second,
    total_parameters,
    utilization,
)
from bench.theory.memory import (
    LOGITS_COPIES,
    ModelStateBytes,
    activation_bytes,
    live_layer_bytes,
    logits_bytes,
    model_state_bytes,
)
from bench.theory.peak import (
    PeakMemory,
    Training,
    layer_activation_bytes,
    longest_sequence,
    moments,
    peak_memory,
    saved_activation_bytes,
    training_of,
)
from bench.theory.traffic import (
    PassBytes,
    all_to_all_bus_bandwidth,
    ring_bytes_per_layer,
    ulysses_bytes_per_layer,
    ulysses_bytes_per_step,
)

__all__ = [
    "LOGITS_COPIES",
    "ModelStateBytes",
    "PassBytes",
    "PeakMemory",
    "Training",
    "activation_bytes",
    "all_to_all_bus_bandwidth",
    "causal_share",
    "hardware_flops_per_step",
    "layer_activation_bytes",
    "layer_matmul_parameters",
    "live_layer_bytes",
    "logits_bytes",
    "longest_sequence",
    "matmul_parameters",
    "model_flops_per_step",
    "model_flops_per_token",
    "model_state_bytes",
    "moments",
    "peak_memory",
    "ring_bytes_per_layer",
    "saved_activation_bytes",
    "tokens_per_second",
    "total_parameters",
    "training_of",
    "ulysses_bytes_per_layer",
    "ulysses_bytes_per_step",
    "utilization",
]
