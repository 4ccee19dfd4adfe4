"""Code, versions and machines make results: what is no round of the same result stands apart."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from analysis import figures
from analysis.audit import facets
from analysis.figures.points import looks, points
from analysis.figures.scaling import efficiencies
from analysis.frame import load, rows_with_records, samples
from analysis.headline import headline
from analysis.identities import latest
from analysis.prediction.checks import UNKNOWN
from analysis.prediction.fit import earlier, fit, points_of
from analysis.reading import AnalysisError
from analysis.report import cautions, method
from analysis.table import render, summary
from bench.record import MachineProvenance, Record, Status
from tests.factories import environment, failed, gradient, machine, ok, worker, write

REFERENCE = Path(__file__).resolve().parents[2] / "results" / "reference"
CODE = {"loss": "a" * 16, "model": "b" * 16, "worker": "c" * 16}
EDITED = {**CODE, "loss": "f" * 16}
TWICE = gradient(verdict="scaled", scale=2.0, scale_label="×2")


def on(host: str, **fields: Any) -> MachineProvenance:
    """The machine of the factories under another name, or with another CPU or GPUs."""
    return machine().model_copy(update={"hostname": host, **fields})


def loaded(folder: Path, *records: Record, **options: bool) -> pd.DataFrame:
    write(folder, *records)
    return load(folder, **options)


def shown(frame: pd.DataFrame, width: int = 160) -> str:
    stream = io.StringIO()
    render(frame, Console(file=stream, width=width))
    return stream.getvalue()


def rows(frame: pd.DataFrame) -> list[tuple[str, int, float]]:
    """Variant, rounds and tokens/s of each row of the table."""
    table = summary(frame)
    variants = table.variant if "variant" in table else [""] * len(table)
    return list(zip(variants, table.rounds, table.tokens_per_s, strict=True))


def test_code_that_was_edited_is_a_row_of_its_own(tmp_path: Path) -> None:
    before = [ok(round=r, step_s=1.0, code=CODE) for r in (0, 1)]
    after = [
        ok(round=r, attempt=1, step_s=2.0, code=EDITED, gradient=TWICE, started=f"2025-02-0{1 + r}")
        for r in (0, 1)
    ]
    frame = loaded(tmp_path, *after, *before)
    # dp 2 x 512 tokens in 1 s and in 2 s; the later code last, however the words sort
    assert rows(frame) == [("loss aaaaaa", 2, 1024.0), ("loss ffffff", 2, 512.0)]
    assert summary(frame).gradient.tolist() == ["match ×1", "scaled ×2"]
    assert frame.attrs["superseded"] == 0
    text = shown(frame)
    assert "loss aaaaaa" in text and "the latest last" in text


def test_a_record_without_code_is_never_joined_with_one_that_has_it(tmp_path: Path) -> None:
    old = ok(round=0, code=None)
    frame = loaded(tmp_path, old, ok(round=1, code=CODE), ok(round=2, code=CODE))
    assert sorted(rows(frame)) == [("code known", 2, 2048.0), ("code unknown", 1, 2048.0)]


def test_records_without_code_are_one_result_among_themselves(tmp_path: Path) -> None:
    frame = loaded(tmp_path, *(ok(round=r) for r in range(3)))
    assert rows(frame) == [("", 3, 2048.0)]
    assert "variant" not in summary(frame) and "variant" not in shown(frame)


def test_roles_are_named_where_code_differs_in_more_than_one(tmp_path: Path) -> None:
    other = {**CODE, "loss": "d" * 16, "worker": "e" * 16}
    frame = loaded(tmp_path, ok(code=CODE), ok(code=other, attempt=1))
    assert [row[0] for row in rows(frame)] == [
        "loss aaaaaa, worker cccccc",
        "loss dddddd, worker eeeeee",
    ]


def test_digests_are_as_long_as_it_takes_to_tell_them_apart(tmp_path: Path) -> None:
    near = {**CODE, "loss": "a" * 8 + "b" * 8}
    frame = loaded(tmp_path, ok(code=CODE), ok(code=near, attempt=1))
    assert {row[0] for row in rows(frame)} == {"loss aaaaaaaaa", "loss aaaaaaaab"}


def test_versions_that_were_upgraded_in_place_are_two_rows(tmp_path: Path) -> None:
    spec = environment("current").model_copy(update={"torch": None, "python": "/bin/python"})
    trials = [
        ok(round=r, attempt=a, environment=spec, worker=worker(torch), code=CODE)
        for a, torch in enumerate(("2.4.1", "2.6.0"))
        for r in (0, 1)
    ]
    frame = loaded(tmp_path, *trials)
    assert [row[:2] for row in rows(frame)] == [("torch 2.4.1", 2), ("torch 2.6.0", 2)]


def test_hosts_of_one_class_count_together(tmp_path: Path) -> None:
    trials = [ok(round=r, machine=on(h), step_s=s) for h, s in (("a", 1), ("b", 4)) for r in (0, 1)]
    frame = loaded(tmp_path, *trials)
    assert len(frame) == 4 and frame.attrs["superseded"] == 0
    assert rows(frame) == [("", 4, (1024 + 256) / 2)]  # the median of 1024, 1024, 256, 256


def test_classes_of_machines_are_rows_of_their_own_and_every_row_names_its_own(
    tmp_path: Path,
) -> None:
    fast = {"cpu": "EPYC, 64 threads", "cores": 64}
    frame = loaded(
        tmp_path,
        ok(step_s=1.0, machine=on("a")),
        ok(step_s=0.25, machine=on("b", **fast)),
        ok(step_s=0.5, machine=on("b", **fast), loss="local"),
    )
    table = summary(frame)
    assert table[["loss", "variant", "tokens_per_s"]].to_numpy().tolist() == [
        ["all_gather", "CPU, 2 cores", 1024.0],
        ["all_gather", "EPYC, 64 threads, 64 cores", 4096.0],
        ["local", "EPYC, 64 threads, 64 cores", 2048.0],
    ]


def test_classes_are_joined_on_request_with_a_caution(tmp_path: Path) -> None:
    write(
        tmp_path,
        ok(step_s=1.0, machine=on("a")),
        ok(step_s=0.25, machine=on("b", cpu="EPYC", cores=64)),
    )
    frame = load(tmp_path, across_machines=True)
    assert rows(frame) == [("", 2, (1024 + 4096) / 2)]
    assert "Machines of several classes are put together" in shown(frame)
    assert any("CPU, 2 cores | EPYC, 64 cores" in line for line in cautions(frame))
    assert load(tmp_path).attrs["joined_machines"] == []


def test_what_never_ran_belongs_to_the_only_result_that_ran(tmp_path: Path) -> None:
    broken = failed(Status.ENVIRONMENT, round=1, worker=None, machine=None)
    frame = loaded(tmp_path, ok(code=CODE), broken)
    assert rows(frame) == [("", 1, 2048.0)]
    assert summary(frame).statuses.tolist() == ["ok 1, environment 1"]


def test_what_never_ran_stands_alone_beside_several_results(tmp_path: Path) -> None:
    broken = failed(Status.ENVIRONMENT, round=2, worker=None, machine=None)
    frame = loaded(tmp_path, ok(code=CODE), ok(code=EDITED, round=1), broken)
    assert {row[:2] for row in rows(frame)} == {
        ("loss aaaaaa", 1),
        ("loss ffffff", 1),
        ("nothing ran", 0),
    }


def test_what_never_ran_does_not_count_beside_a_later_attempt(tmp_path: Path) -> None:
    broken = failed(Status.ENVIRONMENT, worker=None, machine=None)
    frame = loaded(
        tmp_path, broken, ok(attempt=1, code=CODE), ok(attempt=2, code=EDITED, step_s=1.0)
    )
    assert len(frame) == 2 and frame.attrs["superseded"] == 1


def test_a_failure_does_not_count_beside_a_later_attempt_on_another_host(tmp_path: Path) -> None:
    frame = loaded(
        tmp_path,
        failed(machine=on("a")),
        ok(attempt=1, machine=on("b")),
        ok(round=1, machine=on("a")),
    )
    assert summary(frame).statuses.tolist() == ["ok 2"]


def test_samples_and_records_belong_to_their_rows(tmp_path: Path) -> None:
    write(tmp_path, ok(step_s=1.0, code=CODE), ok(step_s=2.0, code=EDITED))  # the same trial_id
    frame = load(tmp_path)
    table = samples(tmp_path, frame)
    slowest = table[(table.phase == "step") & ~table.warmup].groupby("variant", observed=True)
    assert slowest.seconds.max().to_dict() == {"loss aaaaaa": 1.0, "loss ffffff": 2.0}
    found = {row["variant"]: record["code"] for row, record in rows_with_records(tmp_path, frame)}
    assert found == {"loss aaaaaa": CODE, "loss ffffff": EDITED}


def test_figures_draw_a_line_for_each_result(tmp_path: Path) -> None:
    frame = loaded(
        tmp_path,
        *(ok(seq_len=n, code=CODE, step_s=1.0) for n in (512, 1024)),
        *(ok(seq_len=n, code=EDITED, attempt=1, step_s=2.0) for n in (512, 1024)),
    )
    table = points(frame)
    assert table.groupby("series").size().to_dict() == {
        "torch-2.13 all_gather [loss aaaaaa]": 2,
        "torch-2.13 all_gather [loss ffffff]": 2,
    }
    drawn = {(look.colour, look.line, look.marker) for look in looks(table).values()}
    assert len(drawn) == 2
    assert "[loss ffffff]" in figures.alt_text(figures.throughput(frame))
    assert "up to 0 %" in figures.alt_text(figures.step_times(frame, samples(tmp_path, frame))) or (
        "One round" in figures.alt_text(figures.step_times(frame, samples(tmp_path, frame)))
    )
    assert len(figures.gradient_table(frame)) == 4


def test_scaling_is_of_one_code(tmp_path: Path) -> None:
    few = ok(world=2, sp=2, code=CODE, step_s=1.0)
    many = {"world": 4, "sp": 2, "step_s": 1.0}
    assert len(efficiencies(loaded(tmp_path / "same", few, ok(code=CODE, **many)), 1)) == 1
    other = {**CODE, "worker": "d" * 16}
    assert efficiencies(loaded(tmp_path / "other", few, ok(code=other, **many)), 1) == []


def test_an_audit_shows_each_result_and_calls_right_what_is_right_in_all(tmp_path: Path) -> None:
    frame = loaded(
        tmp_path,
        ok(loss="local", code=CODE),
        ok(code=CODE),
        ok(code=EDITED, attempt=1, gradient=TWICE),
    )
    [facet] = facets(frame)
    found = {(row.values[0], row.values[-2]): row.cells[0].text for row in facet.rows}
    assert found == {
        ("all_gather", "loss aaaaaa"): "×1",
        ("all_gather", "loss ffffff"): "×2",
        ("local", "none"): "×1",
    } or found == {
        ("all_gather", "loss aaaaaa"): "×1",
        ("all_gather", "loss ffffff"): "×2",
        ("local", ""): "×1",
    }
    assert facet.right == {1: ("local",)}


def test_a_fit_takes_the_latest_code_and_one_machine(tmp_path: Path) -> None:
    lengths = range(512, 4096, 512)
    first = [ok(seq_len=n, step_s=n / 512, code=CODE) for n in lengths]
    later = [
        ok(seq_len=n, step_s=n / 1024, code=EDITED, attempt=1, started="2025-02-01")
        for n in lengths
    ]
    frame = loaded(tmp_path / "code", *first, *later)
    assert [point.step_s for point in points_of(frame)] == [n / 1024 for n in lengths]
    assert earlier(frame) == len(lengths)
    elsewhere = [ok(seq_len=8192, machine=on("b", cores=64))]
    with pytest.raises(AnalysisError, match=r"2 classes \(CPU, 2 cores \| CPU, 64 cores\)"):
        fit(points_of(loaded(tmp_path / "machines", *first, *elsewhere)), UNKNOWN)


def test_the_answer_is_about_what_ran_last(tmp_path: Path) -> None:
    """Once wrong and mended since: the answer is right, and the table has both."""
    frame = loaded(
        tmp_path,
        ok(code=CODE, gradient=TWICE),
        ok(code=EDITED, attempt=1, started="2025-02-01"),
    )
    assert latest(frame).variant.tolist() == ["loss ffffff"]
    assert next(line.kind for line in headline(tmp_path, frame)) == "right"
    assert summary(frame).gradient.tolist() == ["scaled ×2", "match ×1"]
    assert latest(load(REFERENCE)).equals(load(REFERENCE))


def test_the_report_counts_rounds_of_results(tmp_path: Path) -> None:
    frame = loaded(tmp_path, ok(code=CODE), ok(code=EDITED, attempt=1), ok(code=CODE, round=1))
    assert method(frame)[0].startswith("3 trials of 1 configurations (2 results), 1 to 2 rounds")


def test_the_reference_results_are_one_result_a_configuration() -> None:
    frame = load(REFERENCE)
    assert set(frame.variant) == {""} and set(frame.code) == {"unknown"}
    assert len(summary(frame)) == frame.config_hash.nunique()
