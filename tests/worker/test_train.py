"""Real training trials: DeepSpeed's engine, four processes, gradients beside the reference."""

from __future__ import annotations

from typing import Any

import pytest

from bench.record import PHASES, Record, Status
from bench.theory import ulysses_bytes_per_step
from tests.conftest import TINY, RunTrial, configure

pytestmark = pytest.mark.environment


def scale_of(record: Record) -> str:
    assert record.status is Status.OK, record.reason
    assert record.gradient is not None
    return f"{record.gradient.verdict} {record.gradient.scale_label}"


def test_a_record_holds_what_was_measured(run_trial: RunTrial) -> None:
    record = run_trial(configure(loss="weighted_all_reduce", warmup_steps=2, steps=3))
    assert record.status is Status.OK
    assert record.emulated
    assert [s.rank for s in record.samples] == [0, 1, 2, 3]
    for samples in record.samples:
        assert (len(samples.warmup_s), len(samples.step_s), len(samples.losses)) == (2, 3, 5)
        for step, total in enumerate(samples.step_s):
            parts = sum(samples.phases_s[phase][step] for phase in PHASES)
            assert parts == pytest.approx(total, rel=1e-6)
    assert all(0 < memory.peak_bytes < 1 << 30 for memory in record.memory)
    assert record.gradient is not None
    assert record.gradient.loss == pytest.approx(record.gradient.reference_loss, rel=1e-5)
    assert record.worker is not None
    assert record.worker.torch.startswith("2.13.0")
    assert record.worker.deepspeed == "0.18.2"
    assert {o.outcome for o in record.ranks} == {"finished"}


@pytest.mark.parametrize(
    ("zero", "all_gather", "workaround"),
    [(0, "scaled ×2", "match ×1"), (1, "scaled ×2", "match ×1"), (3, "match ×1", "scaled ×1/2")],
)
def test_gradients_of_the_two_ways_differ_by_sp(
    run_trial: RunTrial, zero: int, all_gather: str, workaround: str
) -> None:
    """What DeepSpeed 0.18.2 was measured to do; a change here is news, not noise."""
    assert scale_of(run_trial(configure(zero=zero, loss="all_gather"))) == all_gather
    assert scale_of(run_trial(configure(zero=zero, loss="weighted_all_reduce"))) == workaround


def test_old_torch_fails_where_sp_is_smaller_than_world(run_trial: RunTrial) -> None:
    record = run_trial(configure("torch-2.2", loss="all_gather", sp=2))
    assert record.status is Status.ERROR
    assert [(e.rank, e.type, e.phase) for e in record.errors] == [
        (2, "IndexError", "backward"),
        (3, "IndexError", "backward"),
    ]
    assert record.reason == "IndexError in backward on ranks 2, 3: tuple index out of range"
    assert [o.outcome for o in record.ranks] == ["interrupted"] * 2 + ["raised"] * 2


@pytest.mark.parametrize(
    "fields",
    [
        {"sp": 1, "attention": "local"},
        {"sp": 1},
        {"sp": 4},
        {"sp": 4, "model": TINY.model_copy(update={"kv_heads": 2})},
        {"model": TINY.model_copy(update={"kv_heads": 8})},
        {"model": TINY.model_copy(update={"activation_checkpointing": True})},
        {"model": TINY.model_copy(update={"loss_tiles": 3})},  # 32 tokens: tiles of 11, 11, 10
        {"model": TINY.model_copy(update={"loss_tiles": 100}), "zero": 0},  # a tile a token
        {"sp": 1, "zero": 3, "model": TINY.model_copy(update={"loss_tiles": 3})},
        {"model": TINY.model_copy(update={"loss_tiles": 4, "activation_checkpointing": True})},
        {"micro_batch": 2},
        {"mask": "none"},
        {"mask": "prompt"},
        {"mask": "empty_shard"},
        {"zero": 2},
        {"world": 2},
        {"world": 1, "sp": 1},
        {"deepspeed": {"zero_optimization": {"reduce_scatter": False}}},
        {"dtype": "bfloat16"},
        {"dtype": "bfloat16", "zero": 0},
    ],
    ids=str,
)
def test_own_share_of_the_loss_is_right_everywhere(
    run_trial: RunTrial, fields: dict[str, Any]
) -> None:
    """Positions, label shift, key/value heads and masks: an error in any of them shows here."""
    assert scale_of(run_trial(configure(loss="local", **fields))) == "match ×1"


