"""Figures of predictions say what they show, and say so where there is nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from analysis import figures
from analysis.figures.crossover import counted_bytes
from analysis.figures.splits import same_tokens
from analysis.frame import load, records
from analysis.prediction.splits import predict_splits
from bench.record import CollectiveCount
from tests.analysis.test_prediction_fit import CLUSTER, made
from tests.analysis.test_prediction_splits import MODEL, SETTING
from tests.factories import TINY, ok, write


def recorded(folder: Path) -> pd.DataFrame:
    """Trials whose times are those of test_prediction_fit's truth."""
    write(
        folder,
        *(
            ok(
                step_s=one.step_s,
                model=one.model,
                sp=one.sp,
                zero=one.zero,
                seq_len=one.seq_len,
            )
            for one in made()
        ),
    )
    return load(folder)


def test_times_of_the_model_are_fitted_and_predicted(tmp_path: Path) -> None:
    """Almost: a machine that nobody measured has no latency."""
    frame = recorded(tmp_path)
    assert "explain 24 configurations to 0.2 % (median)" in figures.alt_text(figures.fitted(frame))
    text = figures.alt_text(figures.held_out(frame))
    assert "predicted to 0 % or better" in text


def test_too_little_is_said_to_be(tmp_path: Path) -> None:
    write(tmp_path, ok())
    frame = load(tmp_path)
    assert "too few to fit" in figures.alt_text(figures.fitted(frame))
    assert "Nothing is predicted" in figures.alt_text(figures.held_out(frame))
    assert "Splits are not compared" in figures.alt_text(figures.splits(frame))


def test_splits_with_equal_steps_are_compared(tmp_path: Path) -> None:
    equal = {"seq_len": 1024, "model": TINY}
    write(
        tmp_path,
        ok(sp=1, micro_batch=1, step_s=0.5, **equal),
        ok(sp=4, micro_batch=4, step_s=0.25, **equal),
        ok(sp=2, micro_batch=1, step_s=0.1, **equal),  # half of the tokens
    )
    frame = load(tmp_path)
    table = same_tokens(frame)
    assert table.split.tolist() == ["sp=1 dp=4", "sp=4 dp=1"]
    assert table.gpu_s_per_token.tolist() == pytest.approx([4 * 0.5 / 4096, 4 * 0.25 / 4096])
    text = figures.alt_text(figures.splits(frame))
    assert "sp=4 dp=1 is the fastest split, 2.00 times as fast as sp=1 dp=4" in text


def test_counted_bytes_leave_out_what_stays(tmp_path: Path) -> None:
    counts = [
        CollectiveCount(rank=rank, phase=phase, collective=name, calls=1, bytes=size)
        for rank in (0, 1)
        for phase, name, size in (
            ("forward", "all_to_all_single", 600),
            ("backward", "all_to_all_single", 400),
            ("backward", "all_reduce", 5000),
        )
    ]
    write(tmp_path, ok(collectives=counts), ok(sp=1, seq_len=64, collectives=counts))
    frame = load(tmp_path)
    # Half of 1000 bytes stays at sp=2; the model has 2 layers.
    assert [counted_bytes(one) for one in records(tmp_path, frame)] == [250.0, None]


def test_the_crossover_tells_whether_counts_agree(tmp_path: Path) -> None:
    # d=16, 512 tokens over 2 ranks, fp32: 4*256*16*6 a layer and pass sent, twice that handed in.
    sent = 4 * 256 * 16 * 6 // 1
    exact = CollectiveCount(
        rank=0, phase="forward", collective="all_to_all_single", calls=16, bytes=2 * 4 * sent
    )
    for size, said in ((exact.bytes, "1 of 1 counts"), (exact.bytes + 8, "0 of 1 counts")):
        folder = tmp_path / said[0]
        write(folder, ok(collectives=[exact.model_copy(update={"bytes": size})]))
        figure = figures.crossover(records(folder, load(folder)), TINY, CLUSTER, 1024)
        assert said in figures.alt_text(figure)


def test_no_counts_no_crossover(tmp_path: Path) -> None:
    write(tmp_path, ok(sp=1))
    figure = figures.crossover(records(tmp_path, load(tmp_path)), TINY, CLUSTER)
    assert "not compared with ring attention" in figures.alt_text(figure)


def test_predicted_splits_name_the_fastest(tmp_path: Path) -> None:
    text = figures.alt_text(figures.predicted_splits(SETTING, predict_splits(SETTING)))
    assert text.startswith("sp=1 dp=2 is predicted to be fastest") and "limited by compute" in text
    tight = replace(SETTING, cluster=replace(SETTING.cluster, memory_bytes=1))
    text = figures.alt_text(figures.predicted_splits(tight, predict_splits(tight)))
    assert text.startswith(f"{MODEL.name} fits on no split")
