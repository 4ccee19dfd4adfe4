"""Which records are rounds of one result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.identity import NOTHING, UNKNOWN, Identity, identity_of
from tests import factories

REFERENCE = Path(__file__).parents[2] / "results" / "reference"


def content() -> dict[str, Any]:
    """A record as a reader parses it."""
    made: dict[str, Any] = json.loads(factories.ok().model_dump_json())
    return made


def test_the_identity_says_code_versions_and_machine() -> None:
    record = content()
    record["code"] = {"worker": "b" * 8, "loss": "a" * 8}
    record["machine"].update(cpu="EPYC", cores=2, gpus=["H100", "H100"], nodes=2, transport="IB")
    record["worker"].update(torch="2.13.0+cpu", deepspeed="0.18.2", driver="550.1")
    assert identity_of(record) == Identity(
        "loss=aaaaaaaa worker=bbbbbbbb",
        "torch 2.13.0+cpu, deepspeed 0.18.2",
        "EPYC, 2 cores, 2 x H100, 2 nodes, driver 550.1, IB",
    )


def test_two_hosts_of_one_kind_are_one_class() -> None:
    one, other = content(), content()
    other["machine"]["hostname"] = "another"
    assert identity_of(one) == identity_of(other)


@pytest.mark.parametrize("path", sorted(REFERENCE.glob("records-*.jsonl")))
def test_records_before_version_3_do_not_say_which_code_ran(path: Path) -> None:
    for line in path.read_text().splitlines():
        record = json.loads(line)
        expected = UNKNOWN if record["worker"] else NOTHING
        assert identity_of(record).code == expected


def test_a_trial_in_which_nothing_ran_has_no_identity() -> None:
    record = {**content(), "status": "unsupported", "worker": None, "machine": None}
    assert identity_of(record) == (NOTHING, NOTHING, NOTHING)
