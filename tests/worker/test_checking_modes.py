"""Which fault the directional comparison sees: its column of docs/correctness-at-scale.md."""

from __future__ import annotations

import re
from typing import Any

import pytest

from bench.record import Record, Status
from tests.conftest import ROOT, RunTrial, configure
from tests.worker.test_mutations import EXPECTED

DOCUMENT = ROOT / "docs" / "correctness-at-scale.md"

DIRECTIONAL = {
    "untouched": "match",
    "times_sp": "scaled ×2",
    "scale_1_01": "scaled ×1.01",
    "no_gradient": "none",
    "rank_dropped": "wrong",
    "own_shard_only": "match",
    "boundary_label_dropped": "wrong",
    "positions_restarted": "match",
    "stale_key_value": "match",
    "not_causal": "match",
    "parameter_zero": "wrong",
    "nan_in_one_element": "wrong",
}
"""Faults of the forward pass are moved along with it, and at the initial weights the gradient
hardly depends on which keys attention sees."""


def rows_of_the_table() -> dict[str, list[str]]:
    """Fault to its cells in the document."""
    lines = re.findall(r"^\| `(\w+)` \| (.+) \|$", DOCUMENT.read_text(), re.MULTILINE)
    return {name: cells.split(" | ") for name, cells in lines if name in EXPECTED}


def test_the_document_says_what_is_tested() -> None:
    table = rows_of_the_table()
    assert list(table) == list(EXPECTED)
    for name, cells in table.items():
        expected = (EXPECTED[name].removesuffix(" ×1"), DIRECTIONAL[name])
        assert tuple(cells[:2]) == expected, name


def mutate(run_trial: RunTrial, name: str, mode: str) -> Record:
    fields: dict[str, Any] = {"zero": 1, "mask": "none", "options": {"mutation": name}}
    record = run_trial(configure(scenario="mutation", gradient_check=mode, **fields))
    assert record.status is Status.OK, record.reason
    return record


@pytest.mark.environment
@pytest.mark.slow
@pytest.mark.parametrize("name", DIRECTIONAL)
def test_what_directional_sees(run_trial: RunTrial, name: str) -> None:
    found = mutate(run_trial, name, "directional").gradient
    assert found is not None and found.mode == "directional"
    label = f" {found.scale_label}" if found.verdict == "scaled" else ""
    assert found.verdict + label == DIRECTIONAL[name]
