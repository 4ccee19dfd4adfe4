"""The audit's course and its answer; launching is faked, so that every matrix can be had."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench.controller import doctor_collectives
from bench.controller.deepspeed_file import DeepspeedFile, Ignored
from bench.controller.doctor import Audit, Question, audit, comm, losses, model, trials_of
from bench.controller.doctor_collectives import Line, Survey, lines
from bench.controller.doctor_report import answer, as_json, mutants_answer, show
from bench.controller.messages import ConfigurationError
from bench.controller.self_test import Mutant, mutations, self_test
from bench.record import Record, Status
from bench.trial import CommSpec, Trial
from tests.factories import STARTED, error, gradient, other, worker

EMULATED = CommSpec(name="nccl_over_gloo")
WORKER = worker().model_copy(update={"mesh_setup": "megatron"})
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
    return Record.of(trial, Status.OK, STARTED, 1.0, gradient=found, worker=WORKER)


def usual(trial: Trial) -> float:
    """ZeRO 0 to 2: autograd over ranks gives twice; ZeRO 3: the others half. Recipes are right."""
    c = trial.configuration
    if c.scenario == "recipe":
        return 1.0
    over_ranks = c.loss not in ("local", "weighted_all_reduce")
    return (2.0 if over_ranks else 1.0) / (2.0 if c.zero == 3 else 1.0)


def found(scale: Scale = usual, **fields: Any) -> Audit:
    return audit(question(**fields), lambda trial: judged(trial, scale(trial)), lambda text: None)


def test_the_usual_stack_has_two_recipes_and_two_for_the_token_mean() -> None:
    made = found()
    assert len(made.cells) == 4 * 6
    recipes = [(one.candidate.loss, one.candidate.factor, one.right_at) for one in made.recipes]
    assert recipes == [
        ("weighted_all_reduce", 1, [0, 1, 2]),
        ("functional_all_reduce", 1, [3]),
        ("token_mean", 1, [0, 1, 2]),
        ("token_mean", 2, [3]),  # as weighted_all_reduce is half there
    ]
    assert [one.reference for one in made.recipes] == ["replica_mean"] * 2 + ["token_mean"] * 2
    assert made.right
    assert answer(made) == "A proven recipe exists for ZeRO 0, 1, 2 and 3."
    assert made.mesh_setup == as_json(made)["mesh_setup"] == "megatron"
    assert (
        "torch 2.13.0, DeepSpeed 0.18.2 (sp=2, dp=2, nccl_over_gloo, mesh_setup=megatron)"
        in made.recipes[0].source
    )


def test_what_is_proven_is_what_is_printed() -> None:
    launched: list[Trial] = []

    def launch(trial: Trial) -> Record:
        launched.append(trial)
        return judged(trial, usual(trial))

    made = audit(question(zero=1), launch, lambda text: None)
    configurations = [one.configuration for one in launched]
    assert [one.scenario for one in configurations] == ["train"] * 6 + ["recipe"] * 4
    assert len(launched) == trials_of(question(zero=1))
    proofs = [(one.options["source"], one.reference, one.mask) for one in configurations[6:]]
    first, second = (one.source for one in made.recipes)
    assert proofs == [
        (first, "replica_mean", "ragged"),
        (first, "replica_mean", "empty_shard"),
        (second, "token_mean", "ragged"),
        (second, "token_mean", "empty_shard"),
    ]
    assert {one.zero for one in configurations} == {1}


def test_a_recipe_whose_loss_is_nan_without_labels_is_not_right() -> None:
    def launch(trial: Trial) -> Record:
        made = judged(trial, usual(trial))
        if trial.configuration.mask == "empty_shard":
            assert made.gradient is not None
            made.gradient.loss = math.nan
        return made

    made = audit(question(zero=1), launch, lambda text: None)
    assert not made.right
    assert all(one.right_at == [] for one in made.recipes)
    assert "ZeRO 1, mask=empty_shard: the loss is not finite" in shown(made)


def test_without_replicas_there_is_one_definition() -> None:
    made = found(sp=4, zero=1)
    assert [one.reference for one in made.recipes] == ["replica_mean"]
    assert {cell.mask for cell in made.recipes[0].proof} == {"ragged", "empty_shard"}
    alone = found(world=2, sp=1, zero=1)
    assert {cell.mask for one in alone.recipes for cell in one.proof} == {"ragged"}


def test_right_may_refer_to_the_token_mean() -> None:
    """All aggregations of a sweep are wrong beside it; beside the other they are as usual."""

    def launch(trial: Trial) -> Record:
        c = trial.configuration
        if c.scenario == "recipe":
            return judged(trial, 1.0)
        scale = usual(trial)
        verdict = "match" if scale == 1 else "scaled"
        known = other(reference="replica_mean", verdict=verdict, scale=scale)
        found = gradient(verdict="wrong", other=known)
        return Record.of(trial, Status.OK, STARTED, 1.0, gradient=found, worker=worker())

    made = audit(question(reference="token_mean", zero=1), launch, lambda text: None)
    assert {cell.verdict for cell in made.cells} == {"wrong"}
    assert made.right
    assert [(one.candidate.loss, one.reference) for one in made.recipes] == [
        ("weighted_all_reduce", "replica_mean"),
        ("token_mean", "token_mean"),
    ]
    text = shown(made)
    assert "right: the gradient of the mean over all valid tokens of the batch" in text
    assert "20 % away with the masks used here: local, weighted_all_reduce give it" in text


def test_the_other_definition_is_told_beside_the_matrix() -> None:
    def launch(trial: Trial) -> Record:
        made = judged(trial, usual(trial))
        assert made.gradient is not None
        made.gradient.other = other()
        return made

    text = shown(audit(question(zero=1), launch, lambda text: None))
    assert "right: the gradient of the mean over replicas of each one's mean" in text
    assert "20 % away with the masks used here: none of these gradients is right by it" in text


FILE = DeepspeedFile(
    Path("ds.json"),
    {"zero_optimization": {"reduce_scatter": False}, "nonsense": 1},
    zero=3,
    zero_given=True,
    bf16=True,
    micro_batch=2,
    ignored=(Ignored("gradient_accumulation_steps", "16", "1"),),
)


def test_it_audits_under_the_users_file_without_what_deepspeed_does_not_look_at() -> None:
    launched: list[Trial] = []

    def launch(trial: Trial) -> Record:
        launched.append(trial)
        if "nonsense" in trial.configuration.deepspeed:
            raised = error(0, "bench.worker.deepspeed_options.UnaskedOption", "setup")
            raised.message = "deepspeed.nonsense: DeepSpeed 0.18.2 does not look at this option"
            return Record.of(trial, Status.ERROR, STARTED, 1.0, errors=[raised])
        return judged(trial, usual(trial))

    made = audit(question(file=FILE), launch, lambda text: None)
    c = launched[-1].configuration
    assert c.deepspeed == {"zero_optimization": {"reduce_scatter": False}}
    assert (c.zero, c.dtype, c.micro_batch, c.scenario) == (3, "bfloat16", 2, "recipe")
    assert {cell.zero for cell in made.cells} == {3}
    assert "zero_optimization.reduce_scatter=False" in made.recipes[0].source.replace("\n# ", " ")
    rows = shown(made).splitlines()
    assert (
        "holds for: dtype=bfloat16, micro_batch=2, zero_optimization.reduce_scatter=false, and "
        "else DeepSpeed's defaults" in rows
    )
    assert "ignored: gradient_accumulation_steps=16; used instead: 1" in rows
    assert "ignored: nonsense=1; used instead: nothing (DeepSpeed does not look at it)" in rows
    assert any(row.startswith("known to change it: sp and dp (") for row in rows)
    content = as_json(made)
    assert content["deepspeed"] == {"zero_optimization": {"reduce_scatter": False}}
    assert content["holds_for"][2] == "zero_optimization.reduce_scatter=false"
    assert [one["option"] for one in content["ignored"]][-1] == "nonsense"


def test_without_a_file_the_heading_says_which_options_would_matter() -> None:
    text = shown(found(zero=1))
    assert "holds for: dtype=float32, micro_batch=1, DeepSpeed's default options" in text
    assert "zero_optimization.reduce_scatter (false: another factor at ZeRO 3)" in text
    assert "--deepspeed-config FILE audits under yours" in text


def test_a_stage_that_contradicts_the_file() -> None:
    assert question(file=FILE).stages == (3,)
    assert question(file=FILE, zero=3).stages == (3,)
    with pytest.raises(ConfigurationError) as raised:
        question(file=FILE, zero=1)
    assert str(raised.value) == (
        "--zero 1: --deepspeed-config ds.json says zero_optimization.stage=3; leave --zero out, "
        "or change the file"
    )
    silent = DeepspeedFile(Path("ds.json"), {}, zero=0)
    assert question(file=silent, zero=1).stages == (1,)
    assert question(file=silent).stages == (0,)
    assert question(file=DeepspeedFile(Path("ds.json"), {})).stages == (0, 1, 2, 3)


def test_where_ulysses_does_not_import_nothing_is_said_of_aggregations() -> None:
    raised = error(0, "builtins.AttributeError", "setup")
    raised.message = "module 'torch.amp' has no attribute 'custom_fwd'"
    raised.traceback = 'File "/x/deepspeed/sequence/layer.py", line 17, in <module>'

    def launch(trial: Trial) -> Record:
        why = f"builtins.AttributeError in setup on ranks 0 to 3: {raised.message}"
        return Record.of(trial, Status.ERROR, STARTED, 1.0, errors=[raised], reason=why)

    made = audit(question(), launch, lambda text: None)
    assert not made.right
    assert answer(made) == (
        "No gradient was compared at ZeRO 0, 1, 2 and 3: DeepSpeed's Ulysses does not import: "
        "builtins.AttributeError in setup on ranks 0 to 3: module 'torch.amp' has no attribute "
        "'custom_fwd'."
    )
    mine = audit(question(loss="local", zero=1), launch, lambda text: None)
    assert answer(mine).startswith("local could not be judged (ZeRO 1: DeepSpeed's Ulysses does ")


def test_a_recipe_that_fails_as_printed_gives_way_and_is_told() -> None:
    def first_text_fails(trial: Trial) -> float:
        source = str(trial.configuration.options.get("source", ""))
        return 2.0 if "over the sequence; autograd sees this rank's own" in source else usual(trial)

    made = found(first_text_fails, zero=1)
    tried = [(one.candidate.loss, one.right_at) for one in made.recipes]
    assert tried == [("weighted_all_reduce", []), ("local", [1]), ("token_mean", [1])]
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
    assert answer(made) == (
        "No gradient was compared at ZeRO 0, 1, 2 and 3: IndexError in backward."
    )


def test_no_aggregation_is_said_where_gradients_were_compared() -> None:
    def wrong(trial: Trial) -> Record:
        found = gradient(verdict="wrong", scale=0.7)
        return Record.of(trial, Status.OK, STARTED, 1.0, gradient=found, worker=worker())

    def launch(trial: Trial) -> Record:
        return wrong(trial) if trial.configuration.zero < 3 else judged(trial, usual(trial))

    assert answer(audit(question(), launch, lambda text: None)) == (
        "A proven recipe exists for ZeRO 3. "
        "No aggregation gives the reference gradient at ZeRO 0, 1 and 2."
    )


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
    proven = "(run as printed: right, a shard without labels included)"
    replicas = "mean over replicas of each one's mean over its valid tokens"
    assert f"Recipe for ZeRO 0, 1 and 2, {replicas} {proven}" in rows
    tokens = "mean over all valid tokens of the batch"
    assert f"Recipe for ZeRO 3, {tokens} {proven}" in rows
    assert any("emulated on gloo" in row for row in rows)
    assert "DeepSpeed told of sequence parallelism by mesh_setup=megatron" in rows


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
        ({"mesh_setup": "megatorn"}, "did you mean 'megatron'?"),
        ({"mesh_setup": "mesh_param", "sp": 1}, "--mesh-setup mesh_param: has nothing to tell"),
        ({"zero": 4}, "--zero 4: unknown ZeRO stage; allowed: 0, 1, 2, 3"),
        (
            {"reference": "mean"},
            "--reference mean: unknown reference; allowed: replica_mean, token",
        ),
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


def test_how_a_result_was_awaited_is_named_where_it_matters() -> None:
    wrong, none, fine = outcome("wrong gradient", 0), outcome("no gradient", 0), outcome("ok", 0)
    cases = [
        {**case(f"fc.{name}", "dim=1", found), "awaited": way}
        for name, *all_found in (("a", fine, wrong), ("b", none, none), ("c", none, wrong))
        for way, found in zip(("direct", "method"), all_found, strict=True)
    ]
    assert lines(cases) == [
        Line("fc.a", ("dim=1,awaited=method",), "wrong gradient on rank 0"),
        Line("fc.b", ("dim=1",), "no gradient on rank 0"),
        Line("fc.c", ("dim=1,awaited=direct",), "no gradient on rank 0"),
        Line("fc.c", ("dim=1,awaited=method",), "wrong gradient on rank 0"),
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
