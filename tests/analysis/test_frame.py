"""From records to frames: figures, retries, duplicates, damaged files."""

from __future__ import annotations

import json
import math

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.columns import AXES, COLUMNS
from analysis.frame import SAMPLE_COLUMNS, AnalysisError, load, samples
from analysis.reading import Part, Rows, lines_of
from bench.record import RankMemory, RankOutcome, Status
from bench.trial import CommSpec
from tests import factories


def only(frame: pd.DataFrame) -> pd.Series:
    assert len(frame) == 1
    return frame.iloc[0]


def test_columns_are_those_documented_with_their_types(tmp_path):
    factories.write(tmp_path, factories.ok(), factories.failed(round=1))
    frame = load(tmp_path)
    assert list(frame) == list(COLUMNS)
    assert {name: str(frame[name].dtype) for name in frame} == {
        name: column.dtype for name, column in COLUMNS.items()
    }


def test_step_is_the_median_over_steps_of_the_slowest_rank(tmp_path):
    # Slowest per step: 5, 2, 4; each rank's own median is 2 or 1, the mean over ranks less.
    ranks = [factories.samples(0, [1.0, 2.0, 4.0]), factories.samples(1, [5.0, 1.0, 1.0])]
    factories.write(tmp_path, factories.ok(world=2, sp=1, micro_batch=3, steps=3, samples=ranks))
    trial = only(load(tmp_path))
    assert trial.step_s == 4.0
    assert trial.forward_s == pytest.approx(1.6)
    assert trial.aggregate_s == pytest.approx(0.4)
    assert trial.tokens_per_s == 2 * 3 * 512 / 4.0  # dp * micro_batch * seq_len / step
    assert trial.tokens_per_s_per_rank == 384.0
    assert trial.dp == 2


def test_memory_is_of_the_rank_that_needs_most(tmp_path):
    factories.write(tmp_path, factories.ok())
    trial = only(load(tmp_path))
    assert trial.peak_memory_bytes == 4 * 2**20
    assert pd.isna(trial.outside_allocator_bytes)  # no GPU


def test_memory_outside_of_the_allocator_is_of_the_rank_that_needs_most(tmp_path):
    memory = [
        RankMemory(rank=r, peak_bytes=1, baseline_bytes=0, outside_allocator_bytes=(3 - r) * 2**20)
        for r in range(2)
    ]
    factories.write(tmp_path, factories.ok(memory=memory))
    assert only(load(tmp_path)).outside_allocator_bytes == 3 * 2**20


def test_gradient_and_provenance(tmp_path):
    found = factories.gradient(verdict="scaled", scale=2.0, scale_label="×2", loss=5.25)
    factories.write(tmp_path, factories.ok(gradient=found, noisy=["load 3", "steal 20 %"]))
    trial = only(load(tmp_path))
    assert (trial.gradient_verdict, trial.gradient_scale, trial.gradient_scale_label) == (
        "scaled",
        2.0,
        "×2",
    )
    assert (trial.first_loss, trial.reference_loss) == (5.25, 5.5)
    assert trial.noisy == "load 3; steal 20 %"
    assert (trial.torch, trial.deepspeed, trial.hostname) == ("2.13.0", "0.18.2", "bench")
    assert trial.started == pd.Timestamp("2025-01-01", tz="UTC")
    assert trial.emulated


def test_oversubscribed_times_are_kept_and_flagged(tmp_path):
    comm = CommSpec(name="nccl", oversubscribe=True)
    factories.write(tmp_path, factories.ok(comm=comm))
    trial = only(load(tmp_path))
    assert trial.step_s == 0.5 and not trial.timings_valid
    assert trial["comm.oversubscribe"]


def test_a_trial_that_failed_has_no_times(tmp_path):
    partial = [factories.samples(0, [1.0, 1.0]), factories.samples(1, [1.0])]
    factories.write(tmp_path, factories.failed(Status.HANG, samples=partial))
    trial = only(load(tmp_path))
    assert math.isnan(trial.step_s) and math.isnan(trial.tokens_per_s)


def outcome(rank: int, kind: str, phase: str = "backward", **fields: int) -> RankOutcome:
    return RankOutcome(rank=rank, outcome=kind, phase=phase, **fields)


