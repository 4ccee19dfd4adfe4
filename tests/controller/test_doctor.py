"""The audit's course and its answer; launching is faked, so that every matrix can be had."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench.controller import doctor_collectives
from bench.controller.doctor import Audit, Question, audit, comm, losses, model
from bench.controller.doctor_collectives import Line, Survey, lines
from bench.controller.doctor_report import answer, as_json, mutants_answer, show
from bench.controller.messages import ConfigurationError
from bench.controller.self_test import Mutant, mutations, self_test
from bench.record import Record, Status
from bench.trial import CommSpec, Trial
from tests.factories import STARTED, error, gradient, worker

EMULATED = CommSpec(name="nccl_over_gloo")
Scale = Callable[[Trial], float]


def question(**fields: Any) -> Question:
    values = {"python": Path("/somewhere/python"), "world": 4, "sp": 2, "comm": EMULATED}
    return Question(**{**values, "collectives": False, **fields})


def judged(trial: Trial, scale: float) -> Record:
    """A gradient of this scale; 0 stands for an exception."""
    if not scale:
        fields: dict[str, Any] = {"reason": "IndexError in backward", "errors": [error(2)]}
        return Record.of(trial, Status.ERROR, STARTED, 1.0, **fields)
    verdict = "match" if scale == 1 else "scaled"
    found = gradient(verdict=verdict, scale=scale, scale_label=f"×{scale:g}")
    return Record.of(trial, Status.OK, STARTED, 1.0, gradient=found, worker=worker())


def usual(trial: Trial) -> float:
    """ZeRO 0 to 2: autograd over ranks gives twice; ZeRO 3: the others half. Recipes are right."""
    c = trial.configuration
    if c.scenario == "recipe":
        return 1.0
    over_ranks = c.loss not in ("local", "weighted_all_reduce")
    return (2.0 if over_ranks else 1.0) / (2.0 if c.zero == 3 else 1.0)


def found(scale: Scale = usual, **fields: Any) -> Audit:
    return audit(question(**fields), lambda trial: judged(trial, scale(trial)), lambda text: None)


def test_the_usual_stack_has_two_recipes() -> None:
    made = found()
    assert len(made.cells) == 4 * 6
    recipes = [(one.candidate.loss, one.right_at) for one in made.recipes]
    assert recipes == [("weighted_all_reduce", [0, 1, 2]), ("functional_all_reduce", [3])]
    assert made.right
    assert answer(made) == "A proven recipe exists for ZeRO 0, 1, 2 and 3."
    assert "torch 2.13.0, DeepSpeed 0.18.2 (sp=2, dp=2, nccl_over_gloo)" in made.recipes[0].source


def test_what_is_proven_is_what_is_printed() -> None:
    launched: list[Trial] = []

    def launch(trial: Trial) -> Record:
        launched.append(trial)
        return judged(trial, usual(trial))

    made = audit(question(zero=1), launch, lambda text: None)
    assert [one.configuration.scenario for one in launched] == ["train"] * 6 + ["recipe"]
    assert launched[-1].configuration.options == {"source": made.recipes[0].source}
    assert {one.configuration.zero for one in launched} == {1}


def test_a_recipe_that_fails_as_printed_gives_way_and_is_told() -> None:
    def first_text_fails(trial: Trial) -> float:
        source = str(trial.configuration.options.get("source", ""))
        return 2.0 if "autograd sees this rank's own share" in source else usual(trial)

    made = found(first_text_fails, zero=1)
    tried = [(one.candidate.loss, one.right_at) for one in made.recipes]
    assert tried == [("weighted_all_reduce", []), ("local", [1])]
    assert made.right


def test_scaled_everywhere_is_mended_by_the_factor() -> None:
    def twice(trial: Trial) -> float:
        return 1.0 if "value * (1 / 2)" in str(trial.configuration.options) else 2.0

    made = found(twice, zero=0)
    assert made.recipes[0].candidate.factor * 2 == 1
    assert made.right


@pytest.mark.parametrize(
    ("loss", "zero", "right"),
    [
        ("all_gather", 1, False),
        ("all_gather", 3, True),
        ("all_gather", None, False),
        ("weighted_all_reduce", 1, True),
        ("weighted_all_reduce", None, False),
        (None, 2, True),
    ],
)
def test_the_users_own_pair(loss: str | None, zero: int | None, right: bool) -> None:
    assert found(loss=loss, zero=zero).right is right


def test_nothing_is_right_where_everything_raises() -> None:
    made = found(lambda trial: 0.0)
    assert not made.right
    assert made.recipes == []
    assert answer(made).startswith("No aggregation gives the reference gradient at ZeRO 0, 1, 2")


def test_the_answer_names_the_fault_and_the_remedy() -> None:
    said = answer(found(loss="all_gather", zero=1))
    assert said == (
        "all_gather does not give the reference gradient (ZeRO 1: gradient ×2). "
        "The recipe is right at ZeRO 1."
    )


def test_an_interpreter_that_cannot_import_is_a_finding() -> None:
    launched: list[Trial] = []

    def broken(trial: Trial) -> Record:
        launched.append(trial)
        return Record.of(trial, Status.ENVIRONMENT, STARTED, 0.0, reason="no libcudart")

    made = audit(question(), broken, lambda text: None)
    assert len(launched) == 1
    assert not made.right
    assert answer(made) == "This interpreter cannot run any trial: no libcudart"
    assert "no libcudart" in shown(made)


def shown(made: Audit) -> str:
    text = io.StringIO()
    show(made, Console(file=text, width=120))
    return text.getvalue()


def test_people_see_the_matrix_and_the_text() -> None:
    rows = shown(found()).splitlines()
    assert next(r for r in rows if r.startswith("all_gather")).split()[1:] == ["×2"] * 3 + ["right"]
    assert "Recipe for ZeRO 0, 1 and 2 (run as printed: right)" in rows
    assert any("emulated on gloo" in row for row in rows)


def test_json_holds_the_same() -> None:
    content = json.loads(json.dumps(as_json(found(loss="all_gather", zero=1))))
    assert content["right"] is False
    assert content["emulated"] is True
    assert content["versions"]["torch"] == "2.13.0"
    row = next(one for one in content["matrix"] if one["loss"] == "all_gather")
    assert (row["zero"], row["verdict"], row["scale"]) == (1, "scaled", 2.0)
    assert content["recipes"][0]["right_at_zero"] == [1]
    assert "def aggregate(" in content["recipes"][0]["source"]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"sp": 3}, "--sp 3: must divide --world 4; allowed: 1, 2, 4"),
        ({"sp": 0}, "--sp 0: must be at least 1"),
        ({"world": 0}, "--world 0: must be at least 1"),
        ({"loss": "all_gahter"}, "did you mean 'all_gather'?"),
        ({"zero": 4}, "--zero 4: unknown ZeRO stage; allowed: 0, 1, 2, 3"),
    ],
    ids=str,
)
def test_impossible_questions(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        question(**fields)
    assert text in str(raised.value)


def test_communication_follows_the_gpus() -> None:
    assert comm("auto", world=4, gpus=4).name == "nccl"
    assert comm("auto", world=4, gpus=1).name == "nccl_over_gloo"
    assert comm("gloo", world=4, gpus=8).name == "gloo"
    with pytest.raises(ConfigurationError, match="needs as many GPUs, but 1 are visible"):
        comm("nccl", world=4, gpus=1)
    with pytest.raises(ConfigurationError, match="did you mean 'gloo'"):
        comm("glo", world=4, gpus=1)


@pytest.mark.parametrize("sp", [1, 2, 3, 4, 5, 8, 12, 16, 24])
def test_the_model_fits_every_sp(sp: int) -> None:
    trial = question(world=sp, sp=sp).trial()
    assert trial.configuration.unsupported_reasons() == []
    assert model(sp).heads % sp == 0


def test_every_aggregation_is_audited() -> None:
    assert {cell.loss for cell in found(zero=0).cells} == set(losses())


def outcome(status: str, *ranks: int, **fields: str) -> dict[str, Any]:
    return {"status": status, "ranks": list(ranks), **fields}


def case(collective: str, variant: str, *outcomes: dict[str, Any]) -> dict[str, Any]:
    return {"collective": collective, "variant": variant, "outcomes": list(outcomes)}


def test_collectives_that_are_broken_alike_share_a_line() -> None:
    raised = outcome("error", 3, type="ValueError", phase="backward")
    again = outcome("error", 2, type="ValueError", phase="backward")
    cases = [
        case("nn.all_reduce", "", outcome("ok", 0, 1, 2, 3)),
        case("nn.all_reduce", "reduction=max", outcome("wrong gradient", 0, 1)),
        case("nn.all_reduce", "reduction=min", outcome("wrong gradient", 0, 1)),
        case("nn.gather", "", outcome("ok", 0), raised, again, outcome("hang", 1)),
    ]
    survey = Survey("gloo", cases, None)
    assert survey.broken == cases[1:]
    assert lines(survey.broken) == [
        Line("nn.all_reduce", ("reduction=max", "reduction=min"), "wrong gradient on ranks 0, 1"),
        Line("nn.gather", (), "ValueError in backward on ranks 2, 3; hang on rank 1"),
    ]


def test_the_survey_is_taken_on_the_emulation_and_on_its_transport(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doctor_collectives, "available", lambda: True)
    assert question(collectives=True).surveyed == ("nccl_over_gloo", "gloo")
    assert question(collectives=True, comm=CommSpec(name="nccl")).surveyed == ("nccl",)
    assert question(collectives=True, sp=1).surveyed == ()
    assert question(collectives=False).surveyed == ()
    broken = [case("nn.gather", "root=last", outcome("hang", 2))]

    def launch(trial: Trial) -> Record:
        if trial.configuration.scenario != "collectives":
            return judged(trial, usual(trial))
        details = {"cases": broken}
        return Record.of(trial, Status.OK, STARTED, 1.0, details=details)

    made = audit(question(collectives=True, zero=0), launch, lambda text: None)
    assert [one.comm for one in made.surveys] == ["nccl_over_gloo", "gloo"]
    assert as_json(made)["collectives"][1] == {
        "comm": "gloo",
        "cases": 1,
        "broken": broken,
        "missing": None,
    }
    assert "hang on rank 2" in shown(made)


def test_a_mutant_escapes_unless_the_verdict_is_the_one_due() -> None:
    def blind(trial: Trial) -> Record:
        """A judge that finds everything right."""
        due = "match" if trial.configuration.options["mutation"] == "untouched" else "wrong"
        made = judged(trial, 1.0)
        made.details["expected"] = due
        return made

    mutants = self_test(question(), blind, lambda text: None)
    assert [one.name for one in mutants] == mutations()
    assert [one.name for one in mutants if one.caught] == ["untouched"]
    assert mutants_answer(mutants).startswith("11 of 12 escaped: times_sp, ")


def test_a_failed_mutant_is_not_caught() -> None:
    mutants = self_test(question(), lambda trial: judged(trial, 0.0), lambda text: None)
    assert not any(one.caught for one in mutants)
    assert "untouched run is not right by itself" in mutants_answer(mutants)


def test_all_caught() -> None:
    mutants = [Mutant("untouched", "match", "match"), Mutant("x", "wrong", "wrong")]
    assert mutants_answer(mutants) == "All 1 faults were caught, and the untouched run was right."
