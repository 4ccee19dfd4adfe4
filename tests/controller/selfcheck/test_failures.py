"""Rows on failures pass on what is right and miss what is not."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.controller.selfcheck import failures
from bench.controller.selfcheck.rows import check, chosen
from bench.record import Status
from bench.trial import Configuration
from tests import factories
from tests.controller.fake_nvml import FakeNvml, driver
from tests.controller.selfcheck.stands import (
    H100,
    Answer,
    details,
    stand,
)


def test_fork_sees_threads_and_the_server_on_the_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fine = details(device="NVIDIA H100")
    assert failures.fork(stand(tmp_path, fine)).passed is True
    threaded = factories.worker().model_copy(
        update={"warnings": ["spbench: the server had 3 threads when it forked"]}
    )
    with_threads = stand(tmp_path, lambda c: {**fine(c), "worker": threaded})
    assert failures.fork(with_threads).passed is False
    monkeypatch.setattr(failures, "_servers", lambda: [SimpleNamespace(pid=7)])
    monkeypatch.setattr(failures, "_pids_on_gpus", lambda: {7})
    assert failures.fork(stand(tmp_path, fine, H100)).passed is False
    monkeypatch.setattr(failures, "_pids_on_gpus", lambda: {8})
    assert failures.fork(stand(tmp_path, fine, H100)).passed is True


def test_no_nvcc_hides_the_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nvcc").touch()
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_HOME", "/usr/local/cuda")
    monkeypatch.setattr(failures, "USUAL_NVCC", tmp_path / "nowhere")
    there = stand(tmp_path, details(device="cpu"))
    assert failures.no_nvcc(there).passed is True
    [variables] = there._launcher.variables  # type: ignore[attr-defined]
    assert str(tmp_path) not in variables["PATH"].split(os.pathsep)
    assert "CUDA_HOME" not in variables
    assert os.environ["CUDA_HOME"] == "/usr/local/cuda"


def test_no_nvcc_hides_the_compiler_where_torch_looks_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nvcc").touch()
    monkeypatch.setattr(failures, "USUAL_NVCC", tmp_path / "nvcc")
    there = stand(tmp_path, details(device="cpu"))
    assert failures.no_nvcc(there).passed is True
    [variables] = there._launcher.variables  # type: ignore[attr-defined]
    assert not (Path(variables["CUDA_HOME"]) / "bin" / "nvcc").exists()


@pytest.mark.parametrize(("status", "passed"), [(Status.OOM, True), (Status.ERROR, False)])
@pytest.mark.parametrize("gpus", [(), H100], ids=["cpu", "gpu"])
def test_full_card(tmp_path: Path, gpus: tuple[str, ...], status: Status, passed: bool) -> None:
    there = stand(tmp_path, lambda _: {"status": status, "reason": "why"}, gpus)
    assert failures.full_card(there).passed is passed


def drilled(on_gpu: bool, **changed: Status) -> Answer:
    def answer(c: Configuration) -> dict[str, Any]:
        if c.scenario != "drill":
            return {"status": changed.get("then", Status.OK), "reason": "why"}
        fault = c.options["fault"]
        due = failures.DRILLS[fault]
        if fault == "spin" and not on_gpu:
            due = Status.TIMEOUT
        return {"status": changed.get(fault, due), "reason": "why"}

    return answer


@pytest.mark.parametrize("gpus", [(), H100], ids=["cpu", "gpu"])
def test_drills(tmp_path: Path, gpus: tuple[str, ...]) -> None:
    def passed(**changed: Status) -> bool | None:
        return failures.drills(stand(tmp_path, drilled(bool(gpus), **changed), gpus)).passed

    assert passed() is True
    assert passed(hang=Status.CRASH) is False
    assert passed(then=Status.ERROR) is False


@pytest.mark.parametrize("gpus", [(), H100], ids=["cpu", "gpu"])
def test_only_drills_that_hang_have_little_patience(tmp_path: Path, gpus: tuple[str, ...]) -> None:
    """Of the others' first steps one may take long: communicators, kernels."""
    limits = {}

    def answer(c: Configuration) -> dict[str, Any]:
        if c.scenario == "drill":
            limits[c.options["fault"]] = (c.limits.hang_s, c.limits.timeout_s)
        return drilled(bool(gpus))(c)

    assert failures.drills(stand(tmp_path, answer, gpus)).passed is True
    hang_s = 20.0 if gpus else 4.0
    assert limits.pop("hang") == (hang_s, 120.0)
    assert limits.pop("spin") == (hang_s, 120.0 if gpus else 12.0)
    assert set(limits.values()) == {(60.0, 240.0)}


def test_drills_see_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = iter([set(), {"/dev/shm/nccl-1"}] + [set()] * 20)
    monkeypatch.setattr(failures, "_left", lambda: next(left))
    seen = failures.drills(stand(tmp_path, drilled(False)))
    assert (seen.passed, "raise, left /dev/shm/nccl-1" in seen.text) == (False, True)


def test_drills_see_memory_that_a_gpu_does_not_get_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml = FakeNvml()

    def answer(c: Configuration) -> dict[str, Any]:
        if c.options.get("fault") == "kill":
            nvml.used[1] += 65 << 20
        return drilled(True)(c)

    with driver(monkeypatch, nvml):
        seen = failures.drills(stand(tmp_path, answer, H100))
    assert (seen.passed, "kill, left 65 MiB on GPU 1" in seen.text) == (False, True)


@pytest.mark.parametrize(
    ("longest", "failed", "passed"), [(4096, 4608, True), (4096, 5120, False), (0, 512, False)]
)
def test_capacity(tmp_path: Path, longest: int, failed: int, passed: bool) -> None:
    there = stand(tmp_path, details(longest=longest, shortest_failed=failed))
    [result] = check(there, chosen(["capacity"]))
    assert result.seen.passed is passed