@pytest.mark.parametrize(
    ("record", "failure"),
    [
        pytest.param(factories.failed(), "IndexError in backward, ranks 2,3", id="error"),
        pytest.param(
            factories.failed(
                errors=[
                    factories.error(1, "ValueError", "setup"),
                    factories.error(3),
                    factories.error(2),
                ]
            ),
            "IndexError in backward, ranks 2,3; ValueError in setup, rank 1",
            id="most-frequent-first",
        ),
        pytest.param(
            factories.failed(
                Status.CRASH,
                ranks=[outcome(1, "killed", signal=9), outcome(0, "interrupted", signal=9)],
            ),
            "SIGKILL in backward, rank 1",
            id="killed",
        ),
        pytest.param(
            factories.failed(
                Status.CRASH,
                ranks=[outcome(0, "killed", signal=6), outcome(1, "killed", signal=9)],
                first_ended=1,
            ),
            "SIGKILL in backward, rank 1",
            id="the-first-of-several",
        ),
        pytest.param(
            factories.failed(ranks=[outcome(0, "killed", signal=6)]),
            "IndexError in backward, ranks 2,3",
            id="others-aborted-after-it",
        ),
        pytest.param(
            factories.failed(Status.CRASH, ranks=[outcome(2, "exited", exit_code=3)]),
            "exit code 3 in backward, rank 2",
            id="exited",
        ),
        pytest.param(
            factories.failed(Status.CRASH, ranks=[outcome(2, "killed", signal=40)]),
            "signal 40 in backward, rank 2",
            id="unnamed-signal",
        ),
        pytest.param(
            factories.failed(
                Status.HANG,
                ranks=[outcome(0, "interrupted"), outcome(1, "interrupted", "aggregate")],
            ),
            "hang in backward, rank 0; hang in aggregate, rank 1",
            id="hang",
        ),
        pytest.param(
            factories.failed(Status.UNSUPPORTED, reason="seq_len=5 is odd"),
            "seq_len=5 is odd",
            id="unsupported",
        ),
        pytest.param(factories.failed(Status.OOM, reason=None), "oom", id="no-reason"),
    ],
)
def test_failure_in_a_few_words(tmp_path, record, failure):
    factories.write(tmp_path, record)
    assert only(load(tmp_path)).failure == failure


def test_options_become_columns(tmp_path):
    options = {"zero_optimization": {"reduce_scatter": False, "ignored_parts": [1, 2]}}
    factories.write(tmp_path, factories.ok(), factories.ok(deepspeed=options))
    frame = load(tmp_path)
    assert frame["deepspeed.zero_optimization.reduce_scatter"].tolist() == [None, False]
    assert frame["deepspeed.zero_optimization.ignored_parts"].tolist() == [None, "[1, 2]"]


def test_the_latest_attempt_counts(tmp_path):
    factories.write(
        tmp_path,
        factories.failed(attempt=0),
        factories.ok(attempt=1, step_s=0.25),
        factories.ok(round=1),
    )
    frame = load(tmp_path)
    assert sorted(frame.attempt) == [0, 1]
    assert set(frame.status) == {"ok"}
    assert frame.attrs["superseded"] == 1


def test_of_two_sweeps_the_first_record_counts(tmp_path):
    later = factories.ok(step_s=2.0, started="2025-01-01T00:00:02+00:00")
    first = factories.ok(step_s=1.0, started="2025-01-01T00:00:01.500000+00:00")
    factories.write(tmp_path, later, first)
    frame = load(tmp_path)
    assert only(frame).step_s == 1.0
    assert frame.attrs["superseded"] == 1
    assert samples(tmp_path).seconds.max() == 1.0


def test_damaged_lines_are_named_and_passed_over(tmp_path):
    path = factories.write(tmp_path, factories.ok())
    good = path.read_text()
    foreign = json.dumps({**json.loads(good), "schema_version": 7})
    path.write_text("".join(["\n", good, foreign, "\n", '{"schema_version": 1}\n', good[:-99]]))
    frame = load(tmp_path)
    assert len(frame) == 1
    assert frame.attrs["skipped"] == [
        f"{path.name}, line 1: truncated or not a record",
        f"{path.name}, line 3: schema version 7; this spbench reads 1 to 3",
        f"{path.name}, line 4: not a record: trial_id is missing",
        f"{path.name}, line 5: truncated or not a record",
    ]
    assert samples(tmp_path).attrs["skipped"] == frame.attrs["skipped"]
    assert samples(tmp_path, frame).attrs["skipped"] == frame.attrs["skipped"]


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        pytest.param(lambda p: p / "none", "is not a folder", id="missing"),
        pytest.param(lambda p: p, "holds no records", id="empty"),
    ],
)
def test_a_folder_without_records_is_one_clear_line(tmp_path, prepare, message):
    with pytest.raises(AnalysisError, match=message) as caught:
        load(prepare(tmp_path))
    assert "\n" not in str(caught.value) and "spbench sweep" in str(caught.value)