def test_local_mean_is_wrong_only_where_shards_are_unequal(run_trial: RunTrial) -> None:
    assert scale_of(run_trial(configure(loss="local_mean", mask="ragged"))).startswith("wrong")
    assert scale_of(run_trial(configure(loss="local_mean", mask="none"))) == "scaled ×2"


@pytest.mark.parametrize("sp", [2, 4])
def test_counted_all_to_all_bytes_are_those_of_theory(run_trial: RunTrial, sp: int) -> None:
    record = run_trial(configure(sp=sp))
    theory = ulysses_bytes_per_step(TINY, sp=sp, micro_batch=1, seq_len=64, element_bytes=4)
    for phase, expected in (("forward", theory.forward), ("backward", theory.backward)):
        handed_in = [
            c.bytes
            for c in record.collectives
            if (c.rank, c.phase, c.collective) == (0, phase, "all_to_all_single")
        ]
        # a rank keeps 1/sp of what it hands in, and theory counts what is sent
        assert [n * (sp - 1) // sp for n in handed_in] == [expected]


def test_no_gradient_check_needs_no_reference(run_trial: RunTrial) -> None:
    record = run_trial(configure(gradient_check="off", seed=7))
    assert record.status is Status.OK
    assert record.gradient is None


def test_a_busy_loop_lengthens_the_measured_steps_by_its_length(run_trial: RunTrial) -> None:
    record = run_trial(configure(warmup_steps=2, steps=3, options={"busy_s": 0.3}))
    assert record.status is Status.OK, record.reason
    assert record.config.options == {"busy_s": 0.3}
    for samples in record.samples:
        assert all(0.3 <= seconds < 0.6 for seconds in samples.phases_s["optimizer"])
        others = [s for phase in ("forward", "aggregate") for s in samples.phases_s[phase]]
        assert max([*others, samples.warmup_s[1]]) < 0.3
    assert record.gradient is not None
    assert record.gradient.verdict == "match"


def test_ranks_agree_on_a_longer_warm_up(run_trial: RunTrial) -> None:
    """The rule for GPUs, forced on real ranks on CPU by `options.warm_up_s`."""
    options = {"warm_up_s": 0.5}
    record = run_trial(
        configure(loss="weighted_all_reduce", warmup_steps=2, steps=2, options=options)
    )
    assert record.status is Status.OK, record.reason
    assert record.config.warmup_steps == 2
    [warm_up] = {len(samples.warmup_s) for samples in record.samples}
    assert warm_up >= 3  # the step that is checked, and two more at least
    # the broadcasts between them are no part of the steps' own time
    assert sum(record.samples[0].warmup_s[1:]) > 0.2
    for samples in record.samples:
        assert (len(samples.step_s), len(samples.losses)) == (2, warm_up + 2)
        assert samples.losses == sorted(samples.losses, reverse=True)  # each step learns a little
    assert record.gradient is not None
    assert record.gradient.verdict == "match"
    assert record.gradient.loss == pytest.approx(record.gradient.reference_loss, rel=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"bussy_s": 1.0},
            "options.bussy_s: unknown to scenario train; "
            "allowed: busy_s, memory_snapshot, warm_up_s",
        ),
        ({"busy_s": -1}, "options.busy_s=-1: must be a number of seconds from 0 on"),
        ({"warm_up_s": -1}, "options.warm_up_s=-1: must be a number of seconds from 0 on"),
        ({"busy_s": "long"}, "options.busy_s=long: must be a number of seconds from 0 on"),
    ],
)
def test_options_of_another_scenario_are_refused(
    run_trial: RunTrial, options: dict[str, Any], message: str
) -> None:
    record = run_trial(configure(options=options))
    assert record.status is Status.ERROR
    assert record.errors[0].message == message
