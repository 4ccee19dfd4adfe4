"""Which recipe follows from which matrix, by hand."""

from __future__ import annotations

from fractions import Fraction

import pytest

from bench.controller.doctor import losses
from bench.controller.doctor_recipe import (
    FOLDER,
    PREFERENCE,
    REFERENCE_WORDS,
    TOKEN_MEAN,
    Candidate,
    Cell,
    candidates,
    ratio,
    source,
)
from bench.record import Status
from tests.factories import error, failed, gradient, ok, other

RIGHT = {"verdict": "match", "scale": 1.0, "label": "×1"}


def cell(loss: str, zero: int = 0, **fields: object) -> Cell:
    return Cell(loss, zero, Status.OK, **{**RIGHT, **fields})


def scaled(loss: str, scale: float, zero: int = 0) -> Cell:
    return cell(loss, zero, verdict="scaled", scale=scale, label=f"×{scale:g}")


def raised(loss: str, zero: int = 0) -> Cell:
    return Cell(loss, zero, Status.ERROR, error="IndexError", reason="IndexError in backward")


def chosen(*cells: Cell, zero: int = 0) -> list[tuple[str, Fraction]]:
    return [(one.loss, one.factor) for one in candidates(cells, zero)]


def test_what_is_right_comes_before_what_is_scaled() -> None:
    found = chosen(scaled("weighted_all_reduce", 0.5), cell("all_gather"))
    assert found == [("all_gather", Fraction(1)), ("weighted_all_reduce", Fraction(2))]


def test_among_right_ones_the_mean_comes_before_the_share() -> None:
    found = chosen(cell("local"), cell("all_gather"), cell("weighted_all_reduce"))
    assert [loss for loss, _ in found] == ["weighted_all_reduce", "all_gather", "local"]


def test_the_factor_is_the_inverse_of_the_scale() -> None:
    assert chosen(scaled("all_gather", 2.0)) == [("all_gather", Fraction(1, 2))]
    assert chosen(scaled("all_gather", 0.25)) == [("all_gather", Fraction(4))]


def test_the_token_mean_has_the_factors_of_those_with_their_own_share() -> None:
    cells = [scaled("all_gather", 2.0), cell("weighted_all_reduce"), scaled("local", 0.5)]
    found = candidates(cells, 0, "token_mean")
    assert found == [Candidate(TOKEN_MEAN, Fraction(1)), Candidate(TOKEN_MEAN, Fraction(2))]
    assert candidates([cell("all_gather")], 0, "token_mean") == []


def test_judged_by_the_token_mean_a_cell_still_says_what_it_is_beside_the_replica_mean() -> None:
    known = other(reference="replica_mean", verdict="scaled", scale=0.5, scale_label="×1/2")
    record = ok(gradient=gradient(verdict="wrong", other=known), reference="token_mean")
    found = Cell.of("local", 0, record)
    assert (found.reference, found.text) == ("token_mean", "wrong")
    assert found.by("token_mean") is found
    assert found.by("replica_mean").text == "×1/2"
    assert candidates([found], 0) == [Candidate("local", Fraction(2))]


def test_what_is_wrong_or_raises_or_is_no_mean_is_never_chosen() -> None:
    found = chosen(
        cell("all_gather", verdict="wrong", scale=0.9),
        cell("local", verdict="none", scale=0.0),
        raised("weighted_all_reduce"),
        cell("local_mean"),
    )
    assert found == []


def test_a_trial_that_failed_later_is_not_right() -> None:
    assert not Cell("local", 0, Status.CRASH, **RIGHT).right


def test_stages_do_not_mix() -> None:
    cells = [cell("all_gather", zero=3), scaled("all_gather", 2.0, zero=0)]
    assert chosen(*cells, zero=3) == [("all_gather", Fraction(1))]
    assert chosen(*cells, zero=0) == [("all_gather", Fraction(1, 2))]
    assert chosen(*cells, zero=1) == []


@pytest.mark.parametrize(
    ("scale", "near"),
    [
        (2.0000001, Fraction(2)),
        (0.49999, Fraction(1, 2)),
        (1 / 3, Fraction(1, 3)),
        (1.5, Fraction(3, 2)),
        (0.6371, Fraction("0.6371")),
        (1.01, Fraction("1.01")),
    ],
)
def test_ratio(scale: float, near: Fraction) -> None:
    assert ratio(scale) == near


def test_every_preferred_aggregation_is_known_and_has_a_text() -> None:
    assert {*PREFERENCE, "local_mean"} == set(losses())
    assert TOKEN_MEAN not in losses()
    for loss in (*PREFERENCE, TOKEN_MEAN):
        assert (FOLDER / f"{loss}.py").exists()


@pytest.mark.parametrize("loss", [*PREFERENCE, TOKEN_MEAN])
@pytest.mark.parametrize("factor", [Fraction(1), Fraction(1, 2), Fraction(4), Fraction(3, 2)])
def test_the_text_is_python_that_needs_nothing_but_torch(loss: str, factor: Fraction) -> None:
    text = source(Candidate(loss, factor), [0, 1], "torch 9")
    compile(text, loss, "exec")
    head = " ".join(line.removeprefix("# ") for line in text.splitlines() if line[0:1] == "#")
    words = REFERENCE_WORDS["token_mean" if loss == TOKEN_MEAN else "replica_mean"]
    assert head == f"Gives the gradient of the {words}, with ZeRO 0, 1 on torch 9."
    assert "masked_fill(tokens == 0, 0.0)" in text
    imports = [line for line in text.splitlines() if line.startswith(("import", "from"))]
    assert imports and all(line.startswith("import torch") for line in imports)
    assert text.count("def aggregate(") == 1
    assert all(len(line) <= 100 for line in text.splitlines())


@pytest.mark.parametrize(
    ("factor", "text"),
    [(Fraction(1, 2), "(1 / 2)"), (Fraction(4), "(4)"), (Fraction(3, 2), "(1.5)")],
)
def test_the_factor_is_in_the_text(factor: Fraction, text: str) -> None:
    assert f"value * {text}" in source(Candidate("local", factor), [0], "torch 9")


def test_cells_of_records() -> None:
    right = Cell.of("local", 1, ok())
    assert (right.right, right.text) == (True, "right")
    twice = gradient(verdict="scaled", scale=2.0, scale_label="×2")
    found = Cell.of("local", 1, ok(gradient=twice))
    assert (found.right, found.text, found.scale) == (False, "×2", 2.0)
    assert Cell.of("local", 1, ok(gradient=gradient(verdict="wrong"))).text == "wrong"
    assert Cell.of("local", 1, ok(gradient=None)).text == "not compared"
    lacking = Cell.of("local", 1, ok(gradient=None, gradient_reason="not compared: too large"))
    assert (lacking.text, lacking.reason) == ("not compared", "not compared: too large")
    assert Cell.of("local", 1, failed()).text == "IndexError"
    assert Cell.of("local", 1, failed(Status.HANG)).text == "hang"


def test_the_most_common_exception_speaks() -> None:
    kinds = ["builtins.IndexError", "builtins.AssertionError", "builtins.AssertionError"]
    record = failed(errors=[error(rank, kind) for rank, kind in enumerate(kinds)])
    assert Cell.of("local", 1, record).error == "AssertionError"
