"""How long a trial may be silent, against numbers worked out by hand."""

from __future__ import annotations

import pytest

from bench import theory
from bench.theory import patience
from bench.trial import CommSpec, Configuration, ModelSpec
from tests.conftest import configure

# One layer whose products count: q, k, v and o 4*h*h, the SwiGLU 3*h*f, the head V*h.
# N_matmul = 4*4096**2 + 3*4096*8192 + 4096*4096 = 184,549,376.
WIDE = ModelSpec(name="wide", layers=1, hidden=4096, heads=32, kv_heads=32, ffn=8192, vocab=4096)
NCCL = CommSpec(name="nccl")


def on_gpu(**fields: object) -> Configuration:
    defaults = {"comm": NCCL, "model": WIDE, "world": 1, "sp": 1, "zero": 0, "seq_len": 1 << 20}
    return configure(**{**defaults, "attention": "local", **fields})


def test_the_longest_phase_on_gpu_is_the_whole_step() -> None:
    tokens = 2**20
    matmul = 6 * 184_549_376 * tokens
    attention = 12 * 4096 * tokens * (tokens + 1) / 2  # 12 H d S (1 + 1/S) / 2 a token
    memory = theory.work_per_rank(
        WIDE, world=1, sp=1, zero=0, micro_batch=1, seq_len=tokens, element_bytes=4
    ).memory_bytes
    expected = (matmul + attention) / 10e12 + memory / 500e9
    assert expected == pytest.approx(2820, rel=0.01)  # 116 + 2702 s, and 2 s of memory
    assert patience.longest_phase_s(on_gpu()) == pytest.approx(expected)
    assert theory.hang_s(on_gpu()) == pytest.approx(10 * expected)


def test_bfloat16_is_faster_and_sharing_a_gpu_slower() -> None:
    half = theory.hang_s(on_gpu(dtype="bfloat16"))
    assert half == pytest.approx(theory.hang_s(on_gpu()) / 5, rel=0.01)
    four = on_gpu(world=4, sp=1, seq_len=1 << 18)
    shared = on_gpu(world=4, sp=1, seq_len=1 << 18, comm=CommSpec(name="nccl", oversubscribe=True))
    sent = theory.gradient_bytes(theory.total_parameters(WIDE), 0, 4, 4)
    alone = patience.longest_phase_s(four) - sent / 5e9
    assert patience.longest_phase_s(shared) == pytest.approx(4 * alone + sent / 1e9)


def test_small_trials_get_the_least() -> None:
    assert theory.hang_s(configure()) == 60
    assert theory.hang_s(configure(comm=NCCL, world=4)) == 60


def test_on_cpu_only_what_ranks_send_counts() -> None:
    """Computing counts as progress there: 1 TB of gradients at 1 GB/s are ten times 1024 s."""
    silent = configure(comm=CommSpec(name="gloo"), model=WIDE, world=1, sp=1, attention="local")
    assert theory.hang_s(silent.model_copy(update={"seq_len": 1 << 20})) == 60
    large = WIDE.model_copy(update={"layers": 1000})
    sent = theory.gradient_bytes(theory.total_parameters(large), 1, 2, 4)
    talking = silent.model_copy(update={"model": large, "world": 2, "sp": 1})
    assert theory.hang_s(talking) == pytest.approx(10 * sent / 1e9)
    assert theory.hang_s(talking) > 60


def test_a_scenario_that_splits_nothing_gets_the_least() -> None:
    assert theory.hang_s(configure(seq_len=63)) == 60
