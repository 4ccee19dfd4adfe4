"""The audit matrix: what a cell says, and that putting cells together loses none."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from analysis.audit import Cell, Facet, cases, facets, is_audit, named, sentences
from analysis.frame import load
from bench.record import GradientError, Record, Status
from tests.factories import environment, error, failed, gradient, ok, write

OLD = environment("torch-2.2", "2.2.2")
MASKS = ("none", "prompt", "ragged", "empty_shard")


def scaled(label: str, scale: float) -> GradientError:
    return gradient(verdict="scaled", scale_label=label, scale=scale)


TWICE, HALF = scaled("×2", 2.0), scaled("×1/2", 0.5)
WRONG = gradient(verdict="wrong", scale_label="×0.3", scale=0.3)


def loaded(folder: Path, *records: Record) -> Any:
    write(folder, *records)
    return load(folder)


def only(folder: Path, *records: Record) -> Cell:
    """The one cell of the matrix of `records`."""
    [facet] = facets(loaded(folder, *records))
    [row] = facet.rows
    [cell] = row.cells
    return cell


def texts(facet: Facet) -> dict[tuple[str, ...], tuple[str, ...]]:
    return {row.values: tuple(cell.text for cell in row.cells) for row in facet.rows}


@pytest.mark.parametrize(
    ("record", "cell"),
    [
        (ok(), ("match", "×1", "")),
        (ok(gradient=TWICE), ("scaled", "×2", "")),
        (ok(gradient=HALF), ("scaled", "×½", "")),
        (ok(gradient=scaled("×0.75", 0.75)), ("scaled", "×0.75", "")),
        (ok(gradient=WRONG), ("wrong", "wrong", "")),
        (ok(gradient=gradient(verdict="none", scale=0.0)), ("none", "none", "")),
        (ok(gradient=None), ("unknown", "not compared", "")),
        (
            ok(gradient=None, gradient_mode="off", gradient_reason="not compared: 3 h; so"),
            ("unknown", "not compared", "3 h; so"),
        ),
        (ok(gradient_mode="exact"), ("match", "×1", "")),
        (ok(gradient_mode="proxy"), ("match", "×1 (2-layer proxy)", "")),
        (ok(gradient=TWICE, gradient_mode="directional"), ("scaled", "×2 (directional)", "")),
        (failed(), ("failed", "IndexError", "IndexError in backward, ranks 2,3")),
        (
            failed(errors=[error(1, "builtins.ValueError"), error(2), error(0), error(3)]),
            (
                "failed",
                "IndexError, ValueError",
                "IndexError in backward, ranks 0,2,3; ValueError in backward, rank 1",
            ),
        ),
        (failed(errors=[]), ("failed", "error", "the trial ended as error")),
        (failed(Status.HANG), ("failed", "hang", "the trial ended as hang")),
        (failed(Status.UNSUPPORTED), ("failed", "unsupported", "the trial ended as unsupported")),
        (ok(gradient=gradient(ranks_agree=False)), ("mixed", "×1, ranks differ", "")),
    ],
    ids=lambda value: value[1] if isinstance(value, tuple) else "",
)
def test_a_cell_names_what_came_out(record: Record, cell: tuple[str, ...], tmp_path: Path) -> None:
    assert only(tmp_path, record) == cell


def test_a_nan_is_wrong_and_no_quarrel_between_ranks(tmp_path: Path) -> None:
    nan = gradient(verdict="wrong", scale=None, scale_label="?", ranks_agree=False)
    assert only(tmp_path, ok(gradient=nan)) == ("wrong", "wrong", "")


def test_rounds_that_disagree_are_counted(tmp_path: Path) -> None:
    cell = only(tmp_path, ok(), ok(round=1, gradient=TWICE), failed(round=2), ok(round=3))
    assert cell.kind == "mixed"
    assert cell.text == "×1 2/4, ×2 1/4, IndexError 1/4"
    assert cell.detail == "IndexError in backward, ranks 2,3"


def test_rounds_that_agree_are_one_cell(tmp_path: Path) -> None:
    frame = loaded(tmp_path, ok(gradient=TWICE), ok(round=1, gradient=TWICE))
    assert cases(frame)[["text", "trials"]].to_numpy().tolist() == [["×2", 2]]


def product(**fields: Any) -> list[Record]:
    """`weighted_all_reduce` right but at ZeRO 3, `local_mean` right without a mask alone."""
    records = []
    for zero, mask in itertools.product(range(4), MASKS):
        point = {"zero": zero, "mask": mask, **fields}
        right = gradient() if zero < 3 else HALF
        records.append(ok(loss="weighted_all_reduce", gradient=right, **point))
        records.append(
            ok(loss="local_mean", gradient=gradient() if mask == "none" else WRONG, **point)
        )
    return records


def test_rows_and_stages_that_look_alike_are_put_together(tmp_path: Path) -> None:
    [facet] = facets(loaded(tmp_path, *product()))
    assert facet.axes == ("loss", "split", "mask")
    assert facet.stages == ((0, 1, 2), (3,))
    assert texts(facet) == {
        ("local_mean", "sp=2 dp=2", "none"): ("×1", "×1"),
        ("local_mean", "sp=2 dp=2", "prompt, ragged, empty_shard"): ("wrong", "wrong"),
        ("weighted_all_reduce", "sp=2 dp=2", "all 4"): ("×1", "×½"),
    }
    assert named(facet) == ["all 4 of mask: none, prompt, ragged, empty_shard"]


def test_all_is_of_those_that_were_swept(tmp_path: Path) -> None:
    [facet] = facets(loaded(tmp_path, ok(mask="prompt"), ok(mask="none")))
    assert [row.values[-1] for row in facet.rows] == ["all 2"]
    assert named(facet) == ["all 2 of mask: none, prompt"]
    assert named(facets(loaded(tmp_path / "one", ok(mask="prompt")))[0]) == []


def test_environments_that_look_alike_are_one_facet(tmp_path: Path) -> None:
    other = environment("torch-latest", "2.15.0")
    frame = loaded(
        tmp_path,
        *product(),
        *product(environment=other),
        *(failed(environment=OLD, loss="local", zero=zero) for zero in (0, 1)),
    )
    assert [facet.environments for facet in facets(frame)] == [
        ("torch-2.2",),
        ("torch-2.13", "torch-latest"),
    ]
    first = facets(frame)[0]
    assert first.versions == ("torch 2.13.0, DeepSpeed 0.18.2",)  # as the worker saw it
    assert texts(first) == {
        ("local", "sp=2 dp=2", "ragged"): ("IndexError", "not run"),
    }
    assert first.stages == ((0, 1), (2, 3))


def test_one_other_cell_keeps_environments_apart(tmp_path: Path) -> None:
    other = environment("torch-latest", "2.15.0")
    records = product(environment=other)
    frame = loaded(
        tmp_path, *product(), *records[:-1], records[-1].model_copy(update={"gradient": TWICE})
    )
    assert len(facets(frame)) == 2


def test_every_case_is_in_exactly_one_row(tmp_path: Path) -> None:
    verdicts = itertools.cycle([gradient(), TWICE, gradient(), WRONG, HALF])
    records = [
        ok(loss=loss, sp=sp, mask=mask, seq_len=seq_len, gradient=next(verdicts))
        for loss in ("local", "all_gather")
        for sp in (2, 4)
        for mask in MASKS
        for seq_len in (512, 1024)
    ]
    frame = loaded(tmp_path, *records)
    table = cases(frame)
    [facet] = facets(frame)
    found = []
    everything = {name: tuple(table[name].unique()) for name in facet.axes}
    for row in facet.rows:
        values = [
            everything[name] if value.startswith("all ") else value.split(", ")
            for name, value in zip(facet.axes, row.values, strict=True)
        ]
        found += [(*case, row.cells[0].text) for case in itertools.product(*values)]
    assert len(found) == len(records)
    assert set(found) == set(table[[*facet.axes, "text"]].itertuples(index=False, name=None))


def test_deepspeed_options_are_one_axis_and_the_defaults_come_first(tmp_path: Path) -> None:
    frame = loaded(
        tmp_path,
        ok(gradient=TWICE),
        ok(deepspeed={"zero_optimization": {"reduce_scatter": False}}),
        ok(deepspeed={"gradient_clipping": 1.0}, gradient=WRONG),
    )
    [facet] = facets(frame)
    assert facet.axes == ("loss", "split", "DeepSpeed options", "mask")
    assert [(row.values[2], row.cells[0].text) for row in facet.rows] == [
        ("defaults", "×2"),
        ("gradient_clipping=1", "wrong"),
        ("reduce_scatter=false", "×1"),
    ]


def test_the_sentence_names_what_is_right_in_every_case(tmp_path: Path) -> None:
    frame = loaded(tmp_path, *product(), ok(loss="local", zero=0))
    # local matches in the one case that was run, which is not every case
    assert sentences(frame) == [
        "torch-2.13, right in every case at ZeRO 0, 1, 2: weighted_all_reduce; "
        "at ZeRO 3: no aggregation."
    ]


def test_an_audit_has_single_steps_and_compares_them(tmp_path: Path) -> None:
    assert is_audit(loaded(tmp_path / "audit", ok(steps=1), ok(steps=1, sp=4)))
    assert not is_audit(loaded(tmp_path / "timed", ok(steps=1), ok()))
    assert not is_audit(loaded(tmp_path / "unchecked", ok(steps=1, gradient_check="off")))


@pytest.mark.parametrize(
    ("modes", "sentence"),
    [
        (["exact"], "torch-2.13, right in every case at ZeRO 1: local."),
        (["directional"], "torch-2.13, right in every case (directional) at ZeRO 1: local."),
        (
            ["exact", "proxy"],
            "torch-2.13, right in every case (some by 2-layer proxy) at ZeRO 1: local.",
        ),
    ],
)
def test_sentences_say_what_gradients_were_judged_by(
    tmp_path: Path, modes: list[str], sentence: str
) -> None:
    records = [
        ok(loss="local", gradient_mode=mode, seq_len=64 << i) for i, mode in enumerate(modes)
    ]
    assert sentences(loaded(tmp_path, *records)) == [sentence]


def test_a_folder_without_verdicts_is_not_one_where_nothing_is_right(tmp_path: Path) -> None:
    kept = ok(gradient=None, gradient_mode="sketch", sketch="sketches/a.npz")
    assert sentences(loaded(tmp_path, kept)) == ["torch-2.13: no gradient was compared."]
