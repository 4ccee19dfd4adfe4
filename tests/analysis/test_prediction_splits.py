"""Splits, their recommendation, and what fits nowhere."""

from __future__ import annotations

from dataclasses import replace

import pytest

from analysis.prediction.errors import Errors, Range, published_errors
from analysis.prediction.published import predicted_step_s, series
from analysis.prediction.splits import CAPACITY, NothingFits, Setting, predict_splits, recommend
from analysis.reading import AnalysisError
from bench.theory import Cluster, Efficiencies, Link
from bench.trial import ModelSpec

MODEL = ModelSpec(name="m", layers=3, hidden=8, heads=4, kv_heads=2, ffn=16, vocab=10)
CLUSTER = Cluster(
    "c", 8, 1e4, 1e9, 1e7, intra=Link(1e6, 0.0), inter=Link(1e6, 0.0), counts_written_only=True
)
SETTING = Setting(MODEL, CLUSTER, Efficiencies(), gpus=2, seq_len=4, zero=1, dtype="float32")


def test_a_split_by_hand() -> None:
    alone, together = predict_splits(SETTING)
    assert (alone.name, together.name) == ("sp=1 dp=2", "sp=2 dp=1")
    # 2.1696 + 0.144 s compute, 52896 bytes in memory, 576 sent, 11664 of gradients.
    seconds = 2.3136 + 0.0052896 + 0.000576 + 0.011664
    assert together.step.predicted == pytest.approx(seconds)
    assert together.tokens_per_s_per_gpu == pytest.approx(4 / seconds / 2)
    assert together.mfu == pytest.approx(46272 / seconds / 2 / 1e4)
    # The reduction under ZeRO 1: weights, gradients and half of them again, 12 bytes of optimizer.
    assert together.memory_bytes == 4 * 1944 + 4 * (1944 + 972) + 12 * 972
    assert together.fits and together.limit == "compute"


def test_only_splits_that_the_worker_would_run() -> None:
    found = predict_splits(replace(SETTING, gpus=12, seq_len=24))
    assert [split.sp for split in found] == [1, 2, 4]  # 3, 6 and 12 do not divide 4 heads


def test_the_smallest_memory_is_named_where_nothing_fits() -> None:
    tight = replace(SETTING, seq_len=400, cluster=replace(CLUSTER, memory_bytes=20_000))
    splits = predict_splits(tight)
    assert all(split.limit == CAPACITY for split in splits)
    with pytest.raises(NothingFits) as refused:
        recommend(tight, splits)
    text = str(refused.value)
    assert "(sp=2 dp=1)" in text and "--checkpointing, --zero 3, more --gpus" in text


def test_the_fastest_that_fits_is_recommended_and_the_reason_names_what_does_not() -> None:
    splits = predict_splits(SETTING)
    alone, together = splits
    assert alone.tokens_per_s_per_gpu > together.tokens_per_s_per_gpu
    everywhere = recommend(SETTING, splits)
    assert everywhere.split is alone and "more tokens/s/GPU than sp=2 dp=1" in everywhere.reason
    longer = replace(SETTING, seq_len=400)
    alone, together = predict_splits(longer)
    assert alone.memory_bytes > together.memory_bytes > 31104
    room = (alone.memory_bytes + together.memory_bytes) / 2
    tight = replace(longer, cluster=replace(CLUSTER, memory_bytes=room))
    found = recommend(tight, predict_splits(tight))
    assert found.split.name == "sp=2 dp=1"
    assert "sp=1 dp=2 needs" in found.reason and "the only split that fits" in found.reason


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"gpus": 0}, "--gpus 0: must be 1 or more"),
        ({"gpus": -8}, "--gpus -8: must be 1 or more"),
        ({"gpus": 10**12}, "--gpus 1,000,000,000,000: must be at most 1,000,000"),
        ({"seq_len": 0}, "--seq-len 0: must be from 1"),
        ({"micro_batch": 0}, "--micro-batch 0: must be 1 or more"),
    ],
)
def test_impossible_sizes(fields: dict[str, int], said: str) -> None:
    with pytest.raises(AnalysisError, match=said):
        predict_splits(replace(SETTING, **fields))


