"""A GPU's time by its kernels, on a made-up trace: no GPU is needed to follow it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.worker.profiling.breakdown import Piece
from bench.worker.profiling.device import call_spans
from bench.worker.profiling.labels import Event, Labelled
from bench.worker.profiling.report import Share, read, write
from bench.worker.profiling.trace import TraceError
from tests.factories import configuration

NODE = "autograd::engine::evaluate_function: AttendBackward0"
MAIN, AUTOGRAD, STREAM, COMMUNICATION = 1, 2, 7, 8


def host(name: str, start: int, end: int, thread: int = MAIN, **more: object) -> Event:
    kind = "user_annotation" if name.startswith("spbench/") else "cpu_op"
    return Event(name, start, end, thread, kind)._replace(**more)  # type: ignore[arg-type]


def launch(start: int, number: int, thread: int = MAIN) -> Event:
    return Event("cudaLaunchKernel", start, start + 1, thread, "cuda_runtime", correlation=number)


def kernel(name: str, start: int, end: int, number: int, stream: int = STREAM) -> Event:
    return Event(name, start, end, stream, "kernel", correlation=number)


def share(rank: int, sent_at: int) -> Share:
    """A step of 100 ns: attention, its backward on another thread, an all-reduce beside both."""
    events = [
        host("spbench/step", 0, 100),
        host("spbench/attention", 1, 9),
        host("aten::attend", 2, 8, sequence=5),
        launch(3, 1),
        host(NODE, 10, 15, AUTOGRAD, sequence=5, node=True, forward_thread=MAIN),
        launch(11, 2, AUTOGRAD),
        host("spbench/collective/0 all_reduce", 16, 18, AUTOGRAD),
        launch(17, 3, AUTOGRAD),
        kernel("attend_forward", 5, 25, 1),
        kernel("attend_backward", 30, 50, 2),
        kernel("ncclDevKernel_AllReduce", sent_at, 80, 3, COMMUNICATION),
    ]
    made = {
        "name": "all_reduce",
        "phase": "backward",
        "ranks": [0, 1],
        "size": 64,
        "asynchronous": True,
        "completed_ns": None,
    }
    return Share(rank, events, [made], [100e-9], 90e-9)


def test_kernels_count_as_what_launched_them() -> None:
    found = read(share(0, sent_at=40))
    assert found.pieces == [
        Piece(0, 5, "idle"),
        Piece(5, 25, "attention"),
        Piece(25, 30, "idle"),
        Piece(30, 50, "attention"),  # beside the all-reduce, which is hidden there
        Piece(50, 80, "gradient_reduction", 0),
        Piece(80, 100, "idle"),
    ]
    assert (found.calls[0].entered, found.calls[0].left) == (40, 80)


def test_a_gpu_without_kernels_is_no_cpu() -> None:
    seen = share(0, sent_at=40)._replace(on_gpu=True)
    assert read(seen).pieces[0] == Piece(0, 5, "idle")
    blind = seen._replace(events=[e for e in seen.events if e.kind != "kernel"])
    with pytest.raises(TraceError, match="rank 0: the profiler saw no kernel on the GPU: CUPTI"):
        read(blind)
    assert read(blind._replace(on_gpu=False)).pieces  # on CPU there are none


def test_a_call_lasts_from_its_first_kernel_to_its_last() -> None:
    launched = {number: Labelled(0, 1, "all_to_all", 4, "") for number in (1, 2)}
    kernels = [kernel("copy", 30, 50, 2), kernel("send", 10, 20, 1), kernel("other", 60, 70, 3)]
    assert call_spans(kernels, launched) == {4: (10, 50)}


def test_waiting_and_hiding_on_two_devices(tmp_path: Path) -> None:
    c = configuration(world=2, sp=2, attention="local_attention_of_a_test")
    details = write(tmp_path / "traces" / "t.json.gz", [share(0, 40), share(1, 60)], c)
    by_rank = [row["seconds"] for row in details["breakdown"]]
    assert [round(s["waiting"] * 1e9) for s in by_rank] == [10, 0]  # 50 to 60
    assert [round(s["gradient_reduction"] * 1e9) for s in by_rank] == [20, 20]
    assert [round(s["idle"] * 1e9) for s in by_rank] == [30, 40]
    assert [round(row["transfer_s"] * 1e9) for row in details["overlap"]] == [20, 20]
    assert [row["unlaunched_s"] for row in details["breakdown"]] == [0.0, 0.0]
    assert "unknown" not in details["headline"]
    assert details["adds_up"] is True
    assert details["bytes_agree"] is None


def test_kernels_of_unknown_launch_are_told(tmp_path: Path) -> None:
    c = configuration(world=2, sp=2, attention="local_attention_of_a_test")
    shares = [share(0, 40), share(1, 60)]
    lost = [e for e in shares[0].events if e.kind != "cuda_runtime" or e.correlation != 2]
    shares[0] = shares[0]._replace(events=lost)
    details = write(tmp_path / "traces" / "t.json.gz", shares, c)
    # 20 of rank 0's 100 ns; headlines are means over ranks
    assert [row["unlaunched_s"] for row in details["breakdown"]] == pytest.approx([20e-9, 0.0])
    assert "kernels of unknown launch 10 %" in details["headline"]
