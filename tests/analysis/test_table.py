"""The summary and what a terminal shows of it."""

from __future__ import annotations

import io
import json
import math

import pytest
from rich.console import Console

from analysis.frame import load
from analysis.table import closing_line, render, summary, varying_axes
from bench.record import Clipping, FirstLoss, Status
from bench.trial import CommSpec, ModelSpec
from tests import factories

OLD = factories.environment("torch-2.2", "2.2.2")


@pytest.fixture
def sweep(tmp_path):
    """Two environments, two aggregations, two lengths, 3 rounds; one combination fails."""
    records = []
    for env in (factories.environment(), OLD):
        for loss in ("all_gather", "weighted_all_reduce"):
            for seq_len in (2048, 512):
                for round_ in range(3):
                    point = {"environment": env, "loss": loss, "seq_len": seq_len, "round": round_}
                    if env is OLD and loss == "all_gather":
                        records.append(factories.failed(**point))
                    else:
                        records.append(factories.ok(step_s=(0.5, 0.25, 1.0)[round_], **point))
    factories.write(tmp_path, *records)
    return load(tmp_path)


def shown(frame, width: int = 160) -> str:
    console = Console(file=io.StringIO(), width=width)
    render(frame, console)
    return console.file.getvalue()


def test_summary_has_a_row_per_configuration_sorted_by_its_axes(sweep):
    table = summary(sweep)
    assert list(table.columns[1:4]) == ["seq_len", "environment", "loss"]
    assert table[["seq_len", "environment", "loss"]].values.tolist() == [
        [seq_len, env, loss]
        for seq_len in (512, 2048)
        for env in ("torch-2.2", "torch-2.13")
        for loss in ("all_gather", "weighted_all_reduce")
    ]


def test_how_a_gradient_was_judged_stands_beside_its_verdict(tmp_path):
    twice = factories.gradient(mode="proxy", verdict="scaled", scale=2.0, scale_label="×2")
    why = "not compared: the exact reference would take about 3 h; gradient_check=proxy compares"
    factories.write(
        tmp_path,
        factories.ok(zero=0, gradient_mode="exact"),
        factories.ok(
            zero=1,
            gradient_mode="proxy",
            gradient=twice,
            first_loss=FirstLoss(loss=5, agrees=False),
        ),
        factories.ok(zero=2, gradient=None, gradient_mode="off", gradient_reason=why),
        factories.ok(zero=3, gradient=None, gradient_check="off", gradient_mode="off"),
    )
    frame = load(tmp_path)
    assert summary(frame).gradient.tolist() == [
        "match ×1",
        "scaled ×2 (2-layer proxy); first loss is not that of one device",
        "not compared",
        "",
    ]
    lines = shown(frame).splitlines()
    assert [line for line in lines if line.startswith(("not compared", "2-layer"))] == [
        why,
        "2-layer proxy: the gradient of the same trial with two layers",
    ]


def test_summary_of_rounds(sweep):
    row = summary(sweep).iloc[1]
    # 2 replicas of 512 tokens in 0.5, 0.25 and 1 s.
    assert (row.tokens_per_s_low, row.tokens_per_s, row.tokens_per_s_high) == (1024, 2048, 4096)
    assert (row.rounds, row.level, row.statuses) == (3, 0.75, "ok 3")
    assert (row.gradient, row.failure) == ("match ×1", "")
    assert row.peak_memory_bytes == 4 * 2**20


def test_summary_of_a_configuration_that_fails(sweep):
    row = summary(sweep).iloc[0]
    assert (row.statuses, row.rounds) == ("error 3", 0)
    assert row.failure == "IndexError in backward, ranks 2,3"
    assert math.isnan(row.tokens_per_s) and row.gradient == ""


def test_rounds_that_differ_are_all_named(tmp_path):
    scaled = factories.gradient(verdict="scaled", scale_label="×2")
    factories.write(
        tmp_path,
        factories.ok(noisy=["load"]),
        factories.ok(round=1, gradient=scaled),
        factories.failed(round=2),
    )
    row = summary(load(tmp_path)).iloc[0]
    assert row.statuses == "ok 2, error 1"
    assert row.gradient == "match ×1; scaled ×2"
    assert (row.noisy, row.rounds) == (1, 2)


def test_sizes_that_follow_from_the_name_of_the_model_are_left_out(tmp_path):
    big = ModelSpec(name="big", layers=4, hidden=64, heads=4, kv_heads=2, ffn=128, vocab=256)
    factories.write(tmp_path, factories.ok(), factories.ok(model=big), factories.ok(sp=4))
    assert varying_axes(load(tmp_path)) == ["model", "sp", "dp"]


