"""Results that cannot be, with numbers worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from bench.theory import Observation, impossible, marginal_rate, rate, step_seconds, weight_bytes
from bench.trial import ModelSpec

# FLOPs per token: 10848 + 12*3*4*2*S*c, with S*c = (S+1)/2: S=3 gives 576, S=7 gives 1152.
SMALL = ModelSpec(name="small", layers=3, hidden=8, heads=4, kv_heads=2, ffn=16, vocab=10)
SHORT = Observation("short", SMALL, gpus=2, seq_len=3, tokens_per_step=30, step_s=1.0)
LONG = Observation("long", SMALL, gpus=2, seq_len=7, tokens_per_step=70, step_s=2.0)
FLOPS_SHORT, FLOPS_LONG = 30 * (10848 + 576), 70 * (10848 + 1152)


def test_rates():
    assert step_seconds(100, 50) == 2.0
    assert rate(SHORT) == FLOPS_SHORT / 2 == 171360
    assert rate(replace(SHORT, step_s=None)) is None
    assert marginal_rate(SHORT, LONG) == (FLOPS_LONG - FLOPS_SHORT) / 1.0 / 2 == 248640
    assert marginal_rate(SHORT, LONG, attention=False) == 40 * 10848 / 2


def test_a_marginal_rate_needs_two_times_and_more_work():
    assert marginal_rate(replace(SHORT, step_s=None), LONG) is None
    assert marginal_rate(LONG, SHORT) is None
    assert marginal_rate(SHORT, replace(LONG, step_s=0.9)) == math.inf


def test_possible_results_meet_no_objection():
    assert impossible([LONG, SHORT], peak_flops=250_000) == []


def test_a_rate_above_the_peak():
    [text] = impossible([SHORT], peak_flops=150_000)
    assert "short" in text and "above the peak" in text


def test_a_marginal_rate_above_the_peak_is_found_though_each_rate_is_below():
    assert rate(LONG) == 210_000
    [text] = impossible([LONG, SHORT], peak_flops=220_000)
    assert text.startswith("short to long: ")


def test_rounded_figures_have_some_slack():
    assert impossible([LONG, SHORT], peak_flops=248640 / 1.019) == []
    assert len(impossible([LONG, SHORT], peak_flops=248640 / 1.021)) == 1


def test_more_work_in_no_more_time():
    [text] = impossible([SHORT, replace(LONG, step_s=1.0)], peak_flops=1e9)
    assert "infinitely many" in text


def test_memory_below_the_weights_or_above_the_gpu():
    assert weight_bytes(SHORT) == 1944 * 2 / 2
    [text] = impossible([replace(SHORT, peak_memory_bytes=1900)], 1e9)
    assert "less than a GPU's share of the weights" in text
    assert impossible([replace(SHORT, peak_memory_bytes=1950)], 1e9) == []
    [text] = impossible([replace(SHORT, peak_memory_bytes=5000)], 1e9, memory_bytes=4000)
    assert "more than the GPU's" in text


@pytest.mark.parametrize(("peak", "unit"), [(5e13, "50 TFLOP/s"), (1e11, "100.0 GFLOP/s")])
def test_units(peak, unit):
    fast = replace(SHORT, step_s=FLOPS_SHORT / 2 / (2 * peak))
    assert f"above the peak of {unit}" in impossible([fast], peak)[0]


def test_steps_that_differ_by_less_than_their_uncertainty_are_no_contradiction():
    unsure = [replace(SHORT, uncertainty_s=0.2), replace(LONG, step_s=0.9, uncertainty_s=0.2)]
    assert "infinitely many" in impossible([SHORT, replace(LONG, step_s=0.9)], 1e9)[0]
    # 0.9 + 0.2 - (1.0 - 0.2) = 0.3 s for what would take 497,280 FLOPs on two GPUs
    assert impossible(unsure, 497_280 / 2 / 0.3) == []
    assert len(impossible(unsure, 497_280 / 2 / 0.3 / 1.03)) == 1
