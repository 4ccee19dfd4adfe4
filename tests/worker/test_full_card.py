"""What a rank tells of its GPU where a library could not start, with a pretended `torch.cuda`."""

from __future__ import annotations

import json
import os
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from bench.worker import process

NOT_STARTED = "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"


def free_bytes(monkeypatch: pytest.MonkeyPatch, message: str, device: str, answer: Any) -> Any:
    def mem_get_info(device: object) -> tuple[int, int]:
        if answer is None:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return answer, 80 << 30

    torch = SimpleNamespace(cuda=SimpleNamespace(mem_get_info=mem_get_info))
    monkeypatch.setitem(sys.modules, "torch", torch)
    rank: Any = SimpleNamespace(device=SimpleNamespace(type=device))
    return process._device_free_bytes(rank, message)


@pytest.mark.parametrize(
    ("message", "device", "answer", "found"),
    [
        (NOT_STARTED, "cuda", 7, 7),
        (NOT_STARTED, "cuda", None, None),
        (NOT_STARTED, "cpu", 7, None),
        ("CUDA error: an illegal memory access was encountered", "cuda", 7, None),
    ],
    ids=["full card", "CUDA is lost", "on CPU", "another error"],
)
def test_free_memory_is_asked_where_the_message_leaves_it_open(
    monkeypatch: pytest.MonkeyPatch, message: str, device: str, answer: Any, found: Any
) -> None:
    assert free_bytes(monkeypatch, message, device, answer) == found


def test_it_is_in_what_a_rank_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """`run_rank` in a forked process, whose set-up raises and which then waits for its end."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        process.die_with = lambda server: None

        def fails(rank: Any) -> None:
            rank.device = SimpleNamespace(type="cuda")
            raise RuntimeError(NOT_STARTED)

        process._prepare = fails
        torch = SimpleNamespace(cuda=SimpleNamespace(mem_get_info=lambda device: (5, 80 << 30)))
        sys.modules["torch"] = torch  # type: ignore[assignment]
        process.run_rank(0, SimpleNamespace(), None, 0, write, 0)  # type: ignore[arg-type]
    os.close(write)
    with os.fdopen(read) as pipe:
        error = json.loads(pipe.readline())["error"]
    os.kill(child, 9)
    os.waitpid(child, 0)
    assert (error["device_free_bytes"], error["message"]) == (5, NOT_STARTED)
