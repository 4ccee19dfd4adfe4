"""Seconds of a step against numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench import theory
from bench.theory import Cluster, Efficiencies, Link
from bench.trial import ModelSpec

# N_matmul = 1808, all parameters 1944: tests/bench/test_theory.py.
SMALL = ModelSpec(name="small", layers=3, hidden=8, heads=4, kv_heads=2, ffn=16, vocab=10)
CHECKPOINTED = SMALL.model_copy(update={"activation_checkpointing": True})
SHAPE = {"world": 2, "sp": 2, "zero": 1, "micro_batch": 1, "seq_len": 4, "element_bytes": 4}
CLUSTER = Cluster("c", 2, 1e4, 1e6, 1e5, intra=Link(1e3, 0.01), inter=Link(1e2, 0.1))


def test_work_of_a_rank():
    work = theory.work_per_rank(SMALL, **SHAPE)
    assert work.matmul_flops == 6 * 1808 * 4 / 2 == 21696
    assert work.attention_flops == 4 * 720 / 2  # 12*3*4*2*4 a token, 5/8 of it causal
    # State: 7776 weights, 7776 gradients, 972*8 optimizer, each way. Live layer: 960 for each
    # of 3 layers, twice. Logits: 3*4*4*10/2, twice.
    assert work.memory_bytes == 2 * 23328 + 2 * 3 * 960 + 2 * 240
    assert work.all_to_all_bytes == 2 * 3 * 96  # 4 bytes * 2 tokens * 2 wide * 6 heads
    assert work.all_to_all_calls == 4 * 2 * 3
    assert work.gradient_bytes == 3 * 4 * 1944 / 2  # an all-reduce counts twice, and a gather


def test_recomputation_adds_a_forward_of_the_layers_to_each_part():
    work = theory.work_per_rank(CHECKPOINTED, **SHAPE)
    # Of 4 tokens: 2 * 3 * (576 - 128) again, the down projection not; attention 2880/3.
    assert work.matmul_flops == (43392 + 4 * 2688) / 2
    assert work.attention_flops == (2880 + 960) / 2
    assert work.memory_bytes == 2 * 23328 + 3 * 3 * 960 + 2 * 240
    assert work.all_to_all_bytes == 3 * 3 * 96
    assert work.all_to_all_calls == 4 * 3 * 3


def test_one_rank_communicates_nothing():
    work = theory.work_per_rank(SMALL, **{**SHAPE, "world": 1, "sp": 1})
    assert (work.all_to_all_bytes, work.all_to_all_calls, work.gradient_bytes) == (0, 0, 0)
    step = theory.step_time(work, CLUSTER, 1, 1, Efficiencies())
    assert step.all_to_all == step.gradient == 0


@pytest.mark.parametrize(
    ("zero", "factor"), [(0, 2), (1, 3), (2, 3), pytest.param(3, 2, id="3 reduce-scatters")]
)
def test_gradient_bytes(zero, factor):
    assert theory.gradient_bytes(100, zero, world=4, element_bytes=2) == factor * 200 * 3 / 4


def test_seconds_at_full_rates():
    step = theory.step_time(theory.work_per_rank(SMALL, **SHAPE), CLUSTER, 2, 2, Efficiencies())
    assert step.matmul == pytest.approx(2.1696)
    assert step.attention == pytest.approx(0.144)
    assert step.memory == pytest.approx(0.52896)
    assert step.all_to_all == pytest.approx(0.576 + 24 * 0.01)
    assert step.gradient == pytest.approx(11.664)
    assert step.overlapped == pytest.approx(11.664)
    assert step.serial == step.predicted == pytest.approx(2.3136 + 0.52896 + 0.816 + 11.664)
    assert step.limit == "gradient reduction"


def test_efficiencies_overhead_and_what_hides():
    shares = Efficiencies(
        matmul=0.5,
        attention=0.5,
        memory=0.5,
        all_to_all=0.5,
        gradient=0.5,
        overlap=0.5,
        step_overhead_s=1.0,
        layer_overhead_s=0.1,
    )
    step = theory.step_time(theory.work_per_rank(SMALL, **SHAPE), CLUSTER, 2, 2, shares)
    assert step.overhead == pytest.approx(1.3)
    assert step.serial == pytest.approx(1.3 + 2 * (2.3136 + 0.52896 + 0.816 + 11.664))
    assert step.hidden == pytest.approx(0.5 * 2 / 3 * 2 * 2.3136)  # of 23.328 s of reduction
    assert step.overlapped < step.predicted < step.serial


def test_no_more_hides_than_there_is():
    fast = replace(CLUSTER, intra=Link(1e9, 0.0))
    step = theory.step_time(
        theory.work_per_rank(SMALL, **SHAPE), fast, 2, 2, Efficiencies(overlap=1.0)
    )
    assert step.hidden == step.gradient == pytest.approx(11.664e-6)


def test_a_long_overhead_is_the_limit():
    work = theory.work_per_rank(SMALL, **SHAPE)
    step = theory.step_time(work, CLUSTER, 2, 2, Efficiencies(step_overhead_s=100))
    assert step.limit == "fixed overhead"
    assert step.overlapped == pytest.approx(111.664)


@pytest.mark.parametrize(
    ("per_node", "sp", "seconds"),
    [
        pytest.param(4, 4, 300 / 1e3 + 2 * 0.01, id="within the node"),
        pytest.param(2, 4, 200 / 1e2 + 2 * 0.1, id="two of three peers are elsewhere"),
        pytest.param(1, 4, 300 / 1e2 + 2 * 0.1, id="all are elsewhere"),
        pytest.param(4, 1, 0, id="alone"),
    ],
)
def test_all_to_all_over_nodes(per_node, sp, seconds):
    cluster = replace(CLUSTER, gpus_per_node=per_node)
    assert theory.all_to_all_s(300, 2, sp, cluster) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("per_node", "seconds"),
    [
        pytest.param(4, 3000 / 1e3, id="one node: a flat ring"),
        # 4000 bytes: half of them cross within the node; 2000 a card, half of them between nodes
        pytest.param(2, 1000 / 1e2, id="two nodes"),
        pytest.param(1, 3000 / 1e2, id="four nodes"),
    ],
)
def test_reduction_in_two_levels(per_node, seconds):
    cluster = replace(CLUSTER, gpus_per_node=per_node)
    assert theory.reduction_s(3000, 4, cluster) == pytest.approx(seconds)


def test_what_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="seq_len=5 is not divisible by sp=2"):
        theory.work_per_rank(SMALL, **{**SHAPE, "seq_len": 5})