def test_a_folder_of_damaged_records_says_so(tmp_path):
    (tmp_path / "records-a-1.jsonl").write_text("{\n[]\n")
    with pytest.raises(
        AnalysisError, match="2 lines skipped, the first is records-a-1.jsonl, line 1"
    ):
        load(tmp_path)


def test_samples_hold_every_rank_step_and_phase(tmp_path):
    factories.write(tmp_path, factories.ok(step_s=0.5, steps=3), factories.failed(round=1))
    table = samples(tmp_path)
    assert list(table) == list(SAMPLE_COLUMNS)
    assert len(table) == 4 * (2 + 5 * 3)  # ranks * (warm-up + (whole and 4 phases) * steps)
    assert table[table.warmup].seconds.tolist() == [1.0, 0.5] * 4
    last = table[(table["rank"] == 3) & (table.phase == "forward")]
    assert last.step.tolist() == [2, 3, 4]
    assert last.seconds.tolist() == pytest.approx([0.2] * 3)


def test_several_processes_read_the_same_as_one(tmp_path, monkeypatch):
    records = [factories.ok(round=i, seq_len=512 * (1 + i % 3)) for i in range(40)]
    for index in range(3):
        path = factories.write(tmp_path / str(index), *records[index::3])
        text = path.read_text() + "{broken\n" * (index == 1)
        (tmp_path / f"records-a-{index}.jsonl").write_text(text)
    alone = load(tmp_path)
    monkeypatch.setattr("analysis.reading.SHARE_BYTES", 4096)
    monkeypatch.setattr("analysis.reading.os.cpu_count", lambda: 3)
    monkeypatch.setattr("analysis.reading._read_part", None)  # only the processes may read
    together = load(tmp_path)
    pd.testing.assert_frame_equal(alone, together)
    assert together.attrs == alone.attrs
    assert alone.attrs["skipped"] == ["records-a-1.jsonl, line 14: truncated or not a record"]


@given(st.lists(st.binary(), max_size=4))
def test_arbitrary_bytes_never_raise_anything_else(tmp_path_factory, lines):
    folder = tmp_path_factory.mktemp("records")
    (folder / "records-a-1.jsonl").write_bytes(b"\n".join(lines))
    with pytest.raises(AnalysisError):
        load(folder)


CONTENT = json.loads(factories.ok().model_dump_json())
VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.text(max_size=3)
    | st.just([1])
    | st.just({"a": 1})
)


@given(st.sampled_from(sorted(CONTENT)), VALUES)
def test_records_with_a_field_of_another_type_are_read_or_skipped(tmp_path_factory, name, value):
    folder = tmp_path_factory.mktemp("records")
    lines = [json.dumps({**CONTENT, name: value, "round": 1}), json.dumps(CONTENT)]
    (folder / "records-a-1.jsonl").write_text("\n".join(lines) + "\n")
    frame = load(folder)
    assert len(frame) + len(frame.attrs["skipped"]) + frame.attrs["superseded"] == 2


def test_axes_cover_the_configuration():
    """A field added to Configuration must become an axis, or be named here with the reason."""
    config = factories.configuration().model_dump()
    elsewhere = {"deepspeed", "options", "limits"}  # columns of their own, or no identity
    assert set(config) - elsewhere <= set(AXES)
    numerics = {"name", "rope_theta", "norm_eps"}
    assert {f"model.{name}" for name in set(config["model"]) - numerics} <= set(AXES)


def test_a_record_that_is_there_twice_has_its_samples_once(tmp_path):
    factories.write(tmp_path, factories.ok(), factories.ok())
    assert len(samples(tmp_path)) == 4 * (2 + 5 * 5)


def test_a_line_belongs_to_one_part_wherever_the_file_is_cut(tmp_path):
    path = tmp_path / "records-a-1.jsonl"
    path.write_bytes(b"{}\n\n[1, 2]\n{")  # four lines, none of them a record
    size = path.stat().st_size
    for cut in range(1, size):
        found = []
        for part in (Part(str(path), 0, cut), Part(str(path), cut, size)):
            rows = Rows()
            assert list(lines_of(part, rows)) == []
            found.append(rows.lines)
        begun = path.read_bytes()[: cut - 1].count(b"\n") + 1
        assert found == [begun, 4 - begun], cut
