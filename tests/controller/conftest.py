"""Fixtures of the controller's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.controller.fake_nvml import FakeNvml, driver


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeNvml]:
    """Two GPUs in place of this machine's own."""
    with driver(monkeypatch, FakeNvml()) as found:
        yield found