def test_sizes_within_one_name_of_a_model_are_shown(tmp_path):
    deep = factories.TINY.model_copy(update={"layers": 4})
    other = factories.TINY.model_copy(update={"name": "other"})
    factories.write(tmp_path, factories.ok(), factories.ok(model=deep))
    assert varying_axes(load(tmp_path)) == ["model.layers"]
    factories.write(tmp_path, factories.ok(model=other))
    assert varying_axes(load(tmp_path)) == ["model", "model.layers"]


def test_free_options_are_axes(tmp_path):
    factories.write(tmp_path, factories.ok(), factories.ok(deepspeed={"gradient_clipping": 1.0}))
    assert varying_axes(load(tmp_path)) == ["deepspeed.gradient_clipping"]
    assert "none" in shown(load(tmp_path))


def test_configurations_that_no_axis_tells_apart_show_the_key_that_does(tmp_path):
    moved = factories.environment(torch="2.14.0")  # the same name for other content
    factories.write(tmp_path, factories.ok(), factories.ok(environment=moved))
    table = summary(load(tmp_path))
    assert table["environment.torch"].tolist() == ["2.13.0", "2.14.0"]
    assert "2.14.0" in shown(load(tmp_path))


def test_configurations_that_no_key_tells_apart_show_their_hash(tmp_path):
    path = factories.write(tmp_path, factories.ok())
    other = json.loads(path.read_text())
    path.write_text(path.read_text() + json.dumps({**other, "config_hash": "f" * 16}) + "\n")
    table = summary(load(tmp_path))
    assert table.config.tolist() == sorted([other["config_hash"][:8], "f" * 8])
    assert "ffffffff" in shown(load(tmp_path))


def test_render_wide_is_one_table(sweep):
    text = shown(sweep)
    assert "IndexError in backward, ranks 2,3" in text
    assert "1,024 …  4,096" in text and "4,096 … 16,384" in text and " 2,048 " in text
    assert "dtype=float32" in text.splitlines()[0]
    assert "nccl_over_gloo: torch's NCCL code path emulated on gloo" in text
    assert "median over 3 rounds; interval: range of the rounds, 75%" in text
    assert text.splitlines()[-1] == "24 trials: 18 ok, 6 error; not ok: 6"


def test_numbers_are_aligned_on_the_decimal_point(tmp_path):
    factories.write(
        tmp_path,
        factories.ok(step_s=512.0),
        factories.ok(step_s=0.01, loss="local"),
    )
    lines = shown(load(tmp_path)).splitlines()
    slow = next(line for line in lines if line.startswith("all_gather"))
    fast = next(line for line in lines if line.startswith("local"))
    assert "2.00" in slow and "102,400.00" in fast
    assert slow.index(".00") == fast.index(".00")


def test_render_narrow_keeps_every_figure_within_80_columns(sweep):
    text = shown(sweep, width=80)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert "seq_len=512" in lines and "seq_len=2,048" in lines
    assert sum("weighted_all_reduce" in line for line in lines) == 4
    assert "-50 +100 %" in text  # 1,024 and 4,096 beside 2,048
    assert "IndexError" in text and "match ×1" in text and "8,192" in text


def test_no_interval_is_claimed_for_one_round(tmp_path):
    factories.write(tmp_path, factories.ok())
    text = shown(load(tmp_path))
    assert "one round, so there is no interval" in text and "…" not in text
    assert "%" not in shown(load(tmp_path), width=40)


def test_confidence_is_stated_once_it_is_attained(tmp_path):
    factories.write(tmp_path, *(factories.ok(round=i) for i in range(6)))
    assert "median over 6 rounds; interval: at least 95 % confidence" in shown(load(tmp_path))


def test_a_folder_where_all_failed_is_shown(tmp_path):
    factories.write(tmp_path, factories.failed(Status.ENVIRONMENT, reason="[red]no torch"))
    text = shown(load(tmp_path))
    assert "[red]no torch" in text and "environment 1" in text
    assert text.splitlines()[-1] == "1 trial: 1 environment; not ok: 1"


