"""Both definitions of the loss on real ranks, and the recipes on shards without labels."""

from __future__ import annotations

import pytest

from bench.controller.doctor_recipe import FOLDER, TOKEN_MEAN
from bench.record import GradientError, Record, Status
from tests.conftest import RunTrial, configure

pytestmark = pytest.mark.environment

ENVIRONMENTS = ("torch-2.2", "torch-2.13")


def gradient_of(record: Record) -> GradientError:
    assert record.status is Status.OK, record.reason
    assert record.gradient is not None
    return record.gradient


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_a_gradient_is_right_by_one_definition_and_off_by_the_others_distance(
    run_trial: RunTrial, environment: str
) -> None:
    one = configure(environment, zero=1, loss="local", mask="ragged")
    found = gradient_of(run_trial(one))
    other = found.other
    assert found.verdict == "match"
    assert other is not None
    assert (other.reference, other.verdict) == ("token_mean", "wrong")
    assert other.relative_error == pytest.approx(other.distance, rel=1e-4)
    assert other.distance > 1e-2
    judged = gradient_of(run_trial(one.model_copy(update={"reference": "token_mean"})))
    assert judged.verdict == "wrong"
    assert judged.relative_error == pytest.approx(other.relative_error, rel=1e-6)
    assert judged.reference_loss == pytest.approx(other.reference_loss, rel=1e-9)
    assert judged.other is not None
    assert (judged.other.reference, judged.other.verdict) == ("replica_mean", "match")


@pytest.mark.parametrize("fields", [{"mask": "prompt"}, {"sp": 4}], ids=str)
def test_where_replicas_do_not_differ_there_is_no_other(
    run_trial: RunTrial, fields: dict[str, str | int]
) -> None:
    assert gradient_of(run_trial(configure(zero=1, **fields))).other is None


def run_recipe(run_trial: RunTrial, environment: str, text: str, **fields: object) -> GradientError:
    options = {"source": text}
    return gradient_of(
        run_trial(configure(environment, scenario="recipe", zero=1, options=options, **fields))
    )


RECIPES = [
    ("torch-2.2", "weighted_all_reduce", "×1"),
    ("torch-2.2", "all_gather", "×2"),
    ("torch-2.13", "weighted_all_reduce", "×1"),
    ("torch-2.13", "local", "×1"),
    ("torch-2.13", "all_gather", "×2"),
    ("torch-2.13", "functional_all_reduce", "×2"),
    ("torch-2.13", "functional_collective", "×2"),
]
"""With the factor that belongs to each at ZeRO 1, sp 2."""


@pytest.mark.parametrize(("environment", "name", "scale"), RECIPES)
def test_a_recipe_takes_the_nan_of_a_shard_without_labels(
    run_trial: RunTrial, environment: str, name: str, scale: str
) -> None:
    text = (FOLDER / f"{name}.py").read_text()
    found = run_recipe(run_trial, environment, text, mask="empty_shard", world=2)
    assert (found.scale_label, found.nonfinite, found.residual) == (
        scale,
        [],
        pytest.approx(0, abs=1e-5),
    )
    assert found.loss is not None
    if name == "local":  # the mean over ranks of each one's share
        assert 2 * found.loss == pytest.approx(found.reference_loss, rel=1e-5)
    else:
        assert found.loss == pytest.approx(found.reference_loss, rel=1e-5)


def test_without_its_guard_a_recipe_returns_nan(run_trial: RunTrial) -> None:
    text = (FOLDER / "weighted_all_reduce.py").read_text()
    bare = "".join(line for line in text.splitlines(True) if "masked_fill" not in line)
    assert bare != text
    found = run_recipe(run_trial, "torch-2.13", bare, mask="empty_shard", world=2)
    assert found.loss is None  # as records write what is not finite
    assert found.verdict == "match"  # the gradient stays right: nobody would notice


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_recipe_for_the_token_mean_is_right_by_it(
    run_trial: RunTrial, environment: str
) -> None:
    text = (FOLDER / f"{TOKEN_MEAN}.py").read_text()
    for mask in ("ragged", "empty_shard"):
        found = run_recipe(run_trial, environment, text, mask=mask, reference="token_mean")
        assert found.verdict == "match", mask
        assert found.loss == pytest.approx(found.reference_loss, rel=1e-5)
    beside = run_recipe(run_trial, environment, text, mask="ragged")
    assert beside.verdict == "wrong"
    assert beside.other is not None
    assert beside.other.verdict == "match"


def test_directional_follows_the_definition(run_trial: RunTrial) -> None:
    text = (FOLDER / f"{TOKEN_MEAN}.py").read_text()
    fields = {"mask": "ragged", "gradient_check": "directional"}
    for reference, verdicts in (("token_mean", {"match"}), ("replica_mean", {"wrong", "scaled"})):
        found = run_recipe(run_trial, "torch-2.13", text, reference=reference, **fields)
        assert found.verdict in verdicts, reference