KNOWN = Errors(
    short=Range(4.0, 16.0, "2 short ones"), long=Range(0.5, 1.5, "2 long ones"), memory_missing=5e8
)
LONG = replace(SETTING, seq_len=40_000, errors=KNOWN)  # 40,000 and 20,000 tokens a GPU


def test_the_interval_covers_the_errors_seen_and_the_physical_bounds() -> None:
    for split in predict_splits(LONG):
        assert split.low_s == pytest.approx(0.5 * split.step.predicted)
        assert split.high_s == pytest.approx(1.5 * split.step.predicted)
        assert split.low_s < split.step.overlapped < split.step.serial < split.high_s
    for split in predict_splits(replace(LONG, seq_len=4)):  # and errors that are all on one side
        assert split.low_s == split.step.overlapped < split.step.predicted
        assert split.high_s == pytest.approx(16 * split.step.predicted)
    for split in predict_splits(replace(LONG, errors=None)):
        assert (split.low_s, split.high_s) == (split.step.overlapped, split.step.serial)


def test_of_splits_as_fast_as_far_as_is_known_the_one_with_more_free_memory() -> None:
    splits = alone, together = predict_splits(LONG)
    assert 1 < alone.tokens_per_s_per_gpu / together.tokens_per_s_per_gpu < 3
    assert alone.memory_bytes > together.memory_bytes + 1e7
    found = recommend(LONG, splits)
    assert found.split is together
    free = (alone.memory_bytes - together.memory_bytes) / 1e9
    assert found.reason.startswith(f"{free:,.1f} GB more free than sp=1 dp=2, whose ")
    assert "within the error of predictions (they err by ×3.00" in found.reason
    sure = replace(KNOWN, long=Range(1.0, 1.0, "perfect"))
    assert recommend(LONG, predict_splits(replace(LONG, errors=sure))).split.name == alone.name


def test_a_short_sequence_a_gpu_is_not_preferred_by_what_is_known_of_long_ones() -> None:
    """Its step may take 16 times what is predicted, that of the other 1.5 times."""
    near = replace(LONG, seq_len=16_000)  # 16,000 and 8,000 tokens a GPU
    alone, together = predict_splits(near)
    assert (alone.errors, together.errors) == (KNOWN.long, KNOWN.short)
    assert recommend(near, [alone, together]).split is alone


def test_what_published_peaks_had_beyond_their_predictions_is_said() -> None:
    gpu = replace(LONG.cluster, counts_written_only=False)
    splits = predict_splits(replace(LONG, cluster=gpu))
    assert all(one.memory_most_bytes == one.memory_bytes + 5e8 for one in splits)
    room = max(one.memory_bytes for one in splits) + 1
    tight = replace(LONG, cluster=replace(gpu, memory_bytes=room))
    found = recommend(tight, predict_splits(tight))
    assert found.reason.endswith("published peaks were up to 0.5 GB above their predictions")


def test_published_results_are_covered_by_their_own_errors() -> None:
    known = published_errors()
    count = 0
    for one in series():
        for seen in one.observations:
            if seen.step_s is None:
                continue
            count += 1
            predicted = predicted_step_s(one, seen)
            found = known.of(seen.tokens_per_step / one.entry["gpus"])
            assert predicted * found.low <= seen.step_s <= predicted * found.high * (1 + 1e-12)
    assert count == 11
    # long: 0.85 to 0.43 of what was published; short: 0.31 to 0.06
    assert known.long.low == 1 and 2 < known.long.high < 3 and known.short.high > 10
    assert 10e9 < known.memory_missing < 13e9


def test_ten_thousand_gpus_take_no_time() -> None:
    found = predict_splits(replace(SETTING, gpus=10_000, seq_len=4096))
    assert [split.sp * split.dp for split in found] == [10_000] * 3


def test_what_is_allocated_counts_on_a_gpu_and_what_is_written_to_on_a_cpu() -> None:
    gpu = replace(SETTING, cluster=replace(CLUSTER, counts_written_only=False))
    bucket = 4 * 500_000_000  # DeepSpeed's default
    assert predict_splits(gpu)[0].memory_bytes == predict_splits(SETTING)[0].memory_bytes + bucket