def test_invalid_times_noise_and_skipped_lines_are_marked(tmp_path):
    comm = CommSpec(name="nccl", oversubscribe=True)
    path = factories.write(tmp_path, factories.ok(comm=comm, noisy=["load 3"]))
    path.write_text(path.read_text() + "{")
    text = shown(load(tmp_path))
    assert "2,048!" in text and "!: ranks shared a GPU" in text
    assert "noisy: 1 trial ran while the machine was not quiet" in text
    assert "1 unreadable line skipped" in text
    assert "emulated" not in text


def test_statuses_are_coloured(sweep):
    line = closing_line(sweep)
    assert {(line.plain[s.start : s.end], s.style) for s in line.spans} >= {
        ("18 ok", "green"),
        ("6 error", "red"),
    }


def test_a_sketch_is_no_verdict_and_a_direction_says_what_it_is(tmp_path):
    kept = {"gradient": None, "gradient_mode": "sketch", "sketch": "sketches/a.npz"}
    factories.write(
        tmp_path,
        factories.ok(loss="local", **kept),
        factories.ok(gradient_mode="directional"),
    )
    text = shown(load(tmp_path))
    assert "sketch kept" in text and "spbench compare" in text
    assert "directional: judged by how the loss changes along the gradient" in text


def test_what_clipping_made_of_the_gradients_is_said_where_it_clipped(tmp_path):
    """Two of three were clipped to norm 1; below it, or where nothing is said, there is no line."""
    clipped = [
        Clipping(threshold=1, norm=1.1614, norm_after=1.0, factor=0.861),
        Clipping(threshold=1, norm=2.3223, norm_after=1.0, factor=0.4306),
        Clipping(threshold=1, norm=0.5, norm_after=0.5, factor=1.0),
        Clipping(threshold=0, norm=5.0, norm_after=5.0, factor=1.0),
        None,
    ]
    for index, one in enumerate(clipped):
        factories.write(tmp_path / str(index), factories.ok(clipping=one))
    factories.write(
        tmp_path / "all", *(factories.ok(zero=z, clipping=c) for z, c in enumerate(clipped[:3]))
    )
    text = shown(load(tmp_path / "all"))
    assert (
        "clipping: gradients are compared before it; DeepSpeed clipped 2 of 3 to norm 1, and the "
        "optimizer consumed ×0.431 to ×0.861 of them"
    ) in " ".join(text.split())
    assert "clipped 1 of 1 to norm 1, and the optimizer consumed ×0.861 of them" in " ".join(
        shown(load(tmp_path / "0")).split()
    )
    for silent in ("2", "3", "4"):
        assert "clipping" not in shown(load(tmp_path / silent))
    [row] = load(tmp_path / "1").itertuples()
    assert (row.clip_threshold, row.gradient_norm, row.clip_factor) == (1, 2.3223, 0.4306)


def test_trials_that_imported_what_they_ran_are_marked(tmp_path):
    worker = factories.worker().model_copy(update={"late_imports": ["torch.a", "torch.b"]})
    factories.write(tmp_path, factories.ok(zero=1, worker=worker), factories.ok(zero=2))
    frame = load(tmp_path)
    assert summary(frame).late_imports.tolist() == [2, 0]
    text = shown(frame)
    rows = [line for line in text.splitlines() if " ok 1 " in line]
    assert ["4.00+" in row for row in rows] == [True, False]
    assert "+: in 1 of 2 trials ranks imported modules (up to 2): peak memory counts" in text


def test_nothing_is_marked_where_nothing_was_imported(sweep):
    assert "+" not in shown(sweep)


def test_what_the_set_up_of_the_mesh_came_to_is_named(tmp_path):
    def told(setup):
        return factories.worker().model_copy(update={"mesh_setup": setup})

    older = factories.environment("deepspeed-0.16.9", "2.4.1")
    records = [
        factories.ok(worker=told("parallel_state_sp")),
        factories.ok(sp=1, worker=told("no_mpu")),
        factories.ok(mesh_setup="mesh_param", worker=told("mesh_param")),
    ]
    factories.write(tmp_path / "one", *records)
    lines = shown(load(tmp_path / "one")).splitlines()
    assert "mesh_setup auto: parallel_state_sp" in [line.strip() for line in lines]
    factories.write(
        tmp_path / "two", *records, factories.ok(environment=older, worker=told("megatron"))
    )
    lines = shown(load(tmp_path / "two")).splitlines()
    assert "mesh_setup auto: megatron on deepspeed-0.16.9; parallel_state_sp on torch-2.13" in lines


def test_older_records_say_nothing_of_the_mesh(sweep):
    assert "mesh_setup auto" not in shown(sweep)
    assert set(sweep.mesh_setup) == {"auto"}
