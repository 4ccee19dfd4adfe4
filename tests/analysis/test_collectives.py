"""The audit of collectives: merging equal rows without losing any, its terminal, its figures."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from analysis import figures
from analysis.collectives import Row, cases, kind_of, matrix, timings, variants_of
from analysis.figures import alt_text
from analysis.frame import load
from analysis.sections import collectives as section
from bench.console import Console
from bench.record import Record
from bench.trial import CommSpec
from tests.factories import environment, ok, worker, write

OK = [{"ranks": [0, 1, 2, 3], "status": "ok"}]
RAISES = [
    {"ranks": [0, 1], "status": "ok"},
    {"ranks": [2, 3], "status": "error", "type": "IndexError", "phase": "backward"},
]
TWICE = [
    {
        "ranks": [0, 1, 2, 3],
        "status": "wrong gradient",
        "gradient": {"relative_error": 1.0, "scale": 2.0},
    }
]


def case(name: str, outcomes: list[dict[str, Any]]) -> dict[str, Any]:
    collective, variant, group, layout, dtype = name.split("/")
    return {
        "case": name,
        "collective": collective,
        "variant": "" if variant == "-" else variant,
        "group": group,
        "layout": layout,
        "dtype": dtype,
        "outcomes": outcomes,
    }


def record(found: dict[str, Any], comm: str = "gloo", torch: str = "2.13.0", **more: Any) -> Record:
    details = {"cases": [case(*one) for one in found.items()], "listed": [], **more}
    return ok(
        scenario="collectives",
        comm=CommSpec(name=comm),
        environment=environment(f"torch-{torch}", torch),
        worker=worker(torch),
        gradient=None,
        details=details,
    )


OLD = {
    "nn.a/-/world/contiguous/float32": OK,
    "nn.a/-/world/contiguous/bfloat16": OK,
    "nn.a/-/sp/contiguous/float32": RAISES,
    "nn.a/-/sp/contiguous/bfloat16": RAISES,
    "nn.b/root=first/world/contiguous/float32": TWICE,
    "nn.b/root=last/world/contiguous/float32": TWICE,
    "nn.b/-/world/contiguous/float32": TWICE,
    "nn.c/-/world/contiguous/float32": OK,
    "fc.d/-/world/contiguous/float32": OK,
}
LISTED = [{"collective": "fc.e", "status": "unknown signature"}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    emulated = {name: OK for name in OLD if name.startswith("nn.")}
    write(
        tmp_path,
        record(OLD, torch="2.2.2", listed=LISTED),
        record(emulated, comm="nccl_over_gloo"),
    )
    return tmp_path


def test_equal_rows_are_one_and_none_is_lost(folder: Path) -> None:
    found = matrix(folder, load(folder))
    assert found.columns == ["torch-2.2.2 (2.2.2) gloo", "torch-2.13.0 (2.13.0) nccl_over_gloo"]
    assert found.rows == [
        Row(("nn.a",), ("",), ("sp",), ("",), ("IndexError (2,3)", "ok")),
        Row(
            ("nn.b",),
            ("root=first", "root=last", ""),
            ("world",),
            ("",),
            ("gradient ×2", "ok"),
        ),
        Row(("fc.e",), ("",), ("",), ("",), ("unknown signature", "not emulated")),
    ]
    assert found.right == ["nn.c", "fc.d"]
    assert variants_of(found.rows[1]) == "root=first, root=last, defaults"


NONE = [{"ranks": [0, 1, 2, 3], "status": "no gradient"}]
WAYS = ("direct", "wait_tensor", "method")


def awaited(name: str, *outcomes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A case in each of the three ways, with each way's outcomes."""
    return [
        {**case(f"{name}/world/contiguous/float32", found), "awaited": way}
        for way, found in zip(WAYS, outcomes, strict=True)
    ]


def test_how_a_result_is_awaited_is_named_where_it_matters(tmp_path: Path) -> None:
    cases = [
        *awaited("fc.a/-", OK, OK, TWICE),
        *awaited("fc.a/dim=1", NONE, NONE, TWICE),
        *awaited("fc.b/-", RAISES, RAISES, RAISES),
        *awaited("fc.c/-", OK, OK, OK),
    ]
    one = record({}, torch="2.6.0")
    one.details["cases"] = cases
    write(tmp_path, one)
    found = matrix(tmp_path, load(tmp_path))
    assert [(row.collectives, variants_of(row), row.cells) for row in found.rows] == [
        (("fc.a",), "defaults, dim=1; y.wait()", ("gradient ×2",)),
        (("fc.a",), "dim=1; used directly, wait_tensor(y)", ("no gradient",)),
        (("fc.b",), "", ("IndexError (2,3)",)),
    ]
    assert found.right == ["fc.c"]
    assert "y.wait()" in shown(tmp_path)
    assert "fc.a (dim=1; used directly, wait_tensor(y)) on world" in alt_text(
        figures.collectives(tmp_path, load(tmp_path))
    )


def test_what_an_old_record_has_was_awaited_by_wait(tmp_path: Path) -> None:
    new = record({}, torch="2.6.0")
    new.details["cases"] = awaited("fc.a/-", OK, OK, TWICE)
    old = {"fc.a/-/world/contiguous/float32": TWICE, "nn.a/-/world/contiguous/float32": OK}
    write(tmp_path, record(old, torch="2.2.2"), new)
    found = matrix(tmp_path, load(tmp_path))
    rows = {(row.collectives, variants_of(row)): row.cells for row in found.rows}
    assert rows[("fc.a",), "y.wait()"] == ("gradient ×2", "gradient ×2")
    assert rows[("fc.a",), "used directly, wait_tensor(y)"] == ("not run", "ok")
    assert {row.awaited for row in found.rows if row.collectives == ("nn.a",)} == {("",)}


