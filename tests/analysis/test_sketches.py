"""Two gradients by their sketches: against exact arithmetic, on paper, and from damaged files."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from analysis.compare import compare
from analysis.comparison_export import as_csv, as_json
from analysis.comparison_table import grids, render
from analysis.sentences import sentences
from analysis.sketch_files import SketchProblem, compare_files, read_sketch
from analysis.sketches import Sketch, SketchComparison, by_parameter, compare_sketches
from bench.cli import app
from tests.analysis.sides import UPGRADE, WORKAROUND, frame_of, timed
from tests.sketching import BUCKETS, save

LOCAL = {"environment": "torch-2.13", "loss": "local"}


def beside(
    folder: Path,
    candidate: dict[str, np.ndarray],
    baseline: dict[str, np.ndarray],
    **about: Any,
) -> SketchComparison:
    save(folder / "r.npz", baseline)
    return compare_files(save(folder / "g.npz", candidate, **about), folder / "r.npz")


def apart(seed: int, residual: float, scale: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """g and r [20,000] with |g - scale r| / |scale r| exactly `residual`, up to rounding."""
    random = np.random.default_rng(seed)
    r, e = random.standard_normal((2, 20_000))
    e -= (e @ r) / (r @ r) * r
    return scale * (r + residual * np.linalg.norm(r) / np.linalg.norm(e) * e), r


@pytest.mark.parametrize("residual", [1e-4, 1e-2, 1.0])
def test_estimates_err_by_as_much_as_they_say(tmp_path: Path, residual: float) -> None:
    """Over 40 gradients, errors in units of their own standard error have a spread of 1.

    The spread of 40 draws is within 0.7 to 1.3 in 99 of 100 cases; the seeds are fixed.
    """
    scales, residuals = [], []
    for seed in range(40):
        g, r = apart(seed, residual)
        found = beside(tmp_path, {"w": g}, {"w": r})
        assert found.scale is not None and found.scale_error is not None
        assert found.residual is not None and found.residual_error is not None
        scales.append((found.scale - 2.0) / (found.scale_error / 2))
        residuals.append((found.residual - residual) / (found.residual_error / 2))
        # two standard errors: of the norm of what is left, 1 / sqrt(2 · 4096), and of the scale
        right = 2 * np.sqrt(1 / (2 * BUCKETS) + residual**2 / BUCKETS)
        assert found.residual_error / found.residual == pytest.approx(right, rel=0.2)
    for errors in (scales, residuals):
        assert 0.7 < np.std(errors) < 1.3
        assert abs(np.mean(errors)) < 3 / np.sqrt(40)


def test_many_parameters_together_are_known_better_than_one(tmp_path: Path) -> None:
    """25 equal parts: a fifth of the error of each."""
    pairs = {f"w{index}": apart(index, 0.3) for index in range(25)}
    candidate = {name: g for name, (g, _) in pairs.items()}
    baseline = {name: r for name, (_, r) in pairs.items()}
    found = beside(tmp_path, candidate, baseline)
    assert found.residual == pytest.approx(0.3, rel=0.01)
    assert found.residual_error == pytest.approx(
        0.3 * 2 * np.sqrt((1 / 2 + 0.09) / BUCKETS / 25), rel=0.1
    )
    single = by_parameter(read_sketch(tmp_path / "g.npz"), read_sketch(tmp_path / "r.npz"))
    assert list(single) == list(pairs)
    assert all(one.residual == pytest.approx(0.3, rel=0.05) for one in single.values())


def test_a_single_wrong_element_cannot_hide(tmp_path: Path) -> None:
    """The difference is one element of 3, which one bucket holds whole: |e| = 3 exactly."""
    r = np.full(90_000, 0.1)  # of norm 30
    g = r.copy()
    g[77_777] += 3.0
    found = beside(tmp_path, {"w": g}, {"w": r})
    assert found.relative_error == pytest.approx(0.1, rel=1e-9)
    assert found.verdict == "differs"


def test_short_parameters_are_known_exactly(tmp_path: Path) -> None:
    """g = (2, 4, 1), r = (1, 2, 0): scale 10/5 = 2, left over (0, 0, 1), residual 1 / (2 √5)."""
    found = beside(tmp_path, {"n": np.array([2.0, 4.0, 1.0])}, {"n": np.array([1.0, 2.0, 0.0])})
    assert (found.verdict, found.reason) == ("differs", "another direction")
    assert (found.scale, found.scale_error, found.scale_label) == (2.0, 0.0, "×2")
    assert found.residual == pytest.approx(1 / (2 * np.sqrt(5)))
    assert found.residual_error == 0.0
    assert found.relative_error == pytest.approx(np.sqrt((1 + 4 + 1) / 5))


R = {"big": np.random.default_rng(1).standard_normal(20_000), "small": np.arange(1.0, 9.0)}


@pytest.mark.parametrize(
    ("change", "verdict", "reason"),
    [
        ({}, "match", ""),
        ({"big": 2 * R["big"], "small": 2 * R["small"]}, "scaled", ""),
        ({n: 1.005 * v for n, v in R.items()}, "scaled", ""),  # 0.1 % is allowed
        ({"big": -R["big"], "small": -R["small"]}, "differs", "another direction"),
        ({"small": 1.01 * R["small"]}, "differs", "another factor in small"),
        ({"small": R["small"][::-1]}, "differs", "another direction in small"),
        ({"small": 0 * R["small"]}, "differs", "small has no gradient in the candidate"),
        ({"big": R["big"] * np.nan}, "differs", "big is not finite in the candidate"),
        ({n: 0 * v for n, v in R.items()}, "none", "the candidate has no gradient at all"),
        ({"big": R["big"][1:]}, "not comparable", "the sketches are of different models"),
    ],
)
def test_verdicts(tmp_path: Path, change: dict[str, Any], verdict: str, reason: str) -> None:
    found = beside(tmp_path, {**R, **change}, R)
    assert found.verdict == verdict
    assert found.reason.startswith(reason) and bool(found.reason) == bool(reason)
    if verdict in ("match", "scaled"):
        factor = float(change["small"][0] / R["small"][0]) if change else 1
        assert found.scale_label == f"×{factor:g}"


def test_a_residual_may_be_off_by_its_own_error() -> None:
    """r = (1, 0, 0, 0) and g = r + (0, 1.3e-5, 0, 0), of 8 elements each.

    The residual is 1.3e-5, its relative error 2 · sqrt(2 / 4) / 2 = 0.71: so it may be 0.4e-5,
    where 1e-5 is allowed. Of 2.1e-4 that is no excuse.
    """
    baseline = _sketch(np.array([1.0, 0.0, 0.0, 0.0]))
    near, far = (_sketch(np.array([1.0, off, 0.0, 0.0])) for off in (1.3e-5, 2.1e-4))
    found = compare_sketches(near, baseline)
    assert (found.verdict, found.residual) == ("match", pytest.approx(1.3e-5))
    assert found.residual_error == pytest.approx(1.3e-5 * math.sqrt(0.5))
    assert compare_sketches(far, baseline).verdict == "differs"


def _sketch(sums: np.ndarray) -> Sketch:
    """Of one parameter, twice as many elements as sums."""
    return Sketch(
        names=("w",),
        sizes=(2 * len(sums),),
        sums=(sums,),
        squares=(float(sums @ sums),),
        spread=0.0,
        missing=(False,),
        version=1,
        buckets=len(sums),
        reference_key="",
        precision="float32",
    )


def test_bfloat16_may_be_further_away_than_float32(tmp_path: Path) -> None:
    """Tolerances: ten times eight roundoffs, 10 · 8 / 512 for bfloat16; 1e-5 for float32."""
    g, r = apart(0, 0.02, scale=1.0)
    assert beside(tmp_path, {"w": g}, {"w": r}).verdict == "differs"
    coarse = beside(tmp_path, {"w": g}, {"w": r}, dtype="bfloat16")
    assert (coarse.verdict, coarse.tolerance) == ("match", 80 / 512)
    tf32 = beside(tmp_path, {"w": g}, {"w": r}, matmul="tf32")
    assert (tf32.verdict, tf32.tolerance) == ("match", 80 / 2048)


@pytest.mark.parametrize(
    ("about", "reason"),
    [
        ({"buckets": 4095}, "its parts do not belong together"),
        ({"version": 2}, "version 2 is newer than this spbench"),
        ({"dtype": "int4"}, "unknown dtype int4"),
        ({"reference_key": "f" * 16}, "of different initial weights or data"),
    ],
)
def test_what_does_not_fit_is_said(tmp_path: Path, about: dict[str, Any], reason: str) -> None:
    found = beside(tmp_path, R, R, **about)
    assert found.verdict == "not comparable"
    assert reason in found.reason


def test_sketches_of_two_hashes_are_not_compared(tmp_path: Path) -> None:
    found = beside(tmp_path, R, R, version=0)
    assert found.reason == (
        "the sketches are of different kinds (hash version 0 with 4096 buckets, and 1 with 4096); "
        "run both with one version of spbench"
    )


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY", b"no archive", None])
def test_a_damaged_file_is_one_line(tmp_path: Path, content: bytes | None) -> None:
    path = save(tmp_path / "g.npz", R)
    path.write_bytes(path.read_bytes()[:-500] if content is None else content)
    with pytest.raises(SketchProblem, match=r"^the sketch g.npz is damaged \([^\n]+\)$"):
        read_sketch(path)
    found = compare_files(path, save(tmp_path / "r.npz", R))
    assert found.verdict == "not comparable" and found.reason.startswith("the sketch g.npz")


def pair(folder: Path, factor: float = 2.0, rounds: int = 2) -> Any:
    """Two sides of which the candidate's gradient is `factor` times the baseline's."""
    records = []
    for side, scale in ((WORKAROUND, 1.0), (UPGRADE, factor)):
        for record in timed(side, 1.0, rounds, gradient=None, gradient_check="sketch"):
            name = f"sketches/{record.trial_id}.npz"
            save(folder / name, {n: scale * v for n, v in R.items()})
            records.append(record.model_copy(update={"sketch": name, "sketch_version": 1}))
    return records


def test_a_comparison_tells_the_factor_without_a_reference(tmp_path: Path) -> None:
    found = compare(frame_of(tmp_path, pair(tmp_path)), WORKAROUND, UPGRADE)
    said = "By their sketches, the gradient of all_gather is ×2 that of the workaround"
    figures = "(scale 2 ± 0, residual 0 % ± 0 %); which is right they cannot tell."
    assert f"{said} {figures}" in sentences(found)
    details = grids(found)[1]
    assert details.header[-2:] == ["gradients", "by sketch"]
    assert details.rows[0][-2:] == ["– | –", "×2 (residual 0 % ± 0 %)"]
    row = next(csv.DictReader(io.StringIO(as_csv([found]))))
    assert (row["sketch_verdict"], float(row["sketch_scale"])) == ("scaled", 2.0)
    point = json.loads(as_json([found]))[0]["points"][0]
    assert point["sketch"]["scale_label"] == "×2"
    text = io.StringIO()
    render(found, Console(file=text, width=120, _environ={}))
    assert "by sketch" in text.getvalue()


@pytest.mark.parametrize(
    ("factor", "code", "said"),
    [
        (
            1.0,
            0,
            "match: by their sketches, the gradient of CANDIDATE is that of BASELINE (",
        ),
        (2.0, 0, "scaled: by their sketches, the gradient of CANDIDATE is ×2 that of BASELINE"),
        (-1.0, 1, "differs: by their sketches, the gradient of CANDIDATE is not a multiple of"),
    ],
)
def test_two_files_of_any_folders(tmp_path: Path, factor: float, code: int, said: str) -> None:
    files = [
        save(tmp_path / "today" / "g.npz", {n: factor * v for n, v in R.items()}),
        save(tmp_path / "yesterday" / "r.npz", R),
    ]
    done = CliRunner().invoke(app, ["sketch", *map(str, files)])
    assert done.exit_code == code
    assert done.output.startswith(said)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    right = save(tmp_path / "r.npz", R)
    done = CliRunner().invoke(app, ["sketch", str(tmp_path / "g.npz"), str(right)])
    assert (done.exit_code, done.output) == (2, "spbench: the sketch g.npz is missing\n")


def test_the_same_gradient_and_a_lost_file(tmp_path: Path) -> None:
    records = pair(tmp_path, 1.0)
    said = sentences(compare(frame_of(tmp_path, records), WORKAROUND, UPGRADE))
    assert any("the gradient of all_gather is that of the workaround" in one for one in said)
    lost = tmp_path / records[-2].sketch
    lost.unlink()
    said = sentences(compare(frame_of(tmp_path, []), WORKAROUND, UPGRADE))
    assert f"The sketches say nothing: the sketch {lost.name} is missing." in said


def test_one_sketch_alone_says_nothing(tmp_path: Path) -> None:
    records = pair(tmp_path)
    records = [*records[:2], *timed(UPGRADE, 1.0, 2, gradient=None, gradient_check="sketch")]
    found = compare(frame_of(tmp_path, records), WORKAROUND, UPGRADE)
    assert found.points[0].sketch is None
    assert not any("sketch" in sentence for sentence in sentences(found))
    assert "by sketch" not in grids(found)[1].header


def test_records_of_before_have_no_sketch(tmp_path: Path) -> None:
    frame = frame_of(tmp_path, timed(LOCAL, 1.0, 1))
    assert frame.sketch.isna().all()
