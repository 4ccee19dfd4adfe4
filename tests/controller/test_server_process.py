"""What a server's environment holds of the user's, by the kind of device."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.controller.interpreter import Interpreter
from bench.controller.server_process import _environment
from bench.trial import EnvironmentSpec

ASIDE = "SPBENCH_CUDA_VISIBLE_DEVICES"


def environment(device: str) -> dict[str, str]:
    spec = EnvironmentSpec(name="mine", python="/python")
    interpreter = Interpreter(spec, Path("/python"), Path("/extensions"), Path("/preload"))
    return _environment(interpreter, device, Path("/scratch"))


@pytest.mark.parametrize("user", [None, "", "2,3", "GPU-8932f937,GPU-1a2b3c4d"])
def test_gpus_are_hidden_from_a_server_and_the_users_value_is_put_aside(
    monkeypatch: pytest.MonkeyPatch, user: str | None
) -> None:
    monkeypatch.setenv(ASIDE, "of a server around us")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if user is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", user)
    on_gpus, on_cpu = environment("cuda"), environment("cpu")
    assert (on_gpus["CUDA_VISIBLE_DEVICES"], on_gpus.get(ASIDE)) == ("", user)
    assert (on_cpu["CUDA_VISIBLE_DEVICES"], on_cpu.get(ASIDE)) == ("", None)
    assert (on_gpus["DS_ACCELERATOR"], on_cpu["DS_ACCELERATOR"]) == ("cuda", "cpu")


@pytest.mark.parametrize("device", ["cuda", "cpu"])
@pytest.mark.parametrize("name", ["TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "NVIDIA_TF32_OVERRIDE"])
def test_variables_that_overrule_the_precision_are_dropped(
    monkeypatch: pytest.MonkeyPatch, device: str, name: str
) -> None:
    monkeypatch.setenv(name, "1")
    assert name not in environment(device)


@pytest.mark.parametrize(("user", "expected"), [(None, "PCI_BUS_ID"), ("FASTEST_FIRST",) * 2])
def test_cuda_numbers_cards_as_nvml_does_whose_cards_are_locked(
    monkeypatch: pytest.MonkeyPatch, user: str | None, expected: str
) -> None:
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    if user is not None:
        monkeypatch.setenv("CUDA_DEVICE_ORDER", user)
    assert environment("cuda")["CUDA_DEVICE_ORDER"] == expected
    assert environment("cpu").get("CUDA_DEVICE_ORDER") == user