def test_a_case_is_a_row_of_the_frame(folder: Path) -> None:
    table = cases(folder, load(folder))
    assert len(table) == 17
    assert dict(table.kind.value_counts()) == {"ok": 12, "wrong": 3, "error": 2}


@pytest.mark.parametrize(
    ("cell", "kind"),
    [
        ("ok", "ok"),
        ("not run", "ok"),
        ("absent", "ok"),
        ("gradient ×2", "wrong"),
        ("wrong value (0,1)", "wrong"),
        ("no gradient", "no gradient"),
        ("wrong gradient (0); IndexError (2,3)", "error"),
        ("ValueError (2); hang (3)", "hang"),
        ("ok / crash", "crash"),
    ],
)
def test_a_cell_is_as_bad_as_its_worst_part(cell: str, kind: str) -> None:
    assert kind_of(cell) == kind


def shown(folder: Path) -> str:
    text = io.StringIO()
    section.show(folder, load(folder), Console(file=text, width=150))
    return text.getvalue()


def test_the_terminal_names_faults_and_what_is_right(folder: Path) -> None:
    text = shown(folder)
    for part in ("IndexError (2,3)", "gradient ×2", "unknown signature", "path emulated"):
        assert part in text
    assert "ok in every case: nn.c, fc.d" in text


def measured(direction: str, seconds: float) -> dict[str, Any]:
    return {
        "collective": "nn.all_reduce",
        "ranks": 2,
        "seq_len": 512,
        "bytes": 4096,
        "count": 1024,
        "dtype": "float32",
        "direction": direction,
        "seconds": seconds,
        "algorithm_bandwidth": 4096 / seconds,
        "bus_bandwidth": 4096 / seconds,
        "wrong": 0,
    }


def test_bandwidth_is_the_slowest_groups(tmp_path: Path) -> None:
    rows = [measured("forward", 1e-3), measured("forward", 2e-3), measured("backward", 4e-3)]
    write(tmp_path, record(OLD, timing=rows))
    table = timings(tmp_path, load(tmp_path))
    assert list(table.seconds) == [2e-3, 4e-3]
    assert list(table.bus_bandwidth) == [2_048_000.0, 1_024_000.0]
    text = shown(tmp_path)
    assert "2000" in text and "0.002" in text
    narrow = io.StringIO()
    section.show(tmp_path, load(tmp_path), Console(file=narrow, width=60))
    row = next(line for line in narrow.getvalue().splitlines() if "2000" in line)
    assert "4000" in row and "…" not in row  # backward stands beside it, whole
    assert "0.002 GB/s" in alt_text(figures.bandwidth(tmp_path, load(tmp_path)))


def test_the_figure_says_who_is_silently_wrong(folder: Path) -> None:
    text = alt_text(figures.collectives(folder, load(folder)))
    assert text.startswith("Silently wrong somewhere: nn.b. ")
    assert "nn.a on sp" in text and "IndexError (2,3)" in text


def test_without_trials_the_figures_say_so(tmp_path: Path) -> None:
    write(tmp_path, ok())
    frame = load(tmp_path)
    frame = frame[frame.scenario == "collectives"]
    assert alt_text(figures.collectives(tmp_path, frame)).startswith("No collectives")
    assert alt_text(figures.bandwidth(tmp_path, frame)).startswith("No bandwidth")


def test_the_answer_names_who_is_wrong_and_who_is_right(folder: Path) -> None:
    assert section.sentences(folder, load(folder)) == [
        "Silently wrong somewhere: nn.b.",
        "Right in every case: nn.c, fc.d.",
    ]


def test_configurations_that_differ_in_another_key_have_columns_of_their_own(
    tmp_path: Path,
) -> None:
    """Once they shared a column, whose cells said `ok / gradient ×2`."""
    small = record({"nn.a/-/world/contiguous/float32": OK})
    large = record({"nn.a/-/world/contiguous/float32": TWICE})
    eight = large.config.model_copy(update={"world": 8})
    large = large.model_copy(update={"config": eight, "config_hash": eight.hash})
    write(tmp_path, small, large)
    found = matrix(tmp_path, load(tmp_path))
    column = "torch-2.13.0 (2.13.0) gloo"
    assert found.columns == [f"{column} world=4", f"{column} world=8"]
    assert [row.cells for row in found.rows] == [("ok", "gradient ×2")]


def test_code_that_was_edited_has_a_column_of_its_own(tmp_path: Path) -> None:
    before = record({"nn.a/-/world/contiguous/float32": OK})
    after = record({"nn.a/-/world/contiguous/float32": TWICE})
    codes = [{"scenario": digit * 16} for digit in "ab"]
    trials = [
        one.model_copy(update={"code": code})
        for one, code in zip((before, after), codes, strict=True)
    ]
    write(tmp_path, *trials)
    found = matrix(tmp_path, load(tmp_path))
    assert [column.partition("gloo ")[2] for column in found.columns] == [
        "scenario aaaaaa",
        "scenario bbbbbb",
    ]
    assert [row.cells for row in found.rows] == [("ok", "gradient ×2")]
