"""Rows on gradients pass on what is right and miss what is not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.controller.selfcheck import gradients
from bench.controller.selfcheck.row import Seen
from bench.record import Status
from bench.trial import Configuration
from tests import factories
from tests.controller.selfcheck.stands import (
    H100,
    details,
    scaled,
    stand,
)


def test_one_rank_and_tf32_need_a_match(tmp_path: Path) -> None:
    there = stand(tmp_path)
    assert gradients.one_rank(there).passed is True
    assert gradients.tf32(there).passed is True
    [variables] = there._launcher.variables  # type: ignore[attr-defined]
    assert variables["TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"] == "1"
    assert "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE" not in os.environ
    wrong_at_3 = stand(tmp_path, lambda c: scaled(2.0) if c.zero == 3 else {})
    assert gradients.one_rank(wrong_at_3).passed is False
    assert gradients.tf32(stand(tmp_path, lambda _: scaled(2.0))).passed is False


def test_four_ranks_on_cpu_compares_two_ways(tmp_path: Path) -> None:
    assert gradients.four_ranks(stand(tmp_path)).passed is True
    apart = stand(tmp_path, lambda c: scaled(2.0) if c.gradient_check == "directional" else {})
    assert gradients.four_ranks(apart).passed is False


def test_what_fails_must_fail_in_the_same_way(tmp_path: Path) -> None:
    def answer(c: Configuration) -> dict[str, Any]:
        if c.loss != "all_gather":
            return {}
        return {"status": Status.ERROR, "errors": [factories.error(2), factories.error(3)]}

    seen = gradients.four_ranks(stand(tmp_path, answer))
    assert seen.passed is True
    assert seen.text.startswith("all_gather ZeRO 1 error (IndexError in backward); ")

    def one_way(c: Configuration) -> dict[str, Any]:
        return answer(c) if c.gradient_check == "directional" else {}

    assert gradients.four_ranks(stand(tmp_path, one_way)).passed is False


@pytest.mark.parametrize("gpus", [(), H100], ids=["cpu", "gpu"])
def test_failures_alone_prove_nothing(tmp_path: Path, gpus: tuple[str, ...]) -> None:
    (tmp_path / "a.log").write_text("NCCL INFO Channel 00 via NET/Socket/0")
    broken = {"status": Status.ERROR, "errors": [factories.error(2)], "log": "a.log"}
    seen = gradients.four_ranks(stand(tmp_path, lambda _: dict(broken), gpus))
    assert (seen.passed, seen.text[:22]) == (False, "no trial ended ok: all")


@pytest.mark.parametrize(
    ("printed", "nccl", "passed"),
    [
        ("NCCL INFO Channel 00 via NET/Socket/0", {}, True),
        ("NCCL INFO Channel 00 via P2P/CUMEM", {}, False),
        ("NCCL INFO Channel 00 via NET/Socket/0", scaled(2.0), False),
    ],
    ids=["as-emulated", "another-transport", "another-gradient"],
)
def test_four_ranks_on_a_gpu_compares_with_the_emulation(
    tmp_path: Path, printed: str, nccl: dict[str, Any], passed: bool
) -> None:
    (tmp_path / "a.log").write_text(printed)

    def answer(c: Configuration) -> dict[str, Any]:
        return {"log": "a.log", **(nccl if c.comm.name == "nccl" else {})}

    assert gradients.four_ranks(stand(tmp_path, answer, H100)).passed is passed


@pytest.mark.parametrize(
    ("residual", "kernel", "passed"),
    [
        (3e-3, "flash", True),
        (3e-3, "cudnn", True),
        (3.1e-3, "flash", False),
        (3e-3, "math", False),
        (3e-3, "efficient", False),
    ],
    ids=["right", "cudnn", "noisy", "math", "efficient"],
)
def test_real_size(tmp_path: Path, residual: float, kernel: str, passed: bool) -> None:
    fields = {
        "gradient": factories.gradient(residual=residual, noise_floor=1e-3),
        "worker": factories.worker().model_copy(update={"sdpa_kernel": kernel}),
    }
    assert gradients.real_size(stand(tmp_path, lambda _: dict(fields), H100)).passed is passed


def test_four_ranks_with_a_gpu_each_need_no_network(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("NCCL INFO Channel 00 via P2P/CUMEM")
    assert gradients.four_ranks(stand(tmp_path, lambda _: {"log": "a.log"}, H100 * 4)).passed


def test_real_size_without_a_residual_is_a_miss(tmp_path: Path) -> None:
    missing = factories.gradient(verdict="wrong", residual=None, noise_floor=1e-3)
    seen = gradients.real_size(stand(tmp_path, lambda _: {"gradient": missing}, H100))
    assert seen.passed is False
    assert seen.text.startswith("wrong, residual unknown, noise 0.001")


@pytest.mark.parametrize(
    ("directional", "sketch", "passed"),
    [(2.019, 2.09, True), (2.021, 2.0, False), (2.0, 2.11, False)],
    ids=["right", "directional-off", "sketch-off"],
)
def test_modes(tmp_path: Path, directional: float, sketch: float, passed: bool) -> None:
    """functional_all_reduce is ×2 and the workaround ×1 by the exact comparison."""

    def answer(c: Configuration) -> dict[str, Any]:
        scale = directional if c.gradient_check == "directional" else 2.0
        scale = scale if c.loss == "functional_all_reduce" else scale / 2.0
        return {**scaled(scale), "sketch": "sketches/a.npz"}

    there = stand(tmp_path, answer, sketch_scale=lambda candidate, baseline: sketch)
    assert gradients.modes(there).passed is passed


@pytest.mark.parametrize(("error", "passed"), [(9e-11, True), (2e-10, False)])
def test_reference(tmp_path: Path, error: float, passed: bool) -> None:
    there = stand(tmp_path, details(relative_error=error, device="cuda:0"))
    assert gradients.reference(there).passed is passed


@pytest.mark.environment
def test_reference_misses_what_is_absent_or_not_a_number(run_inside: Callable[..., Any]) -> None:
    assert run_inside("torch-2.13", "reference_row.py") == {
        "right": "0.0",
        "off": "0.25",
        "nan": "nan",
        "missing": "no gradient by layers: b",
    }


def test_judge_names_what_escaped(tmp_path: Path) -> None:
    seen = gradients.judge(stand(tmp_path, details(expected="match")))
    assert seen == Seen("12 of 12", True)
    seen = gradients.judge(stand(tmp_path, details(expected="wrong")))
    assert seen.passed is False
    assert seen.text.startswith("0 of 12; not: untouched, times_sp")
