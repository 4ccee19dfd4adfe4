"""What torch can use of the GPUs: pretended torches and drivers, and the real torches at hand.

No test here has met a GPU: what CUDA says is pretended, what spbench makes of it is real.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from bench import cli_doctor
from bench.cli import app
from bench.controller import doctor, torch_gpus
from bench.controller import run as run_module
from bench.controller.environments import provide
from bench.controller.hosts import Hosts
from bench.controller.interpreter import EnvironmentProblem
from bench.controller.torch_gpus import needed, require, seen_by
from bench.record import Status
from bench.trial import CommSpec, Trial
from tests.conftest import configure, spec
from tests.controller.fake_hosts import FakeHosts, run_sweep
from tests.controller.fake_nvml import FakeNvml
from tests.controller.fake_torch import interpreter, was_imported

OLD_DRIVER = (
    "The NVIDIA driver on your system is too old (found version 12040). Please update your GPU "
    "driver by downloading and installing a new version."
)
NO_KERNEL = "CUDA error: no kernel image is available for execution on the device\nCompile with"


@pytest.mark.parametrize(
    ("torch", "usable", "problem"),
    [
        pytest.param({}, 2, None, id="all"),
        pytest.param({"cuda": None}, 0, None, id="built without CUDA"),
        pytest.param({"init": OLD_DRIVER}, 0, OLD_DRIVER, id="driver too old"),
        pytest.param(
            {"counted": 2, "usable": 1}, 1, "CUDA error: invalid device ordinal", id="MIG"
        ),
        pytest.param({"nccl": False}, 0, "it is built without NCCL", id="no NCCL"),
        pytest.param(
            {"capability": (10, 0), "kernel": NO_KERNEL}, 0, NO_KERNEL, id="no code for the card"
        ),
        pytest.param({"capability": (8, 9)}, 2, None, id="code of another minor release runs"),
        pytest.param(
            {"capability": (8, 9), "kernel": "CUDA out of memory"}, 2, None, id="busy is usable"
        ),
        pytest.param({"kernel": NO_KERNEL}, 2, None, id="no kernel where code is there"),
    ],
)
def test_what_torch_can_use(
    torch: dict[str, Any], usable: int, problem: str | None, tmp_path: Path
) -> None:
    made = interpreter(tmp_path, **torch)
    seen = seen_by(made.python)
    assert seen.names == ("gpu0", "gpu1")[:usable]
    assert seen.problem == problem
    assert was_imported(made) == (torch.get("cuda", "12.6") is not None)


@pytest.mark.parametrize(
    ("torch", "cuda", "gpus", "message"),
    [
        pytest.param(
            {"version": "2.13.0+cpu", "cuda": None}, 12040, 1,
            "torch 2.13.0+cpu is built without CUDA and can use none of the 2 GPUs; take "
            "environment.torch_backend=auto or comm=nccl_over_gloo",
            id="built without CUDA",
        ),
        pytest.param(
            {"version": "2.13.0+cu130", "cuda": "13.0", "init": OLD_DRIVER}, 12040, 2,
            "torch 2.13.0+cu130 (CUDA 13.0) can use none of the 2 GPUs, not 2 (The NVIDIA driver "
            "on your system is too old (found version 12040); driver 550.54.15 knows CUDA up to "
            "12.4); take environment.torch_backend=auto or comm=nccl_over_gloo",
            id="driver too old",
        ),
        pytest.param(
            {"usable": 1}, 12040, 2,
            "torch 2.13.0+cu126 (CUDA 12.6) can use 1 of the 2 GPUs, not 2 (CUDA error: invalid "
            "device ordinal); take world<=1, oversubscribe=true or comm=nccl_over_gloo",
            id="too few; a newer minor release is no reason",
        ),
    ],
)  # fmt: skip
def test_what_is_too_little_is_one_line_with_a_remedy(
    torch: dict[str, Any], cuda: int, gpus: int, message: str, tmp_path: Path, nvml: FakeNvml
) -> None:
    nvml.cuda = cuda
    with pytest.raises(EnvironmentProblem) as problem:
        require(interpreter(tmp_path, **torch), gpus)
    assert str(problem.value) == f"environment 'pretended': {message}"
    assert problem.value.stage == "gpu"


def test_a_newer_major_release_with_a_compatibility_package_runs(
    tmp_path: Path, nvml: FakeNvml
) -> None:
    require(interpreter(tmp_path, cuda="13.0"), 2)  # observed, not concluded from versions


def test_cards_in_instances_are_named_as_the_reason(
    tmp_path: Path, nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nvml, "nvmlDeviceGetMigMode", lambda gpu: [1, 1])
    with pytest.raises(EnvironmentProblem, match="cut into instances \\(MIG\\)"):
        require(interpreter(tmp_path, usable=1), 2)


def test_an_interpreter_is_asked_once_for_each_choice_of_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []
    answer_of = torch_gpus.answer_of
    monkeypatch.setattr(
        torch_gpus,
        "answer_of",
        lambda python, *rest: asked.append(python) or answer_of(python, *rest),
    )
    made = interpreter(tmp_path)
    for visible in ("0", "0", "1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        seen_by(made.python)
    assert len(asked) == 4  # the build and its use, for two choices


def test_how_many_a_configuration_needs() -> None:
    assert needed(configure(world=4, sp=2, comm=CommSpec(name="nccl"))) == 4
    assert needed(configure(world=4, sp=2, comm=CommSpec(name="nccl", oversubscribe=True))) == 1
    assert needed(configure(world=4, sp=2)) == 0  # nccl_over_gloo


def test_a_sweep_ends_before_anything_is_launched(
    tmp_path: Path, nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "visible_gpu_count", lambda: 2)
    made = interpreter(tmp_path / "made", cuda=None)
    results = tmp_path / "results"
    hosts = FakeHosts()
    sweep = (f"results={results}", "rounds=1", "environment=torch-2.13", "loss=local", "sp=2")
    with pytest.raises(EnvironmentProblem, match="built without CUDA"):
        run_sweep(*sweep, "world=2", hosts=hosts, provide=lambda spec, report: made)
    assert hosts.trials == []
    assert not results.exists()
    run_sweep(*sweep, "world=4", hosts=hosts, provide=lambda spec, report: made)
    assert hosts.trials  # 2 GPUs are too few: comm=auto is nccl_over_gloo, which needs none


@pytest.mark.parametrize(
    ("torch", "words"),
    [({"cuda": None}, "is built without CUDA"), ({"usable": 1}, "can use 1 of the 2 GPUs, not 2")],
    ids=["none", "too few"],
)
def test_with_a_pool_the_record_says_that_the_environment_is_at_fault(
    torch: dict[str, Any], words: str, tmp_path: Path, nvml: FakeNvml
) -> None:
    made = interpreter(tmp_path / "made", **torch)
    trial = Trial(configuration=configure(world=2, sp=2, comm=CommSpec(name="nccl")), round=0)
    with Hosts(lambda spec: made) as hosts:
        record = hosts.run(trial, tmp_path)
    assert record.status is Status.ENVIRONMENT
    assert record.reason is not None and words in record.reason
    assert [error.phase for error in record.errors] == ["gpu"]
    assert not (tmp_path / "logs").exists()  # no server was started


@pytest.fixture
def ask_doctor(
    tmp_path: Path, nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], tuple[Result, list[Any]]]:
    """`spbench doctor --comm NAME` on a torch without CUDA; gives what it would audit, too."""
    python = interpreter(tmp_path, version="2.13.0+cpu", cuda=None).python
    audited: list[Any] = []
    monkeypatch.setattr(
        cli_doctor, "_audit", lambda question, to_json: audited.append(question) or True
    )

    def ask(comm: str) -> tuple[Result, list[Any]]:
        arguments = ["doctor", "--python", str(python), "--world", "2", "--comm", comm]
        return CliRunner().invoke(app, arguments), audited

    return ask


def test_the_doctor_audits_on_the_cpu_where_torch_cannot_use_the_gpus(
    ask_doctor: Callable[[str], tuple[Result, list[Any]]],
) -> None:
    done, audited = ask_doctor("auto")
    assert done.exit_code == 0
    assert [one.comm.name for one in audited] == ["nccl_over_gloo"]
    assert done.stderr == (
        "spbench: torch 2.13.0+cpu is built without CUDA and can use none of the 2 GPUs; "
        "audited with nccl_over_gloo instead\n"
    )


def test_the_doctor_refuses_nccl_where_torch_cannot_use_the_gpus(
    ask_doctor: Callable[[str], tuple[Result, list[Any]]],
) -> None:
    done, audited = ask_doctor("nccl")
    assert (done.exit_code, audited) == (2, [])
    assert len(done.stderr.splitlines()) == 1
    assert "--comm nccl: torch 2.13.0+cpu is built without CUDA" in done.stderr
    assert "--comm nccl_over_gloo" in done.stderr


@pytest.mark.parametrize("command", ["doctor", "selfcheck"])
def test_a_torch_that_cannot_be_asked_is_one_line(
    command: str, tmp_path: Path, nvml: FakeNvml
) -> None:
    """Its packages are there; its import ends as beside a library of another version."""
    made = interpreter(tmp_path)
    torch = tmp_path / "packages" / "torch" / "__init__.py"
    torch.write_text("raise ImportError('libcudart.so.12: undefined symbol')")
    arguments = [command, "--python", str(made.python)]
    arguments += ["--world", "2"] if command == "doctor" else []
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("spbench: ") and "libcudart.so.12: undefined symbol" in line


def test_the_doctor_asks_nobody_where_ranks_are_on_the_cpu(tmp_path: Path) -> None:
    comm = CommSpec(name="gloo")
    assert doctor.usable_comm(comm, "gloo", tmp_path / "no python", 2) == (comm, "")


@pytest.mark.environment
@pytest.mark.parametrize("name", ["torch-2.2", "torch-2.13"])
def test_a_real_torch_without_a_gpu(name: str, nvml: FakeNvml) -> None:
    """The torches at hand, one of them built with CUDA, on a machine that has no GPU for them."""
    real = provide(spec(name))
    seen = seen_by(real.python)
    if seen.names:
        pytest.skip("this machine has a GPU that torch can use")
    assert seen.cuda is None or seen.problem
    with pytest.raises(EnvironmentProblem, match=f"torch {seen.torch.split('+')[0]}"):
        require(real, 1)
