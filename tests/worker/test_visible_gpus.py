"""Forking beside GPUs, simulated: `tests/inside/fake_gpus` pretends 8 to torch and at NVML."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.controller.environments import provide
from bench.controller.host import Host
from bench.controller.interpreter import Interpreter, check
from bench.controller.server_process import ServerProcess
from bench.record import Record
from bench.trial import CommSpec, EnvironmentSpec, Trial
from tests.conftest import ROOT, configure, spec

pytestmark = pytest.mark.environment

FAKE = str(ROOT / "tests" / "inside" / "fake_gpus")
ENVIRONMENTS = pytest.mark.parametrize("environment", ["torch-2.2", "torch-2.13"])


@pytest.fixture
def beside_gpus(tmp_path: Path) -> dict[str, str]:
    """Variables of a server for GPUs on a machine with 8 of them and a CUDA compiler."""
    compiler = tmp_path / "cuda" / "bin" / "nvcc"
    compiler.parent.mkdir(parents=True)
    compiler.write_text("#!/bin/sh\necho 'Cuda compilation tools, release 12.1, V12.1.105'\n")
    compiler.chmod(0o755)
    (tmp_path / "log").touch()
    return {
        "PYTHONPATH": f"{ROOT}:{FAKE}",
        "FAKE_GPUS_LOG": str(tmp_path / "log"),
        "CUDA_HOME": str(tmp_path / "cuda"),
        "DS_ACCELERATOR": "cuda",
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
    }


@pytest.mark.parametrize(
    "environment", ["torch-2.2", pytest.param("torch-2.13", marks=pytest.mark.slow)]
)
def test_importing_beside_visible_gpus_reaches_cuda_and_beside_hidden_ones_does_not(
    run_inside: Callable[..., Any], beside_gpus: dict[str, str], environment: str
) -> None:
    """DeepSpeed 0.18.2, whose op builders ask about the GPUs; a later one may be clean itself."""
    found = run_inside(environment, "import_beside_gpus.py", **beside_gpus)
    visible = found["visible"]
    assert "_cuda_init" in visible["calls"]
    assert visible["calls"].count("_get_device_properties") >= 5
    assert visible["gpus"] == 8
    assert found["visible, no nvcc"]["raised"] == "MissingCUDAException"
    nccl = "2.19.3" if environment == "torch-2.2" else None  # the other has none
    clean = {"raised": None, "nccl": nccl, "calls": [], "threads": 1, "gpus": 0}
    assert found["hidden, no nvcc"] == clean


@pytest.mark.slow
def test_checking_an_environment_beside_gpus_needs_no_nvcc(
    beside_gpus: dict[str, str], tmp_path: Path
) -> None:
    """`spbench env check` imports DeepSpeed in a process of its own, as the user would."""
    real = provide(spec("torch-2.2"))
    python = tmp_path / "python"
    variables = {**beside_gpus, "FAKE_NO_NVCC": "1", "PYTHONPATH": FAKE}
    settings = " ".join(f"{name}={value}" for name, value in variables.items())
    python.write_text(f'#!/bin/sh\n{settings} exec {real.python} "$@"\n')
    python.chmod(0o755)
    mine = Interpreter(real.spec, python, real.extensions, real.preload)
    assert check(mine).deepspeed == "0.18.2"
    assert (tmp_path / "log").read_text() == ""


@ENVIRONMENTS
def test_the_process_that_makes_a_reference_sees_the_users_gpus(
    run_inside: Callable[..., Any], beside_gpus: dict[str, str], environment: str
) -> None:
    variables = {**beside_gpus, "CUDA_VISIBLE_DEVICES": ""}
    found = run_inside(environment, "restored.py", "none", "4,5,6", "", **variables)
    assert found == {
        "server": [["", 0], ["", 0]],
        "none": [None, 8, []],
        "4,5,6": ["4,5,6", 3, []],
        "": ["", 0, []],
    }


@pytest.fixture(params=["torch-2.2", "torch-2.13"])
def host(
    request: pytest.FixtureRequest,
    beside_gpus: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Host]:
    """A real server for GPUs, started by a user who lets it have two.

    Not through `Hosts`, which first asks torch, in vain, whether it can use them.
    """
    for name in ("FAKE_GPUS_LOG", "CUDA_HOME"):
        monkeypatch.setenv(name, beside_gpus[name])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "6,7")
    monkeypatch.setenv("SPBENCH_USER_PYTHONPATH", FAKE)
    monkeypatch.setenv("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "1")
    monkeypatch.setenv("NCCL_MAX_CTAS", "4")
    real = provide(spec(request.param))
    preload = tmp_path / "preload.json"
    preload.write_text(json.dumps(["torch.profiler._cupti_monitor"]))
    mine = EnvironmentSpec(name="mine", python=str(real.python))
    interpreter = Interpreter(mine, real.python, real.extensions, preload)
    host = Host(ServerProcess(interpreter, "cuda", False, tmp_path / "server.log"))
    yield host
    host.close()


def test_a_real_server_reaches_no_cuda_and_its_ranks_do(
    host: Host, beside_gpus: dict[str, str], results: Path
) -> None:
    """The first thing that needs a real GPU, or NCCL, fails in the ranks, and not before."""
    record = run_ranks(host, results, 1)
    assert [(e.rank, e.phase) for e in record.errors] == [(0, "setup")]
    assert "NCCL" in record.errors[0].message
    lines = Path(beside_gpus["FAKE_GPUS_LOG"]).read_text().splitlines()
    calls = [json.loads(line) for line in lines]
    assert len({call["pid"] for call in calls}) == 1  # the rank, and not the server
    assert {call["visible"] for call in calls} == {"6,7"}
    assert "_cuda_setDevice" in {call["call"] for call in calls}
    assert record.worker is not None
    warnings = record.worker.warnings
    assert "spbench: ignored TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=1" in warnings
    assert not any("threads when it forked" in warning for warning in warnings)
    assert not any("No CUDA runtime" in warning for warning in warnings)
    variables = record.worker.variables
    assert variables["CUDA_VISIBLE_DEVICES"] == "6,7"
    assert variables["DS_ACCELERATOR"] == "cuda"
    assert "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE" not in variables
    assert "NCCL_HOSTID" not in variables
    assert record.timings_valid  # it may share GPUs, and does not

    shared = run_ranks(host, results, 3)
    assert not shared.timings_valid
    assert shared.worker is not None
    variables = shared.worker.variables
    assert variables["NCCL_HOSTID"] == f"spbench-{shared.errors[0].rank}"
    assert (variables["NCCL_SOCKET_IFNAME"], variables["NCCL_MAX_CTAS"]) == ("lo", "4")


def run_ranks(host: Host, results: Path, world: int) -> Record:
    """A trial of `world` ranks that may share GPUs."""
    comm = CommSpec(name="nccl", oversubscribe=True)
    configuration = configure(world=world, sp=1, gradient_check="off", comm=comm)
    trial = Trial(configuration=configuration, round=0)
    return host.run(trial, results, f"{world}-on-gpus")
