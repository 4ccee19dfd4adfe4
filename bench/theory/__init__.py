"""What a step must cost: FLOPs, bytes on the wire, bytes in memory. Pure arithmetic.

Symbols: b sequences per replica, S global sequence length, P = sp, H/K query/kv heads,
d head size, e bytes per element, L layers, h hidden, f SwiGLU width, V vocabulary.
Imports on every interpreter that we measure: Python 3.9 or later, standard library only.
"""

from bench.theory.checking import (
    Decision,
    affordable,
    decision,
    gradient_mode,
    proxy_of,
    reference_seconds,
)
from bench.theory.cluster import Cluster, Efficiencies, Link
from bench.theory.crossover import ring_layer_s, ring_over_ulysses, ulysses_layer_s
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
from bench.theory.patience import hang_s
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
from bench.theory.plausible import (
    Observation,
    impossible,
    marginal_rate,
    rate,
    step_seconds,
    weight_bytes,
)
from bench.theory.reference_cost import (
    reference_by_layers,
    reference_device_bytes,
    reference_disk_bytes,
    reference_flops,
    reference_host_bytes,
    whole_reference_bytes,
)
from bench.theory.step_time import (
    StepTime,
    Work,
    all_to_all_s,
    gradient_bytes,
    reduction_s,
    step_time,
    work_per_rank,
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
    "Cluster",
    "Decision",
    "Efficiencies",
    "Link",
    "ModelStateBytes",
    "Observation",
    "PassBytes",
    "PeakMemory",
    "StepTime",
    "Training",
    "Work",
    "activation_bytes",
    "affordable",
    "all_to_all_bus_bandwidth",
    "all_to_all_s",
    "causal_share",
    "decision",
    "gradient_bytes",
    "gradient_mode",
    "hang_s",
    "hardware_flops_per_step",
    "impossible",
    "layer_activation_bytes",
    "layer_matmul_parameters",
    "live_layer_bytes",
    "logits_bytes",
    "longest_sequence",
    "marginal_rate",
    "matmul_parameters",
    "model_flops_per_step",
    "model_flops_per_token",
    "model_state_bytes",
    "moments",
    "peak_memory",
    "proxy_of",
    "rate",
    "reduction_s",
    "reference_by_layers",
    "reference_device_bytes",
    "reference_disk_bytes",
    "reference_flops",
    "reference_host_bytes",
    "reference_seconds",
    "ring_bytes_per_layer",
    "ring_layer_s",
    "ring_over_ulysses",
    "saved_activation_bytes",
    "step_seconds",
    "step_time",
    "tokens_per_second",
    "total_parameters",
    "training_of",
    "ulysses_bytes_per_layer",
    "ulysses_bytes_per_step",
    "ulysses_layer_s",
    "utilization",
    "weight_bytes",
    "whole_reference_bytes",
    "work_per_rank",
]
