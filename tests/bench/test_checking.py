"""Which comparison `gradient_check` comes to, by hand and over models, lengths and devices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from bench import theory
from bench.theory import checking
from bench.trial import CommSpec, Configuration, ModelSpec
from tests import factories

MODELS = {
    path.stem: ModelSpec(**yaml.safe_load(path.read_text()))
    for path in (Path(__file__).parents[2] / "conf" / "model").glob("*.yaml")
}


def asked(model: str, seq_len: int, comm: str, world: int, sp: int, **fields: Any) -> Configuration:
    return factories.configuration(
        model=MODELS[model], seq_len=seq_len, comm=CommSpec(name=comm), world=world, sp=sp, **fields
    )


@pytest.mark.parametrize("mode", ["exact", "proxy", "sketch", "directional", "off"])
@pytest.mark.parametrize("seq_len", [512, 131072])
def test_what_was_asked_for_by_name_is_obeyed(mode: str, seq_len: int):
    configuration = asked("8b", seq_len, "gloo", 4, 2, gradient_check=mode)
    assert theory.decision(configuration) == theory.Decision(mode, None)
    assert theory.gradient_mode(configuration) == mode


ON_CPU = [
    ("tiny", 512, "exact"),
    ("tiny", 4096, "exact"),  # the longest that an experiment of ours has
    ("160m", 512, "exact"),
    ("160m", 2048, "exact"),
    ("160m", 8192, "off"),  # 24 min
    ("1b", 2048, "off"),
    ("8b", 512, "off"),
    ("8b", 131072, "off"),
]
ON_GPU = [
    ("tiny", 131072, "exact"),
    ("160m", 131072, "exact"),
    ("1b", 2048, "exact"),
    ("1b", 32768, "exact"),
    ("8b", 512, "proxy"),  # a gradient of 64 GB
    ("8b", 8192, "proxy"),
    ("8b", 131072, "proxy"),
]


@pytest.mark.parametrize(("model", "seq_len", "mode"), ON_CPU)
def test_auto_on_cpu(model: str, seq_len: int, mode: str):
    for comm in ("gloo", "nccl_over_gloo"):
        assert theory.gradient_mode(asked(model, seq_len, comm, 4, 2)) == mode


@pytest.mark.parametrize(("model", "seq_len", "mode"), ON_GPU)
def test_auto_on_gpu(model: str, seq_len: int, mode: str):
    assert theory.gradient_mode(asked(model, seq_len, "nccl", 8, 8)) == mode


def test_a_reference_costs_what_its_flops_take_at_the_rate_taken_for_granted(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(checking, "reference_flops", lambda c: 1.2e13)
    on_cpu, on_gpu = asked("160m", 512, "gloo", 4, 2), asked("160m", 512, "nccl", 4, 2)
    assert theory.reference_seconds(on_cpu) == 600  # 1.2e13 / 2e10
    assert theory.reference_seconds(on_gpu) == pytest.approx(0.4)  # 1.2e13 / 3e13
    assert theory.affordable(on_cpu)
    monkeypatch.setattr(checking, "reference_flops", lambda c: 1.21e13)
    assert not theory.affordable(on_cpu)
    assert theory.affordable(on_gpu)


@pytest.mark.parametrize(
    ("cost", "comm"),
    [
        ("reference_disk_bytes", "gloo"),
        ("whole_reference_bytes", "gloo"),
        ("reference_device_bytes", "nccl"),
        ("reference_host_bytes", "nccl"),
    ],
)
def test_every_kind_of_memory_has_its_bound(monkeypatch: pytest.MonkeyPatch, cost: str, comm: str):
    configuration = asked("160m", 512, comm, 4, 2)
    assert theory.affordable(configuration)
    monkeypatch.setattr(checking, cost, lambda c: 1 << 40)
    assert not theory.affordable(configuration)


def test_off_says_what_the_reference_would_cost(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(checking, "reference_flops", lambda c: 2e10 * 3 * 3600)
    monkeypatch.setattr(checking, "whole_reference_bytes", lambda c: 210_000_000_000)
    monkeypatch.setattr(checking, "reference_by_layers", lambda c: False)
    monkeypatch.setattr(checking, "reference_disk_bytes", lambda c: 12_000_000)
    assert theory.decision(asked("160m", 512, "gloo", 4, 2)) == theory.Decision(
        "off",
        "not compared: the exact reference would take about 3 h, 210 GB of memory and 12 MB of "
        "disk; gradient_check=sketch, directional or proxy compares without it",
    )


def test_the_first_loss_is_compared_where_a_forward_pass_takes_two_minutes():
    # 32 layers of 2 * 218,103,808 weights and the head's 2 * 525,336,576, 2,048 tokens; blocks of
    # 1,024 queries and keys: 3 of 4 are computed, 4 * 32 * 128 * 32 FLOPs a pair of them
    configuration = asked("8b", 2048, "nccl", 8, 8)
    flops = 2048 * 2 * (32 * 218_103_808 + 525_336_576) + 4 * 32 * 128 * 32 * 3 * 1024**2
    assert theory.forward_flops(configuration) == flops  # 32.4e12
    assert theory.first_loss_reason(configuration) is None  # 1 s at 3e13
    assert theory.first_loss_reason(asked("8b", 2048, "gloo", 8, 8)) == (  # 1,619 s at 2e10
        "not compared: a forward pass in float64 on one device would take about 27 min"
    )
    assert theory.first_loss_reason(asked("8b", 32768, "nccl", 8, 8)) is None
    assert theory.first_loss_reason(asked("8b", 131072, "nccl", 8, 8)) is not None


def test_a_proxy_of_two_layers_is_the_trial_itself():
    short = asked("tiny", 512, "gloo", 4, 2, gradient_check="proxy")
    assert short.model.layers == 2
    assert theory.decision(short) == theory.Decision("exact", None)
    long = asked("tiny", 2**22, "nccl", 8, 8)  # too long to be exact, too shallow for a proxy
    mode, reason = theory.decision(long)
    assert (mode, "sketch or directional compares" in str(reason)) == ("off", True)


def test_no_proxy_is_run_that_could_not_be_compared_either():
    many = asked("8b", 131072, "nccl", 512, 8)  # 64 replicas, each with a sequence of its own
    assert theory.gradient_mode(many) == "off"
    assert theory.gradient_mode(many.model_copy(update={"gradient_check": "proxy"})) == "proxy"


def test_a_proxy_differs_in_depth_and_in_what_it_measures_only():
    deep = asked(
        "8b", 131072, "nccl", 8, 8, zero=3, dtype="bfloat16", mask="prompt", loss="local", steps=7,
        scenario="profile", options={"profiled_steps": 2}, micro_batch=2, memory_limit=1 << 40,
        deepspeed={"zero_optimization": {"reduce_bucket_size": 1000}},
    )  # fmt: skip
    proxy = theory.proxy_of(deep)
    before, after = deep.model_dump(), proxy.model_dump()
    assert {name: after[name] for name in after if after[name] != before[name]} == {
        "model": {**before["model"], "layers": 2},
        "scenario": "train",
        "options": {},
        "steps": 1,
        "warmup_steps": 1,
        "gradient_check": "exact",
    }
    assert theory.gradient_mode(proxy) == "exact"
    fault = deep.model_copy(update={"scenario": "mutation", "options": {"mutation": "times_sp"}})
    kept = theory.proxy_of(fault)  # which makes the step another one
    assert (kept.scenario, kept.options) == ("mutation", {"mutation": "times_sp"})
    assert proxy.reference_key != deep.reference_key
