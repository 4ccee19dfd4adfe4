"""What records say of GPUs, from a pretended driver; nothing here has met a card."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from bench.controller import gpu_states, gpus
from bench.controller.gpu_states import GpuWatch, noise, summary
from bench.controller.provenance import MachineWatch
from bench.record import GpuReading, GpuState
from tests.controller.fake_nvml import MIB, FakeNvml, OldNvml, driver


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        (None, ["gpu0", "gpu1"]),
        ("1", ["gpu1"]),
        ("1,0", ["gpu1", "gpu0"]),
        ("GPU-bbb", ["gpu1"]),
        ("GPU-b", ["gpu1"]),
        ("GPU-", []),
        ("0,7,1", ["gpu0"]),
        ("-1", []),
        ("", []),
    ],
)
def test_visible_gpus(
    visible: str | None, names: list[str], nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus.visible_gpus() == names


def test_the_driver_says_its_version_and_its_cuda(nvml: FakeNvml) -> None:
    assert gpus.driver_version() == "550.54.15"
    assert gpus.cuda_of_driver() == (12, 4)


def test_strangers_on_a_gpu(nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    name = Path("/proc/1/comm").read_text().strip()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert gpus.strangers({os.getpid()}) == [f"{name} (1)"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert gpus.strangers({os.getpid()}) == []


def read_thrice(watch: GpuWatch, nvml: FakeNvml) -> None:
    """Three readings: hot, hotter and slowed down, cooler again."""
    for clock, power, temperature, reasons in (
        (1980, 690_000, 70, 0x4),
        (1200, 500_000, 88, 0x4 | 0x8 | 0x40),
        (1755, 650_000, 80, 0x4),
    ):
        nvml.sm_clock[0], nvml.power_mw[0] = clock, power
        nvml.temperature[0], nvml.reasons[0] = temperature, reasons
        watch.sample()


def test_a_gpu_before_and_during_the_steps(nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_states, "LEAST_PERIOD_S", 0.0)
    watch = GpuWatch()
    watch.begin()
    read_thrice(watch, nvml)
    nvml.ecc_errors[0] = 5
    first, second = watch.finish()
    assert (first.name, first.uuid, first.mig, first.ecc) == ("gpu0", "GPU-aaa", False, True)
    assert (first.compute_mode, first.power_limit_w) == ("default", 700.0)
    assert (first.sm_clock_limit_mhz, first.memory_bytes) == (1980, 81_559 * MIB)
    assert (first.ecc_errors, first.new_ecc_errors) == (2, 3)
    assert first.before == GpuReading(
        sm_clock_mhz=1980,
        memory_clock_mhz=2619,
        power_w=310.5,
        temperature_c=61,
        throttle_reasons=["power_cap"],
    )
    assert first.steps is not None
    assert first.steps.count == 3
    assert first.steps.sm_clock_mhz == (1200, 1755, 1980)
    assert first.steps.power_w == (500.0, 650.0, 690.0)
    assert first.steps.temperature_c == (70, 80, 88)
    assert first.steps.throttle_reasons == ["power_cap", "hw_slowdown", "hw_thermal_slowdown"]
    assert second.steps is not None and second.steps.throttle_reasons == ["idle"]
    assert noise([first, second], []) == [
        "GPU 0 was slowed down: hw_slowdown, hw_thermal_slowdown",
        "GPU 0: 3 uncorrected memory errors",
    ]


def test_a_cap_on_power_and_an_idle_gpu_are_no_noise(nvml: FakeNvml) -> None:
    watch = GpuWatch()
    watch.begin()
    watch.sample()
    states = watch.finish()
    assert [state.steps.throttle_reasons for state in states if state.steps] == [
        ["power_cap"],
        ["idle"],
    ]
    assert noise(states, []) == []


def test_memory_in_use_before_is_noise_unless_its_process_is_named() -> None:
    below = GpuState(memory_used_before_bytes=256 * MIB)
    above = GpuState(memory_used_before_bytes=700 * MIB)
    assert noise([below], []) == []
    assert noise([below, above], []) == ["GPU 1: 700 MiB were in use before"]
    assert noise([above], ["python (7)"]) == []  # `python (7)` is the reason then


def test_no_more_than_two_readings_a_second(nvml: FakeNvml) -> None:
    watch = GpuWatch()
    watch.begin()
    start = time.monotonic()
    for _ in range(50):
        watch.sample()
    most = 1 + (time.monotonic() - start) // gpu_states.LEAST_PERIOD_S
    for state in watch.finish():
        assert state.steps is not None and 1 <= state.steps.count <= most


def test_what_another_trial_showed_is_forgotten(nvml: FakeNvml) -> None:
    watch = GpuWatch()
    watch.begin()
    watch.sample()
    watch.begin()
    assert [state.steps for state in watch.finish()] == [None, None]


def test_what_a_card_does_not_say_is_null(monkeypatch: pytest.MonkeyPatch) -> None:
    with driver(monkeypatch, OldNvml()):
        watch = GpuWatch()
        watch.begin()
        watch.sample()
        states = watch.finish()
    said = states[0].model_dump(exclude_none=True)
    assert said == {
        "name": "gpu0",
        "before": {},
        "steps": {"count": 1, "throttle_reasons": []},
    }
    assert noise(states, []) == []


def test_without_a_driver_there_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "_load_nvml", lambda: None)
    watch = GpuWatch()
    watch.begin()
    watch.sample()
    assert watch.finish() == []
    assert gpus.cuda_of_driver() is None
    assert not gpus.mig()


def test_nothing_read_is_no_summary() -> None:
    assert summary([]) is None


def test_the_record_of_a_trial_has_them_and_the_reason(nvml: FakeNvml) -> None:
    nvml.pids = [[], []]
    nvml.reasons[1] = 0x80
    watch = MachineWatch()
    watch.begin()
    watch.in_steps()
    machine, reasons = watch.finish()
    assert [state.uuid for state in machine.gpu_states] == ["GPU-aaa", "GPU-bbb"]
    assert machine.gpus == ["gpu0", "gpu1"]
    assert "GPU 1 was slowed down: hw_power_brake" in reasons
