"""What a comparison says in words."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from analysis.compare import compare
from analysis.sentences import label, sentences
from bench.record import Record
from tests.analysis.sides import (
    BETWEEN,
    OLD_ALL_GATHER,
    TWICE,
    UPGRADE,
    WORKAROUND,
    broken,
    frame_of,
    question,
    timed,
)
from tests.factories import gradient


def said(tmp_path: Path, *records: object, sides: tuple[dict[str, str], ...] = ()) -> list[str]:
    baseline, candidate = sides or (WORKAROUND, UPGRADE)
    return sentences(compare(frame_of(tmp_path, records), baseline, candidate))  # type: ignore[arg-type]


def test_the_question_is_answered(tmp_path: Path) -> None:
    assert sentences(compare(question(tmp_path), WORKAROUND, UPGRADE)) == [
        "Upgrading is torch-2.13 with all_gather; "
        "the workaround is torch-2.2 with weighted_all_reduce.",
        "At 512 tokens, upgrading is 2.00 (2.00 to 2.00) times faster than the workaround, "
        "with a wrong gradient.",
        "At 2,048 tokens, no difference seen; differences of more than 0 % are ruled out.",
        "Over the 2 points where both have numbers (3 rounds each), upgrading runs at 1.41 "
        "(1.41 to 1.41) times the speed of the workaround: faster, with wrong gradients.",
        "Over the 2 points where the configuration in between has numbers too (3 rounds each), "
        "total 1.41 (1.41 to 1.41) = environment torch-2.2 → torch-2.13 with "
        "loss=weighted_all_reduce: 1.12 (1.12 to 1.12) × loss weighted_all_reduce → "
        "all_gather with environment=torch-2.13: 1.26 (1.26 to 1.26).",
        "The workaround's gradient is right and all_gather's is twice too large.",
        "Times are of torch's NCCL code path emulated on gloo: they say nothing about NCCL on "
        "GPUs.",
    ]


def test_a_failure_is_said_with_its_place_and_cause(tmp_path: Path) -> None:
    found = sentences(compare(question(tmp_path), OLD_ALL_GATHER, UPGRADE))
    assert found[:3] == [
        "Nowhere do both sides have a number, so nothing is said about speed.",
        "Torch-2.2 with all_gather has no number: error in 3 of 3 "
        "(IndexError in backward, ranks 2,3).",
        "The gradient of torch-2.2 with all_gather was not compared and that of torch-2.13 with "
        "all_gather is twice too large.",
    ]


def test_slower_is_the_inverse(tmp_path: Path) -> None:
    # Logarithms scatter by 0.01 and reach 4.3027 * 0.01 / sqrt(3) = 0.0248: 1.25 e^±0.0248.
    steps = (1.25, 1.2625, 1.2375)
    slow = [timed(UPGRADE, step_s)[r] for r, step_s in enumerate(steps)]
    found = said(tmp_path, *timed(WORKAROUND, 1.0), *slow)
    assert found[1] == "Upgrading is 1.25 (1.22 to 1.28) times slower than the workaround."


def test_several_points_give_a_range(tmp_path: Path) -> None:
    records = [
        record
        for seq_len, step_s in ((512, 0.8), (1024, 0.5), (2048, 1.0))
        for record in (
            *timed(WORKAROUND, 1.0, seq_len=seq_len),
            *timed(UPGRADE, step_s, seq_len=seq_len),
        )
    ]
    found = said(tmp_path, *records)
    assert found[1] == (
        "Up to 1,024 tokens, upgrading is 1.25 to 2.00 times faster than the workaround."
    )


def test_what_could_be_hidden_is_said(tmp_path: Path) -> None:
    # Logarithms of the ratios 0.0, 0.02 and -0.02: reach 4.3027 * 0.02 / sqrt(3) = 0.0497, so
    # 5.1 %. For 2 % it takes 7 rounds: 2.4469 * 0.02 / sqrt(7) = 0.0185 <= ln 1.02 = 0.0198.
    slow = [timed(UPGRADE, step_s, 3)[r] for r, step_s in enumerate((1.0, 0.980199, 1.020201))]
    found = said(tmp_path, *timed(WORKAROUND, 1.0), *slow)
    assert found[1] == (
        "No difference seen; differences up to 5.1 % cannot be ruled out with 3 rounds; "
        "about 7 rounds would show 2 %."
    )


def test_precise_enough_but_too_small_to_matter(tmp_path: Path) -> None:
    # Logarithms 0.010, 0.015 and 0.020 reach 4.3027 * 0.005 / sqrt(3) = 0.0124: up to e^0.0274.
    steps = (0.990050, 0.985112, 0.980199)
    fast = [timed(UPGRADE, step_s)[r] for r, step_s in enumerate(steps)]
    found = said(tmp_path, *timed(WORKAROUND, 1.0), *fast)
    assert found[1] == (
        "No difference seen; differences up to 2.8 % cannot be ruled out with 3 rounds."
    )


def test_too_few_rounds_are_no_verdict(tmp_path: Path) -> None:
    found = said(tmp_path, *timed(WORKAROUND, 1.0, 2), *timed(UPGRADE, 0.1, 2))
    assert found[1] == "Too few rounds for a verdict: 2 in common, 3 are needed."


def noisy(side: dict[str, str], logs: list[float], **fields: object) -> list[Record]:
    """Trials whose speed in each round is e^log times that of `timed(…, 1.0)`."""
    steps = [math.exp(-log) for log in logs]
    every = [timed(side, step_s, len(steps), **fields) for step_s in steps]
    return [trials[r] for r, trials in enumerate(every)]


def test_rounds_that_are_not_independent_are_said(tmp_path: Path) -> None:
    # Deviations of -4.5 … 4.5 hundredths: correlation 57.75 / 82.5, so 10 count as 10 * 0.3 / 1.7.
    rising = [0.01 * r for r in range(10)]
    found = said(tmp_path, *timed(WORKAROUND, 1.0, 10), *noisy(UPGRADE, rising))
    assert found[1].startswith("No difference seen; differences up to ")
    assert found[1].endswith(
        "; rounds are not independent: neighbours correlate by 0.70, so 10 rounds count as 1.8."
    )


def test_rounds_that_count_as_independent_are_said(tmp_path: Path) -> None:
    swinging = [0.01, -0.01] * 5
    found = said(tmp_path, *timed(WORKAROUND, 1.0, 10), *noisy(UPGRADE, swinging))
    assert found[-1] == (
        "Neighbouring rounds correlate by -0.90, not significantly, and count as independent."
    )


@pytest.mark.parametrize(
    ("rounds", "points", "each", "left_out"),
    [
        pytest.param(3, 16, "3 to 10 rounds each", "", id="weighs-less"),
        pytest.param(
            2, 15, "10 rounds each", "; 1 point with fewer than 3 rounds left out", id="no"
        ),
    ],
)
def test_one_short_point_never_costs_the_sentence(
    tmp_path: Path, rounds: int, points: int, each: str, left_out: str
) -> None:
    records = [
        record
        for place in range(16)
        for side, step_s in ((WORKAROUND, 1.0), (UPGRADE, 0.5))
        for record in timed(side, step_s, rounds if place == 9 else 10, seq_len=64 * (place + 1))
    ]
    found = said(tmp_path, *records)
    assert (
        f"Over the {points} points where both have numbers ({each}), upgrading runs at 2.00 "
        f"(2.00 to 2.00) times the speed of the workaround: faster{left_out}." in found
    )


def test_too_few_rounds_are_not_split_into_effects(tmp_path: Path) -> None:
    # Two rounds; and three that scatter by 30 %, whose interval reaches to e^(4.3027 * 0.3 / 1.73).
    wild = [-0.3, 0.0, 0.3]
    for index, (rounds, logs) in enumerate(((2, [0.0, 0.0]), (3, wild))):
        records = [
            *timed(WORKAROUND, 1.0, rounds),
            *noisy(BETWEEN, logs),
            *timed(UPGRADE, 0.9, rounds),
        ]
        comparison = compare(frame_of(tmp_path / str(index), records), WORKAROUND, UPGRADE)
        assert comparison.decomposition is comparison.points[0].decomposition is None
        assert not any("in between" in one for one in sentences(comparison))


def test_some_failures_among_numbers_are_said(tmp_path: Path) -> None:
    upgrade = [*timed(UPGRADE, 0.5, 5)[:4], broken(UPGRADE, 5)[4]]
    found = said(tmp_path, *timed(WORKAROUND, 1.0, 5), *upgrade)
    assert (
        "Upgrading left no number in some trials: error in 1 of 5 "
        "(IndexError in backward, ranks 2,3)." in found
    )


def test_a_configuration_that_was_not_run_is_said(tmp_path: Path) -> None:
    records = [*timed(WORKAROUND, 1.0, seq_len=512), *timed(UPGRADE, 1.0, seq_len=2048)]
    found = said(tmp_path, *records)
    assert "At 2,048 tokens, the workaround was not run." in found
    assert "At 512 tokens, upgrading was not run." in found


def test_gradients_in_words(tmp_path: Path) -> None:
    cases = {
        "scaled ×1/2": "half of what it should be",
        "scaled ×1/4": "1/4 of what it should be",
        "scaled ×4": "4 times too large",
        "scaled 0.37": "0.37 of what it should be",
        "wrong ×1": "wrong in direction",
        "none ×0": "missing",
    }
    for index, (case, words) in enumerate(cases.items()):
        verdict, scale = case.split()
        other = gradient(verdict=verdict, scale_label=scale)
        records = [*timed(WORKAROUND, 1.0), *timed(UPGRADE, 1.0, gradient=other)]
        found = said(tmp_path / str(index), *records)
        assert f"The workaround's gradient is right and all_gather's is {words}." in found


def test_gradients_that_agree(tmp_path: Path) -> None:
    records = [*timed(WORKAROUND, 1.0, gradient=TWICE), *timed(UPGRADE, 1.0, gradient=TWICE)]
    assert "Both gradients are twice too large." in said(tmp_path, *records)


def test_noise_is_said(tmp_path: Path) -> None:
    records = [*timed(WORKAROUND, 1.0, noisy=["load 9.0"]), *timed(UPGRADE, 1.0)]
    assert said(tmp_path, *records)[-1] == (
        "3 of 6 trials ran while the machine was not quiet; they count."
    )


def test_labels() -> None:
    assert label(UPGRADE) == "torch-2.13 with all_gather"
    assert label({"loss": "local"}) == "local"
    assert label({"environment": "a", "zero": "1", "sp": "2"}) == "a zero=1 sp=2"


def test_what_a_gradient_was_judged_by_is_said_and_why_it_was_not(tmp_path: Path) -> None:
    proxy = {"gradient": gradient(mode="proxy"), "gradient_mode": "proxy"}
    lacks = {"gradient": None, "gradient_mode": "off", "gradient_reason": "not compared: 3 h"}
    baseline = timed(WORKAROUND, 1.0, **proxy)
    assert (
        "The workaround's gradient is right (2-layer proxy) and all_gather's was not compared."
        in (found := said(tmp_path, *baseline, *timed(UPGRADE, 1.0, **lacks)))
    )
    assert "Gradients not compared: 3 h." in found
