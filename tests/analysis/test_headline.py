"""The first lines: what a person acts on."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from analysis.headline import MOST, headline, render
from bench.record import Record, Status
from tests.analysis.sides import (
    BETWEEN,
    OLD_ALL_GATHER,
    TWICE,
    UPGRADE,
    WORKAROUND,
    broken,
    frame_of,
    timed,
)
from tests.factories import failed, gradient, ok

FOUR = gradient(verdict="scaled", scale=4.0, scale_label="×4")


def lines(folder: Path, records: list[Record], *again: str) -> list[str]:
    return [line.signed for line in headline(folder, frame_of(folder, records), again)]


def quick() -> list[Record]:
    """The default sweep: ×2 at sp=2, ×4 at sp=4, an IndexError on the old torch at sp=2."""
    records = []
    for sp in (2, 4):
        records += timed(WORKAROUND, 1.0, sp=sp)
        records += timed(BETWEEN, 0.8, sp=sp)
        records += timed(UPGRADE, 0.8, sp=sp, gradient=FOUR if sp == 4 else TWICE)
    records += broken(OLD_ALL_GATHER, sp=2)
    records += timed(OLD_ALL_GATHER, 1.0, sp=4, gradient=FOUR)
    return records


def test_the_default_sweep_in_four_lines(tmp_path: Path) -> None:
    assert lines(tmp_path, quick()) == [
        "✗ all_gather at ZeRO 1 on torch-2.2, torch-2.13: gradient 2 × too large (sp=2), "
        "4 × too large (sp=4): do not train with this; use weighted_all_reduce "
        "(right, no slower within 0.1 %)",
        "✕ all_gather on torch-2.2 at sp=2 fails: IndexError in backward, ranks 2,3: "
        "tuple index out of range (3 of 3 trials)",
        "= upgrading runs at 1.25 (1.25 to 1.25, faster) times the speed of the workaround, with "
        "a wrong gradient, with 1.00 times the peak memory; times are emulated on gloo",
        f"→ spbench show {tmp_path} --failures",
    ]


def test_what_is_right_is_said_with_its_reference(tmp_path: Path) -> None:
    records = [*timed(WORKAROUND, 1.0), *timed(UPGRADE, 1.0)]
    first, cost, following = lines(tmp_path, records)
    assert first == (
        "✓ the gradient is right in all 2 configurations where it was compared with the exact "
        "float64 reference (replica_mean)"
    )
    assert cost.startswith("= upgrading runs at 1.00 (1.00 to 1.00, no difference seen) times")
    assert following == f"→ spbench report {tmp_path}"


def test_an_alternative_that_is_wrong_somewhere_is_not_proposed(tmp_path: Path) -> None:
    records = [
        *timed(UPGRADE, 1.0, gradient=TWICE, zero=1),
        *timed(UPGRADE, 1.0, gradient=TWICE, zero=2),
        *timed(BETWEEN, 1.0, gradient=TWICE, zero=1),
        *timed(BETWEEN, 1.0, gradient=TWICE, zero=2),
    ]
    [first, second, *_] = lines(tmp_path, records)
    assert "at ZeRO 1, 2 on torch-2.13: gradient 2 × too large: do not train" in first
    assert first.endswith(
        "no aggregation in this folder is right there (spbench doctor looks for one that is)"
    )
    assert second.startswith("✗ weighted_all_reduce at ZeRO 1, 2")


def test_an_alternative_for_some_places_says_for_how_many(tmp_path: Path) -> None:
    records = [
        *timed(UPGRADE, 1.0, gradient=TWICE, zero=1),
        *timed(UPGRADE, 1.0, gradient=TWICE, zero=2),
        *timed(BETWEEN, 1.0, zero=1),
        *broken(BETWEEN, zero=2),
    ]
    assert lines(tmp_path, records)[0].endswith(
        "weighted_all_reduce is right in 1 of these 2 configurations"
    )


def test_a_slower_alternative_says_by_how_much(tmp_path: Path) -> None:
    records = [*timed(UPGRADE, 1.0, gradient=TWICE), *timed(BETWEEN, 1.5)]
    [first, *_] = lines(tmp_path, records)
    assert first.endswith("use weighted_all_reduce (right, 1.50 times slower)")


def test_what_nobody_compared_is_not_called_right(tmp_path: Path) -> None:
    records = [ok(gradient=None, gradient_reason="not compared: no memory for it")]
    assert lines(tmp_path, records)[0] == (
        "? nobody knows whether the gradient is right: it was not compared (no memory for it)"
    )


def test_too_few_rounds_propose_the_command_with_more(tmp_path: Path) -> None:
    records = [*timed(WORKAROUND, 1.0, 1), *timed(UPGRADE, 1.0, 1)]
    assert lines(tmp_path, records)[-1] == "→ the same sweep with rounds=3 allows a verdict"
    assert lines(tmp_path, [], "seq_len=64", "rounds=1")[-1] == (
        "→ spbench sweep seq_len=64 rounds=3 allows a verdict"
    )


def test_nothing_that_ran_leads_to_the_failures(tmp_path: Path) -> None:
    found = lines(tmp_path, [*broken(WORKAROUND), *broken(UPGRADE)])
    assert found[-1] == f"→ spbench show {tmp_path} --failures"
    assert not any(line.startswith(("✓", "?", "=")) for line in found)


def test_never_more_than_five_lines(tmp_path: Path) -> None:
    losses = ("all_gather", "local", "local_mean", "functional_all_reduce")
    records = [ok(loss=loss, gradient=TWICE) for loss in losses]
    records += [failed(Status.OOM, loss=loss, seq_len=4096) for loss in losses]
    records += [failed(loss="local", seq_len=8192)]
    found = lines(tmp_path, records)
    assert len(found) == MOST
    assert found[2] == f"✗ wrong too: local, local_mean (spbench audit {tmp_path})"
    assert found[-1].startswith("→ ")


def test_a_log_gets_each_line_whole(tmp_path: Path) -> None:
    text = io.StringIO()
    render(headline(tmp_path, frame_of(tmp_path, quick())), Console(file=text, width=40))
    written = text.getvalue().splitlines()
    assert len(written) == 5 and written[-1] == ""
    assert written[0].startswith("✗ all_gather at ZeRO 1") and len(written[0]) > 100
