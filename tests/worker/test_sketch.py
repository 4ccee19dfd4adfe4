"""Sketches of gradients, made by real ranks, beside the same arithmetic in NumPy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from analysis.sketch_files import compare_files, read_sketch
from analysis.sketches import SketchComparison
from bench.record import Record, Status
from bench.trial import CommSpec
from tests.conftest import TINY, RunTrial, configure
from tests.sketching import sketch_of

pytestmark = pytest.mark.environment

Inside = Callable[..., Any]

WIDE = TINY.model_copy(update={"vocab": 160, "ffn": 176, "layers": 1})
"""embedding and head of 10,240 elements, q and o of 4,096, k and v of 2,048, ffn of 11,264."""


DEFAULTS: dict[str, Any] = {
    "model": WIDE,
    "gradient_check": "sketch",
    "comm": CommSpec(name="gloo"),
    "world": 2,
}
JOBS: dict[str, dict[str, Any]] = {
    "zero 0": {"zero": 0},
    "zero 1": {"zero": 1},  # parts end in the middle of a parameter
    "zero 2": {"zero": 2},
    "zero 3": {"zero": 3, "world": 3, "sp": 1},  # so that the last part is padded
    "bfloat16": {"zero": 1, "dtype": "bfloat16"},
    "zero 1, unseen": {"zero": 1, "fault": "share_unseen"},
    "zero 3, unseen": {"zero": 3, "world": 3, "sp": 1, "fault": "share_unseen"},
    "zero 0, sign": {"zero": 0, "fault": "sign_flipped"},
    "zero 1, sign": {"zero": 1, "fault": "sign_flipped"},
    "zero 3, lost": {"zero": 3, "world": 3, "sp": 1, "fault": "share_lost"},
}
RIGHT = [name for name, fields in JOBS.items() if fields.get("fault", "") in ("", "share_unseen")]


class Made(NamedTuple):
    """What one run of `tests/inside/sketches.py` left."""

    folder: Path
    hashes: dict[str, Any]

    def sketch(self, job: str) -> Path:
        return self.folder / "sketches" / f"{job}.npz"


@pytest.fixture(scope="module")
def made(run_inside: Inside, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """All jobs, on the newer torch."""
    return make(run_inside, tmp_path_factory.mktemp("sketches"), "torch-2.13", list(JOBS))


def make(inside: Inside, folder: Path, environment: str, names: list[str]) -> Made:
    jobs = {}
    for name in names:
        fields = {**DEFAULTS, **JOBS[name]}
        fault = fields.pop("fault", "")
        jobs[name] = (configure(environment, **fields).model_dump(mode="json"), fault)
    return Made(folder, inside(environment, "sketches.py", str(folder), json.dumps(jobs)))


def test_the_hash_is_splitmix64(made: Made) -> None:
    def unsigned(name: str) -> list[int]:
        return [value % 2**64 for value in made.hashes[name]]

    # the generator's published outputs
    assert unsigned("splitmix64(0)")[0] == 0xE220A8397B1DCDAF
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert unsigned("splitmix64(1234567)") == published
    assert unsigned("later") == published[3:]
    assert made.hashes["key"] == 0x45804DF600689837  # printf head.weight | sha256sum


def test_a_sketch_is_linear_and_keeps_short_vectors(made: Made) -> None:
    vector = np.arange(1.0, 9001.0)
    assert made.hashes["whole"] == sketch_of("head.weight", vector).tolist()
    assert made.hashes["added"] == made.hashes["whole"]
    assert made.hashes["short"] == [0.0, 5.0, 7.0, 0.0]
    assert made.hashes["bfloat16"] != made.hashes["whole"]  # from 257 on most are rounded


@pytest.mark.parametrize("job", RIGHT)
def test_the_parts_add_up_to_the_sketch_of_the_whole(made: Made, job: str) -> None:
    _assert_whole(made, job)


def test_older_torch_makes_the_same_sketch(made: Made, run_inside: Inside, tmp_path: Path) -> None:
    old = make(run_inside, tmp_path, "torch-2.2", ["zero 1"])
    assert old.hashes == made.hashes
    _assert_whole(old, "zero 1")
    assert brief(compare_files(old.sketch("zero 1"), made.sketch("zero 1"))) == "match ×1"


def _assert_whole(made: Made, job: str) -> None:
    found, whole = read_sketch(made.sketch(job)), np.load(made.folder / f"{job}.npz")
    assert list(found.names) == whole.files
    assert not any(found.missing)
    assert found.spread < 1e-12
    for index, name in enumerate(found.names):
        right = sketch_of(name, whole[name])
        assert found.sizes[index] == whole[name].size
        error = np.linalg.norm(found.sums[index] - right) / np.linalg.norm(right)
        assert error < 1e-12, name
        assert found.squares[index] == pytest.approx((whole[name] ** 2).sum(), rel=1e-12)


@pytest.mark.parametrize("job", ["zero 1, sign", "zero 3, lost"])
def test_a_fault_in_one_ranks_share_is_seen(made: Made, job: str) -> None:
    right, wrong = made.sketch(job.partition(",")[0]), made.sketch(job)
    assert compare_files(right, right).verdict == "match"
    assert compare_files(wrong, right).verdict == "differs"


def test_ranks_that_hold_different_gradients_are_told(made: Made) -> None:
    """Without ZeRO each rank has all of it: g and -g, whose mean is 0, so both are far away."""
    path = made.sketch("zero 0, sign")
    assert read_sketch(path).spread > 1e6
    found = compare_files(path, path)
    assert found.verdict == "differs"
    assert found.reason == "the ranks of the candidate hold different gradients"


@pytest.fixture
def sketched(run_trial: RunTrial, results: Path) -> Callable[..., Path]:
    """The sketch that a trial through the controller left."""

    def run(environment: str = "torch-2.13", **fields: Any) -> Path:
        record = run_trial(configure(environment, gradient_check="sketch", **fields))
        return path_of(record, results)

    return run


def path_of(record: Record, results: Path) -> Path:
    assert record.status is Status.OK, record.reason
    assert (record.gradient_mode, record.gradient, record.sketch_version) == ("sketch", None, 1)
    assert record.sketch == f"sketches/{record.trial_id}.npz"
    return results / record.sketch


def brief(found: SketchComparison) -> str:
    return f"{found.verdict} {found.scale_label}"


def test_trials_are_compared_as_the_exact_mode_says(sketched: Callable[..., Path]) -> None:
    """What DeepSpeed 0.18.2 was measured to do with the exact reference, without it."""
    base = sketched(zero=1)
    assert read_sketch(base).names[0] == "embedding.weight"
    for fields, expected in (
        ({"zero": 0}, "match ×1"),
        ({"zero": 2}, "match ×1"),
        ({"zero": 3}, "scaled ×1/2"),
        ({"zero": 1, "loss": "all_gather"}, "scaled ×2"),
        ({"zero": 3, "loss": "all_gather"}, "match ×1"),
        ({"zero": 1, "environment": "torch-2.2"}, "match ×1"),
        ({"zero": 1, "loss": "local_mean"}, "differs"),
    ):
        found = compare_files(sketched(**fields), base)
        assert brief(found).startswith(expected), (fields, found)
        if expected != "differs":
            assert found.residual is not None and found.residual < 1e-5
    coarse = compare_files(sketched(zero=1, dtype="bfloat16"), base)
    assert brief(coarse) == "match ×1"
    assert coarse.residual is not None and 1e-3 < coarse.residual < 0.05


def test_splits_of_one_batch_agree(sketched: Callable[..., Path]) -> None:
    wide = sketched(world=4, sp=4)
    narrow = sketched(world=2, sp=2, zero=2)
    assert brief(compare_files(wide, narrow)) == "match ×1"
    other = compare_files(wide, sketched(world=4, sp=2))
    assert other.verdict == "not comparable"  # two replicas: twice the data
    assert other.reason == (
        "the sketches are of different initial weights or data, so gradients must differ"
    )


def test_the_file_names_what_it_was_made_of(sketched: Callable[..., Path]) -> None:
    about = json.loads(str(np.load(sketched())["about"]))
    assert about == {
        "version": 1,
        "buckets": 4096,
        "reference_key": configure().reference_key,
        "dtype": "float32",
        "matmul": "highest",
        "world": 4,
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields",
    [
        {"dtype": "bfloat16", "deepspeed": {"data_types": {"grad_accum_dtype": "fp32"}}},
        {"zero": 2, "deepspeed": {"zero_optimization": {"offload_optimizer": {"device": "cpu"}}}},
        {"zero": 3, "loss": "all_gather", "dtype": "bfloat16"},
        {"zero": 2, "deepspeed": {"zero_optimization": {"reduce_scatter": False}}},
    ],
    ids=str,
)
def test_wherever_deepspeed_keeps_the_gradient(
    sketched: Callable[..., Path], fields: dict[str, Any]
) -> None:
    assert brief(compare_files(sketched(**fields), sketched())) == "match ×1"


SEEN = {
    "untouched": "match ×1",
    "times_sp": "scaled ×2",
    "scale_1_01": "scaled ×1.01",
    "no_gradient": "none",
    "rank_dropped": "differs",
    "own_shard_only": "differs",
    "boundary_label_dropped": "differs",
    "positions_restarted": "differs",
    "stale_key_value": "differs",
    "not_causal": "differs",
    "parameter_zero": "differs",
    "nan_in_one_element": "differs",
}
"""What a faulty trial's sketch says beside that of one without fault."""


@pytest.mark.slow
def test_every_mutation_is_seen_beside_a_right_trial(sketched: Callable[..., Path]) -> None:
    right = sketched(zero=1, mask="none")
    for name, expected in SEEN.items():
        options = {"mutation": name}
        wrong = sketched(scenario="mutation", zero=1, mask="none", options=options)
        assert brief(compare_files(wrong, right)).startswith(expected), name


def test_the_mutations_are_all_there_are() -> None:
    from tests.worker.test_mutations import EXPECTED

    assert list(SEEN) == list(EXPECTED)


@pytest.mark.environment
def test_a_sketch_that_cannot_be_written_costs_no_measurement(
    run_trial: RunTrial, results: Path
) -> None:
    folder = results / "sketches"
    aside = folder.rename(results / "aside") if folder.exists() else None
    folder.touch()  # no folder can be made there
    try:
        record = run_trial(configure(gradient_check="sketch", seed=4))
    finally:
        folder.unlink()
        if aside is not None:
            aside.rename(folder)
    assert (record.status, record.sketch) == (Status.OK, None)
    assert record.samples and record.gradient_reason is not None
    assert record.gradient_reason.startswith("not compared: the sketch ")
    assert record.gradient_reason.endswith("could not be written: File exists")
