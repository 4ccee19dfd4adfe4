"""The fingerprint holds all that Python imports, and worker and controller agree on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bench.controller.code import DISK, Disk
from bench.worker.code import Imported
from tests import factories


@pytest.mark.environment
def test_nothing_that_a_rank_imports_is_missing(run_inside: Callable[..., Any]) -> None:
    found = run_inside("torch-2.13", "modules.py")
    assert len(found) == 7
    assert {scenario: missing for scenario, missing in found.items() if missing} == {}


@pytest.mark.parametrize("scenario", ["train", "profile", "collectives", "recipe"])
def test_worker_and_controller_say_the_same(scenario: str) -> None:
    configuration = factories.configuration(scenario=scenario)
    imported = Imported()
    found = imported.fingerprint(configuration)
    assert found["code"] == DISK.code_of(configuration)
    assert found["reference"] == DISK.reference_code()
    assert imported.stamps == Disk().stamps()
    assert imported.fingerprint(configuration) == found  # what the fork parsed is remembered
