"""`spbench doctor` from outside: exit codes, one line for errors, and the recipe elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.controller.environments import provide
from tests.conftest import ROOT, spec

CHECK = ROOT / "tests" / "standalone" / "recipe_check.py"


def doctor(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench.cli", "doctor", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def one_error(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("spbench: ")
    return done.stderr


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (("--python", "/nowhere/python"), "--python /nowhere/python: no such file"),
        (("--python", sys.executable), f"--python {sys.executable} has no torch and no deepspeed"),
        (("--comm", "tcp"), "--comm tcp: unknown; allowed: auto, gloo, nccl, nccl_over_gloo"),
        (("--deepspeed-config", "/nowhere.json"), "--deepspeed-config /nowhere.json: no such file"),
        (("--deepspeed-config", "README.md"), "--deepspeed-config README.md: no JSON: "),
    ],
    ids=str,
)
def test_a_users_mistake_is_one_line_and_exit_code_2(
    arguments: tuple[str, ...], fragment: str
) -> None:
    assert fragment in one_error(doctor(*arguments))


def test_no_interpreter_given_and_none_found(tmp_path: Path) -> None:
    bare = tmp_path / "bin"
    bare.mkdir()
    (bare / "python").symlink_to(sys.executable)
    done = doctor(VIRTUAL_ENV=str(tmp_path))
    assert "--python /path/to/python" in one_error(done)


@pytest.mark.environment
@pytest.mark.parametrize(
    ("option", "fragment"),
    [
        (("--sp", "3"), "--sp 3: must divide --world 4; allowed: 1, 2, 4"),
        (("--loss", "all_gathr"), "did you mean 'all_gather'?"),
        (("--zero", "7"), "--zero 7: unknown ZeRO stage"),
        (("--reference", "tokenmean"), "did you mean 'token_mean'?"),
    ],
    ids=str,
)
def test_an_impossible_question_is_one_line(option: tuple[str, str], fragment: str) -> None:
    python = str(provide(spec("torch-2.13")).python)
    assert fragment in one_error(doctor("--python", python, *option))


def audit(*arguments: str) -> tuple[int, dict[str, Any]]:
    python = str(provide(spec("torch-2.13")).python)
    done = doctor("--python", python, "--json", "--no-collectives", *arguments)
    return done.returncode, json.loads(done.stdout)


@pytest.mark.environment
@pytest.mark.slow
def test_the_exit_code_tells_whether_the_pair_is_right() -> None:
    code, content = audit("--zero", "1", "--loss", "all_gather")
    assert (code, content["right"]) == (1, False)
    assert "gradient ×2" in content["answer"]
    code, content = audit("--zero", "1", "--loss", "local")
    assert (code, content["right"]) == (0, True)


@pytest.mark.environment
@pytest.mark.slow
def test_the_self_test_catches_everything() -> None:
    code, content = audit("--self-test")
    assert code == 0
    assert all(one["caught"] for one in content["mutations"])


@pytest.mark.environment
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_pasted_recipe_gives_the_reference_gradient_elsewhere(tmp_path: Path) -> None:
    """Another model, plain torch and DeepSpeed, no spbench; and the check can fail.

    Rank 1 has no label, and `F.cross_entropy` gives it NaN.
    """
    code, content = audit()
    assert code == 0
    proven = {zero for one in content["recipes"] for zero in one["right_at_zero"]}
    assert proven == {0, 1, 2, 3}
    for one in content["recipes"]:
        found = elsewhere(tmp_path, one["right_at_zero"][-1], one["source"], one["reference"])
        assert found["relative_error"] < 1e-5
        assert found["finite"]
    halved = content["recipes"][0]["source"].replace("return total", "return total / 2")
    assert elsewhere(tmp_path, 1, halved)["scale"] == pytest.approx(0.5)


@pytest.mark.environment
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_it_measures_under_the_users_file(tmp_path: Path) -> None:
    """With reduce_scatter off, what is right at ZeRO 3 otherwise is twice too large."""
    file = tmp_path / "ds.json"
    section = {"stage": 3, "reduce_scatter": False, "reduce_bucket_size": "auto"}
    file.write_text(json.dumps({"zero_optimization": section, "a_comment": "mine"}))
    code, content = audit("--deepspeed-config", str(file), "--loss", "all_gather")
    assert (code, content["zero"]) == (1, 3)
    assert "ZeRO 3: gradient ×2" in content["answer"]
    assert content["deepspeed"] == {"zero_optimization": {"reduce_scatter": False}}
    ignored = {one["option"] for one in content["ignored"]}
    assert ignored == {"a_comment", "zero_optimization.reduce_bucket_size"}
    first = content["recipes"][0]
    assert (first["loss"], first["factor"], first["right_at_zero"]) == (
        "weighted_all_reduce",
        1.0,
        [3],
    )
    code, content = audit("--zero", "3", "--loss", "all_gather")
    assert (code, content["right"]) == (0, True)


def elsewhere(
    folder: Path, zero: int, source: str, reference: str = "replica_mean"
) -> dict[str, float]:
    """What the standalone script says of a recipe."""
    recipe = folder / "recipe.py"
    recipe.write_text(source)
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [provide(spec("torch-2.13")).python, CHECK, recipe, str(zero), reference],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == (found["relative_error"] > 1e-4 or not found["finite"]), done.stderr
    return found
