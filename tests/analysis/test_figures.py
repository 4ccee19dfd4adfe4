"""Figures: what they draw is what the records say, and missing data never stops them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis import figures
from analysis.figures.gradient import audit, gradient_table
from analysis.figures.lines import expected_bytes
from analysis.figures.scaling import efficiencies
from analysis.figures.style import FAILED_HATCH, HATCH, LOSS_COLOURS, STRUCK, finish, grid
from analysis.frame import load, samples
from bench.record import Record, Status
from bench.trial import CommSpec
from tests.factories import environment, failed, gradient, ok, write

OLD = environment("torch-2.2", "2.2.2")
GLOO = CommSpec(name="gloo")
BASELINE = {"environment": "torch-2.2", "loss": "weighted_all_reduce"}
CANDIDATE = {"environment": "torch-2.13", "loss": "all_gather"}

Draw = Callable[[pd.DataFrame, Path], Figure]
EVERY: dict[str, Draw] = {
    "cost": lambda frame, _: figures.cost(frame, BASELINE, CANDIDATE),
    "throughput": lambda frame, _: figures.throughput(frame),
    "phases": lambda frame, _: figures.phases(frame),
    "memory": lambda frame, _: figures.memory(frame),
    "gradient_audit": lambda frame, _: figures.gradient_audit(frame),
    "gradient_matrix": lambda frame, _: figures.gradient_matrix(frame),
    "step_times": lambda frame, folder: figures.step_times(frame, samples(folder)),
    "scaling": lambda frame, _: figures.scaling(frame),
}


def both_sides(rounds: int = 3, **fields: object) -> list[Record]:
    """The workaround on the old torch at 0.5 s a step, all_gather on the new one at 0.4 s."""
    return [
        record
        for r in range(rounds)
        for record in (
            ok(round=r, step_s=0.5, environment=OLD, loss="weighted_all_reduce", **fields),
            ok(round=r, step_s=0.4, loss="all_gather", **fields),
        )
    ]


FOLDERS: dict[str, list[Record]] = {
    "one trial": [ok()],
    "one point": both_sides(),
    "one round": both_sides(rounds=1),
    "one environment": [ok(seq_len=n, round=r) for n in (512, 1024) for r in range(3)],
    "all failed": [
        failed(environment=spec, loss=loss, seq_len=n)
        for n in (512, 1024)
        for spec, loss in ((OLD, "weighted_all_reduce"), (environment(), "all_gather"))
    ],
    "no worker at all": [failed(Status.ENVIRONMENT, worker=None, machine=None)],
    "one side failed": [
        *(failed(round=r, environment=OLD, loss="weighted_all_reduce") for r in range(3)),
        *(ok(round=r, loss="all_gather") for r in range(3)),
    ],
    "some rounds failed": [*both_sides(), failed(round=3, loss="all_gather")],
    "no gradient": both_sides(gradient=None),
    "no numbers in the gradient": both_sides(
        gradient=gradient(verdict="none", scale=None, scale_label="", relative_error=None)
    ),
    "no memory, no phases": both_sides(memory=[], samples=[]),
    "timings not valid": both_sides(comm=CommSpec(name="nccl", oversubscribe=True)),
    "names that are markup": [
        ok(
            environment=environment("hostile").model_copy(update={"name": "a$b$<i>_^{\x07"}),
            loss="$x^",
            seq_len=64,
        )
    ],
    "many losses": [ok(loss=f"loss-{n}") for n in range(24)],
    "many splits": [
        ok(loss=loss, zero=zero, mask=mask, sp=sp)
        for loss in ("all_gather", "local")
        for zero in range(4)
        for mask in ("none", "ragged", "prompt")
        for sp in (1, 2, 4)
    ],
}


def folder_of(tmp_path: Path, *records: Record) -> Path:
    write(tmp_path, *records)
    return tmp_path


@pytest.mark.parametrize("records", FOLDERS.values(), ids=FOLDERS)
@pytest.mark.parametrize("draw", EVERY.values(), ids=EVERY)
def test_every_figure_copes_with_whatever_there_is(
    draw: Draw, records: list[Record], tmp_path: Path
) -> None:
    folder = folder_of(tmp_path, *records)
    figure = draw(load(folder), folder)
    kind, image = figures.rendered(figure)
    assert len(image) > 1000 and kind in ("image/svg+xml", "image/png")
    assert "\x07" not in str(image)
    assert figure.texts[0].get_text()
    assert len(figures.alt_text(figure)) > 20


@pytest.mark.parametrize("draw", EVERY.values(), ids=EVERY)
def test_every_figure_says_that_all_trials_failed(draw: Draw, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, *FOLDERS["all failed"])
    text = figures.alt_text(draw(load(folder), folder))
    assert "failed" in text.lower() or "IndexError" in text or "not known" in text


def axes_of(figure: Figure, title: str) -> Axes:
    [found] = [ax for ax in figure.axes if ax.get_title() == title or ax.get_title("left") == title]
    return found


def test_throughput_draws_the_median_of_the_rounds_and_their_interval(tmp_path: Path) -> None:
    times = (0.5, 0.4, 0.25)  # 2 replicas of 512 tokens: 2048, 2560 and 4096 tokens/s
    folder = folder_of(tmp_path, *(ok(round=r, step_s=s) for r, s in enumerate(times)))
    figure = figures.throughput(load(folder))
    [bars] = axes_of(figure, "sp=2 dp=2").containers
    assert list(bars[0].get_ydata()) == pytest.approx([2560])
    [(low, high)] = [segment[:, 1] for segment in bars[2][0].get_segments()]
    assert (low, high) == pytest.approx((2048, 4096))
    assert (
        figure.texts[0]
        .get_text()
        .replace("\n", " ")
        .startswith("The highest throughput is 2,560 tokens/s: torch-2.13 all_gather")
    )


def test_a_loss_has_the_same_colour_in_every_figure(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, *both_sides())
    frame = load(folder)
    for draw in ("throughput", "memory", "step_times"):
        [legend] = EVERY[draw](frame, folder).legends
        found = {text.get_text(): line for text, line in zip(legend.texts, legend.get_lines())}
        assert found["torch-2.13 all_gather"].get_color() == LOSS_COLOURS["all_gather"]
        assert found["torch-2.2 weighted_all_reduce"].get_color() == "#E69F00"
        assert found["torch-2.2 weighted_all_reduce"].get_linestyle() == "--"


def test_emulated_timings_are_hatched_and_said_to_be(tmp_path: Path) -> None:
    for comm, emulated in ((GLOO, False), (CommSpec(name="nccl_over_gloo"), True)):
        folder = folder_of(tmp_path / comm.name, *both_sides(comm=comm))
        frame = load(folder)
        for name in ("throughput", "step_times"):
            figure = EVERY[name](frame, folder)
            assert [ax.patch.get_hatch() for ax in figure.axes] == [HATCH if emulated else None]
        bars = [bar for group in figures.phases(frame).axes[0].containers[:4] for bar in group]
        assert {bar.get_hatch() for bar in bars} == {HATCH if emulated else None}
        cells = figures.cost(frame, BASELINE, CANDIDATE).axes[0].patches
        assert [cell.get_hatch() for cell in cells] == [HATCH if emulated else ""]
        for name in ("cost", "throughput", "phases", "step_times"):
            assert ("emulated" in figures.alt_text(EVERY[name](frame, folder))) is emulated, name


def test_timings_on_a_shared_gpu_are_said_to_be_invalid(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, *FOLDERS["timings not valid"])
    for name in ("cost", "throughput", "phases", "step_times"):
        text = figures.alt_text(EVERY[name](load(folder), folder))
        assert "not valid" in text or "invalid" in text, name


def test_phases_stack_in_order_and_the_diamond_is_the_step(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, ok(step_s=0.5), ok(loss="local", step_s=0.25))
    figure = figures.phases(load(folder))
    ax = axes_of(figure, "sp=2 dp=2")
    first = [bar for bar in ax.patches if abs(bar.get_y() + bar.get_height() / 2) < 0.1]
    # 40, 10, 30 and 20 % of 500 ms
    assert [bar.get_width() for bar in first] == pytest.approx([200, 50, 150, 100])
    assert [bar.get_x() for bar in first] == pytest.approx([0, 200, 250, 400])
    diamonds = [line.get_xdata()[0] for line in ax.lines if line.get_marker() == "D"]
    assert diamonds == pytest.approx([500, 250])
    assert figures.alt_text(figure).startswith("The loss aggregation takes 10.0 % of a step")


def test_memory_stands_beside_the_theory(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, ok(zero=0))
    frame = load(folder)
    # tiny: 2 layers of 2·64·16·(4+2) + 3·64·128 = 36,864; embedding and head 2·256·64; 5·64 norms
    parameters = 2 * 36_864 + 2 * 16_384 + 320
    state = parameters * (4 + 8)  # gradients come later than the peak
    # a token: norms 2·12·64, attention 4·(64 + 32 + 3·64 + 2·64), SwiGLU 4·4·128, log-sum-exp 4·4
    layer = 256 * (1536 + 1664 + 2048 + 16)  # 256 tokens a rank
    last_norm = 256 * 12 * 64
    logits = 3 * 4 * 256 * 256
    expected = state + 2 * layer + last_norm + logits
    assert expected_bytes(frame.iloc[0]) == expected
    ax = axes_of(figures.memory(frame), "sp=2 dp=2")
    drawn = [list(line.get_ydata()) for line in ax.lines]
    assert [expected / 2**20] in drawn  # theory
    assert [4.0] in drawn  # the last rank's 4 MiB
    assert ax.get_ylim()[0] == 0 and ax.get_ylim()[1] > expected / 2**20


def test_the_audit_shows_the_worst_of_each_cell(tmp_path: Path) -> None:
    twice = gradient(verdict="scaled", scale=2.0, scale_label="×2", relative_error=1.0)
    wrong = gradient(verdict="wrong", scale=0.3, scale_label="0.3", relative_error=0.9)
    folder = folder_of(
        tmp_path,
        ok(seq_len=512),
        ok(seq_len=1024, gradient=twice),
        ok(sp=4, gradient=wrong),
        failed(loss="local"),
        ok(loss="local", round=1),
        failed(loss="local_mean"),
    )
    cells = audit(load(folder))
    assert cells["torch-2.13 all_gather", "sp=2 dp=2"] == ("scaled", "×2\nerror 1.0e+00")
    assert cells["torch-2.13 all_gather", "sp=4 dp=1"] == ("wrong", "0.3\nerror 9.0e-01")
    local = ("match", "×1\nerror 1.0e-06\n✕ 1 of 2 failed")
    assert cells["torch-2.13 local", "sp=2 dp=2"] == local
    crossed = ("failed", "IndexError in backward, ranks 2,3")
    assert cells["torch-2.13 local_mean", "sp=2 dp=2"] == crossed
    figure = figures.gradient_audit(load(folder))
    title = figure.texts[0].get_text().replace("\n", " ")
    assert title == (
        "The gradient is right in 1 of 3 cases; it is not with torch-2.13 all_gather; "
        "1 failed before it was known"
    )
    tiles = figure.axes[0].patches
    assert [tile.get_hatch() for tile in tiles].count(FAILED_HATCH) == 1
    assert to_hex("#F2C14E") in {to_hex(tile.get_facecolor()) for tile in tiles}


def test_the_cost_is_the_paired_ratio_with_its_verdict(tmp_path: Path) -> None:
    folder = folder_of(
        tmp_path,
        *both_sides(),
        *(failed(round=r, sp=4, environment=OLD, loss="weighted_all_reduce") for r in range(3)),
        *(ok(round=r, sp=4, loss="all_gather") for r in range(3)),
    )
    figure = figures.cost(load(folder), BASELINE, CANDIDATE)
    [ax] = figure.axes
    texts = {text.get_text() for text in ax.texts}
    # 0.5 s against 0.4 s in every round: 1.25, and no scatter
    assert "1.25\n1.25 … 1.25\nfaster\ngradient ×1 → ×1" in texts
    assert any(text.startswith("no number\nbaseline: IndexError in backward") for text in texts)
    assert sorted(str(tile.get_hatch()) for tile in ax.patches) == sorted([HATCH, FAILED_HATCH])
    assert "1.25 times the throughput" in figure.texts[0].get_text().replace("\n", " ")


def test_a_comparison_without_sides_says_so(tmp_path: Path) -> None:
    figure = figures.cost(load(folder_of(tmp_path, ok())), BASELINE, CANDIDATE)
    assert figures.alt_text(figure).startswith("No comparison of torch-2.13 all_gather over")


def test_step_times_are_the_slowest_ranks_by_round(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, ok(round=0, step_s=0.5), ok(round=1, step_s=0.6))
    figure = figures.step_times(load(folder), samples(folder))
    [ax] = figure.axes
    [points] = [line for line in ax.lines if len(line.get_xdata())]
    assert sorted(set(points.get_ydata())) == pytest.approx([500, 600])
    assert len(points.get_ydata()) == 10
    assert "varies by up to 20 %" in figures.alt_text(figure)


def test_strong_scaling_is_speed_per_rank_beside_the_fewest_ranks(tmp_path: Path) -> None:
    records = [
        ok(round=r, world=world, sp=world, step_s=step_s)
        for r in range(3)
        for world, step_s in ((1, 1.0), (2, 0.5), (4, 0.3125))
        if world > 1
    ]
    found = {(e.kind, e.world): e for e in efficiencies(load(folder_of(tmp_path, *records)))}
    # 512 tokens on 2 ranks in 0.5 s, on 4 in 0.3125 s: 1.6 times as fast on twice the ranks
    assert found.keys() == {("strong", 4)}
    one = found["strong", 4]
    assert (one.value, one.low, one.high, one.fewest) == pytest.approx((0.8, 0.8, 0.8, 2))


def test_weak_scaling_by_replicas_and_by_longer_sequences(tmp_path: Path) -> None:
    replicas = [
        ok(round=r, world=world, sp=2, step_s=step_s)
        for r in range(3)
        for world, step_s in ((2, 0.5), (4, 0.625))
    ]
    [one] = efficiencies(load(folder_of(tmp_path / "replicas", *replicas)))
    assert (one.kind, one.value) == ("weak", pytest.approx(0.8))
    longer = [
        ok(round=r, world=world, sp=world, seq_len=256 * world, step_s=step_s)
        for r in range(3)
        for world, step_s in ((2, 0.5), (4, 1.0))
    ]
    [one] = efficiencies(load(folder_of(tmp_path / "longer", *longer)))
    # FLOPs a token: 6·(2·36,864 + 256·64) + 12·2·4·16·(S+1)/2; twice the tokens, twice the ranks
    per_token = {s: 6 * (2 * 36_864 + 16_384) + 768 * (s + 1) for s in (512, 1024)}
    assert math.isclose(one.value, per_token[1024] / per_token[512] * 0.5)
    assert one.kind == "weak"


def test_two_rounds_are_no_scaling(tmp_path: Path) -> None:
    records = [ok(round=r, world=world, sp=world, step_s=1.0) for r in range(2) for world in (2, 4)]
    frame = load(folder_of(tmp_path, *records))
    assert efficiencies(frame) == []
    assert "Fewer than 3 rounds in common" in figures.alt_text(figures.scaling(frame))


def test_too_few_rounds_are_no_heat_map(tmp_path: Path) -> None:
    two = figures.cost(load(folder_of(tmp_path / "two", *both_sides(2))), BASELINE, CANDIDATE)
    assert figures.alt_text(two).startswith("Too few rounds for ratios of torch-2.13 all_gather")
    assert "2 in common, 3 are needed" in figures.alt_text(two)
    # Three that scatter by e^0.5: 4.3027 * 0.5 / sqrt(3) = 1.242, so up to e^1.242 times e^0.223.
    wild = [
        one.model_copy(update={"round": r})
        for r, step_s in enumerate((0.4, 0.4 * math.exp(0.5), 0.4 * math.exp(-0.5)))
        for one in (
            ok(step_s=0.5, environment=OLD, loss="weighted_all_reduce"),
            ok(step_s=step_s, loss="all_gather"),
        )
    ]
    figure = figures.cost(load(folder_of(tmp_path / "wild", *wild)), BASELINE, CANDIDATE)
    assert not figure.axes or not figure.axes[0].patches
    assert "Differences up to 4.3 × cannot be ruled out" in figures.alt_text(figure)


def test_a_cell_of_too_few_rounds_has_no_ratio_and_no_colour(tmp_path: Path) -> None:
    records = [*both_sides(3), *both_sides(2, seq_len=1024)]
    figure = figures.cost(load(folder_of(tmp_path, *records)), BASELINE, CANDIDATE)
    [ax] = figure.axes
    texts = [text.get_text() for text in ax.texts]
    assert any(text.startswith("too few rounds\n2 in common") for text in texts)
    assert to_hex("white") in {to_hex(tile.get_facecolor()) for tile in ax.patches}
    assert "1.25 times the throughput" in figures.alt_text(figure)
    assert sum(text.startswith("1.25") for text in texts) == 1


def test_drawing_leaves_the_users_settings_alone(tmp_path: Path) -> None:
    import matplotlib

    with matplotlib.rc_context({"font.size": 23.0}):
        figures.throughput(load(folder_of(tmp_path, ok())))
        assert matplotlib.rcParams["font.size"] == 23.0


def test_a_directional_verdict_has_no_error_and_unknown_losses_are_left_out(tmp_path: Path) -> None:
    unknown: dict[str, None] = dict.fromkeys(
        ["relative_error", "residual", "reference_loss", "loss"]
    )
    found = gradient(mode="directional", **unknown)
    write(tmp_path, ok(gradient=found, gradient_mode="directional"))
    frame = load(tmp_path)
    [cell] = audit(frame).values()
    assert cell.text == "×1 (directional)"
    [row] = gradient_table(frame).to_dict("records")
    assert (row["verdict"], row["relative error"]) == ("match (directional)", "")
    assert (row["loss"], row["reference's"]) == ("", "")


TWICE = gradient(verdict="scaled", scale=2.0, scale_label="×2")


def struck(ax: Axes) -> list[tuple[float, float]]:
    """Points that are struck through."""
    return [
        (float(x), float(y))
        for line in ax.lines
        if to_hex(line.get_color()) == STRUCK.lower()
        for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
    ]


def test_a_wrong_gradient_is_never_the_highest_throughput(tmp_path: Path) -> None:
    # 1,024 tokens a step: 2,048 tokens/s at 0.5 s with a right gradient, 2,560 with one of ×2
    records = [ok(step_s=0.5, loss="weighted_all_reduce"), ok(step_s=0.4, gradient=TWICE)]
    write(tmp_path, *records)
    figure = figures.throughput(load(tmp_path))
    said = figure.get_label()
    assert said.startswith(
        "The highest throughput with a right gradient is 2,048 tokens/s: "
        "torch-2.13 weighted_all_reduce"
    )
    assert "torch-2.13 all_gather at 512: 2,560 (gradient ×2)" in said
    assert "Struck through: the gradient is wrong" in said
    [(_, y)] = struck(figure.axes[0])
    assert y == pytest.approx(2560)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["torch-2.13 all_gather (✗ gradient ×2)", "torch-2.13 weighted_all_reduce"]


def test_without_a_right_gradient_no_throughput_is_praised(tmp_path: Path) -> None:
    write(tmp_path / "wrong", ok(gradient=TWICE))
    said = figures.throughput(load(tmp_path / "wrong")).get_label()
    assert said.startswith("No throughput counts: whatever has a time has a wrong gradient")
    write(tmp_path / "unknown", ok(gradient=None))
    said = figures.throughput(load(tmp_path / "unknown")).get_label()
    assert "(its gradient was not compared)" in said


def test_bars_of_a_wrong_gradient_are_struck_through(tmp_path: Path) -> None:
    write(tmp_path, ok(step_s=0.5, loss="weighted_all_reduce"), ok(step_s=0.4, gradient=TWICE))
    figure = figures.phases(load(tmp_path))
    assert struck(figure.axes[0]) == [(0.0, 0.0), (400.0, 0.0)]
    labels = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert labels == ["512 · torch-2.13 all_gather ✗ ×2", "512 · torch-2.13 weighted_all_reduce"]


def test_the_fastest_split_has_no_wrong_gradient(tmp_path: Path) -> None:
    write(tmp_path, ok(sp=4, step_s=0.2, micro_batch=2, gradient=TWICE), ok(sp=2, step_s=0.5))
    said = figures.splits(load(tmp_path)).get_label()
    assert said.startswith("Splits are not compared: of the longest sequences the gradients are")


def test_a_faster_candidate_with_a_wrong_gradient_is_pale_and_struck_through(
    tmp_path: Path,
) -> None:
    def drawn(name: str, **fields: object) -> Figure:
        write(
            tmp_path / name,
            *(ok(round=r, step_s=0.5, environment=OLD, loss=BASELINE["loss"]) for r in range(3)),
            *(ok(round=r, step_s=0.4, **fields) for r in range(3)),
        )
        return figures.cost(load(tmp_path / name), BASELINE, CANDIDATE)

    right, wrong = drawn("right"), drawn("wrong", gradient=TWICE)
    assert "(1 faster)" in right.get_label()
    assert "(1 faster with a wrong gradient)" in wrong.get_label()
    assert (len(struck(right.axes[0])), len(struck(wrong.axes[0]))) == (0, 2)
    pale, full = (one.axes[0].patches[0].get_facecolor() for one in (wrong, right))
    assert min(pale[:3]) > min(full[:3])


def test_no_label_of_a_legend_is_cut_off() -> None:
    text = "torch-2.13 weighted_all_reduce (✗ gradient ×1/2, ×1/4), and more of the same"
    for longest in (10, 16, 24, 42, 75):
        figure, _ = grid(1, [1.0])
        lines = [Line2D([], [], marker="o", label=text[:longest]) for _ in range(4)]
        finish(figure, "a title", legend=lines)
        figure.draw_without_rendering()
        assert figure.legends[0].get_window_extent().x1 <= figure.bbox.x1, longest
