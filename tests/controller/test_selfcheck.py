"""Every row of the self-check passes on what is right and misses what is not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.controller.messages import ConfigurationError
from bench.controller.selfcheck import failures, gradients, timing
from bench.controller.selfcheck.row import Row, Seen
from bench.controller.selfcheck.rows import ROWS, check, chosen
from bench.controller.selfcheck.stand import RowFailed, Stand
from bench.record import Record, Status
from bench.trial import Configuration, Trial
from tests import factories
from tests.controller.fake_nvml import FakeNvml, driver

H100 = ("NVIDIA H100 80GB HBM3",)
Answer = Callable[[Configuration], dict[str, Any]]


class Launcher:
    """Answers every trial with a record that is ok, but for what `answer` says."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.variables: list[dict[str, str]] = []

    def __enter__(self) -> Launcher:
        self.variables.append(dict(os.environ))
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing runs."""

    def run(self, trial: Trial, folder: Path, note: object) -> Record:
        c = trial.configuration
        fields = {"gradient": factories.gradient(), "worker": factories.worker()}
        fields |= self._answer(c)
        status = fields.pop("status", Status.OK)
        return Record.of(trial, status, factories.STARTED, 1.0, **fields)


def stand(
    tmp_path: Path,
    answer: Answer = lambda _: {},
    gpus: tuple[str, ...] = (),
    sketch_scale: Callable[[Path, Path], float] = lambda candidate, baseline: 2.0,
) -> Stand:
    launcher = Launcher(answer)
    python = Path("/opt/python")
    return Stand(python, gpus, tmp_path, launcher, sketch_scale, servers=lambda: launcher)


def scaled(scale: float, label: str = "×2", **fields: Any) -> dict[str, Any]:
    return {
        "gradient": factories.gradient(verdict="scaled", scale=scale, scale_label=label, **fields)
    }


def details(**content: Any) -> Answer:
    return lambda _: {"details": content}


def test_rows_are_chosen_in_their_own_order_and_unknown_ones_refused() -> None:
    assert [row.name for row in chosen(["judge", "fork"])] == ["fork", "judge"]
    assert chosen([]) == list(ROWS)
    with pytest.raises(ConfigurationError, match=r"--rows frok: unknown row.*mean 'fork'\?"):
        chosen(["frok"])


def test_a_row_that_breaks_is_a_miss_and_a_gpu_row_is_not_run_on_cpu(tmp_path: Path) -> None:
    def fails(_: Stand) -> Seen:
        raise RowFailed("error: no luck")

    rows = [Row("a", "", fails), Row("b", "", fails, needs_gpu=True)]
    broken, skipped = check(stand(tmp_path), rows)
    assert (broken.missed, broken.seen.text) == (True, "error: no luck")
    assert (skipped.missed, skipped.seen.passed) == (False, None)
    assert "needs a GPU" in skipped.seen.text


def test_a_row_that_breaks_by_itself_is_a_miss_and_the_next_one_runs(tmp_path: Path) -> None:
    def breaks(_: Stand) -> Seen:
        raise TypeError("unsupported format string")

    broken, after = check(
        stand(tmp_path), [Row("a", "", breaks), Row("b", "", lambda _: Seen("here", True))]
    )
    assert (broken.missed, after.seen.passed) == (True, True)
    assert broken.seen.text == "the row itself broke: TypeError: unsupported format string"


def test_one_configuration_runs_once(tmp_path: Path) -> None:
    seen: list[str] = []
    there = stand(tmp_path, lambda c: seen.append(c.loss) or {})  # type: ignore[func-returns-value]
    assert there.ok(loss="local") is there.ok(loss="local")
    there.ok(loss="all_gather")
    there.launch(loss="local")
    assert seen == ["local", "all_gather", "local"]


def test_a_trial_that_fails_fails_its_row(tmp_path: Path) -> None:
    there = stand(tmp_path, lambda _: {"status": Status.CRASH, "reason": "rank 0 ended"})
    [result] = check(there, chosen(["one_rank"]))
    assert (result.missed, result.seen.text) == (True, "crash: rank 0 ended")


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
    hang_s = 20.0 if gpus else 10.0
    assert limits.pop("hang") == (hang_s, 120.0)
    assert limits.pop("spin") == (hang_s, 120.0 if gpus else 30.0)
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


@pytest.mark.parametrize(("events_s", "passed"), [(1.009, True), (1.02, False), (0.98, False)])
def test_events(tmp_path: Path, events_s: float, passed: bool) -> None:
    there = stand(tmp_path, details(events_s=events_s, wall_s=1.0), H100)
    assert timing.events(there).passed is passed


@pytest.mark.parametrize(("first", "passed"), [(1.09, True), (1.2, False)])
def test_first_step_is_judged_on_a_gpu_alone(tmp_path: Path, first: float, passed: bool) -> None:
    def answer(_: Configuration) -> dict[str, Any]:
        return {"samples": [factories.samples(0, [first, 1.0, 1.0, 1.0])]}

    assert timing.first_step(stand(tmp_path, answer, H100)).passed is passed
    assert timing.first_step(stand(tmp_path, answer)).passed is None


@pytest.mark.parametrize(
    ("ratio", "bare_s", "passed"),
    [(1.009, 0.01, True), (1.02, 0.01, False), (1.0, 0.001, False)],
    ids=["right", "slow", "impossible"],
)
def test_instrumentation(tmp_path: Path, ratio: float, bare_s: float, passed: bool) -> None:
    """160m on 2,048 tokens computes 1.85 TFLOP a step: 1 ms would be 2.6 times 700 TFLOP/s."""
    there = stand(tmp_path, details(ratio=ratio, bare_s=bare_s, matmul_flops=700e12), H100)
    assert timing.instrumentation(there).passed is passed


@pytest.mark.parametrize(
    ("adds_up", "bytes_agree"), [(True, True), (False, True), (True, False), (True, None)]
)
def test_profile(tmp_path: Path, adds_up: bool, bytes_agree: bool | None) -> None:
    content = {"adds_up": adds_up, "bytes_agree": bytes_agree, "breakdown": [{"off_by": 0.01}]}
    there = stand(tmp_path, details(**content))
    assert timing.profile(there).passed is (adds_up and bytes_agree is True)


@pytest.mark.parametrize(
    ("gpus", "flops", "copied", "passed"),
    [
        (H100, 750e12, 3.0e12, True),
        (H100, 400e12, 3.0e12, False),
        (H100, 1100e12, 3.0e12, False),
        (H100, 750e12, 2.0e12, False),
        (("NVIDIA GeForce RTX 4090",), 160e12, 0.9e12, None),
        (("NVIDIA H100 PCIe",), 500e12, 1.8e12, None),
        (("NVIDIA H100 80GB HBM3 MIG 1g.10gb",), 90e12, 0.4e12, None),
        ((), 1e11, 1e10, None),
    ],
    ids=["h100", "slow", "impossible", "slow-copy", "unknown-card", "pcie", "mig", "cpu"],
)
def test_rates(
    tmp_path: Path, gpus: tuple[str, ...], flops: float, copied: float, passed: bool | None
) -> None:
    there = stand(tmp_path, details(matmul_flops=flops, copy_bandwidth=copied), gpus)
    assert timing.rates(there).passed is passed
