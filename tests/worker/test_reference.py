"""The exact reference: by layers it is what the whole graph gives; its files keep their form."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import TINY, configure

pytestmark = pytest.mark.environment

INITIAL_WEIGHTS = "20c2279f29b2593df7696ba30b61276002a0d9f7de55431dae20561f0c62bd00"
"""SHA-256 of `weights.npy` of TINY, seed 0, from before it was written parameter by parameter."""

CASES: list[dict[str, Any]] = [
    {"mask": "none", "world": 2},
    {"mask": "prompt", "world": 2, "model": TINY.model_copy(update={"kv_heads": 8, "layers": 1})},
    {"mask": "empty_shard", "world": 2, "model": TINY.model_copy(update={"kv_heads": 1})},
    {"mask": "ragged", "world": 1, "sp": 1, "seq_len": 6},  # less than a block
    {"mask": "ragged", "world": 1, "sp": 1, "seq_len": 63},  # blocks and tiles without a rest
    {"micro_batch": 2, "world": 2},
    {"micro_batch": 2, "model": TINY.model_copy(update={"layers": 3})},  # dp 2
]


def cases() -> str:
    """74 tokens are no multiple of the blocks of 7, the tiles of 9 and the loss tiles of 5."""
    made = [configure(**{"seq_len": 74, "zero": 1, **case}) for case in CASES]
    return json.dumps([one.model_dump(mode="json") for one in made])


@pytest.fixture(scope="module", params=["torch-2.2", "torch-2.13"])
def found(request: pytest.FixtureRequest, run_inside: Callable[..., Any]) -> Any:
    """What `tests/inside/reference_layers.py` found in one environment."""
    return run_inside(request.param, "reference_layers.py", cases())


def test_by_layers_it_is_the_same(found: Any) -> None:
    for case, apart in zip(CASES, found["apart"], strict=True):
        assert apart < 1e-10, case


def test_the_comparison_sees_what_would_be_wrong(found: Any) -> None:
    """In the last case, which has 4 sequences."""
    assert len(found["faults"]) == 3
    for fault, apart in found["faults"].items():
        assert apart > 1e-2, fault


def test_the_token_mean_is_one_cross_entropy_over_the_whole_batch(found: Any) -> None:
    """In the last case, dp 2: by its own key or beside the replica mean, whole or by layers."""
    definitions = found["definitions"]
    assert definitions.pop("replica mean") > 1e-2
    assert len(definitions) == 4
    for way, apart in definitions.items():
        assert apart < 1e-10, way


def test_noise_by_layers_is_that_of_the_whole(found: Any) -> None:
    for dtype, (whole, layers) in found["noise"].items():
        assert layers == pytest.approx(whole, rel=0.3), dtype
    assert 1e-7 < found["noise"]["torch.float32"][0] < 1e-6
    assert 1e-3 < found["noise"]["torch.bfloat16"][0] < 2e-2


def test_files_have_one_form(found: Any) -> None:
    whole, layers = found["files"]["whole"], found["files"]["layers"]
    for one in (whole, layers):
        kinds = [name.split("-")[0] for name in one["names"]]
        assert kinds == ["gradient", "gradient.npy", "noise", "reference.json", "weights.npy"]
        assert one["names"][0] == "gradient-other.npy"
        assert one["names"][2].startswith("noise-float32-2.")
        assert one["missing"] == []
        assert one["how"]["reference"] == "replica_mean"
        assert one["how"]["other"]["reference"] == "token_mean"
        assert one["how"]["other"]["distance"] > 1e-2
    assert whole["gradient"] == layers["gradient"]
    assert (whole["how"]["by"], layers["how"]["by"]) == ("whole", "layers")
    assert layers["how"]["loss"] == pytest.approx(whole["how"]["loss"], rel=1e-12)
    assert layers["how"]["device"] == "cpu"
    assert layers["how"]["peak_bytes"] > 0
    # gradient and noise: embedding, 3 layers forward, the loss, 3 layers backward, 4 sequences
    assert (whole["beats"], layers["beats"]) == (0, 2 * 4 * 8)
    assert found["weights"] == INITIAL_WEIGHTS


def test_a_file_appears_whole_or_not_at_all(found: Any) -> None:
    assert found["failures"] == [["OSError", "MemoryError"], []]


def test_memory_is_what_theory_allows(found: Any) -> None:
    assert len(found["memory"]) == 5
    for shape, share in found["memory"].items():
        assert 0.5 < share <= 1.0, shape


def test_on_a_gpu_by_name_only(found: Any) -> None:
    """Simulated: which device is asked for, in what precision, and what the files are called."""
    gpu = found["gpu"]
    assert gpu["names"] == [
        "noise-float32-TORCH-cuda-NVIDIA_H100_80GB-tf32.json",
        "noise-float32-TORCH-cuda-NVIDIA_H100_80GB.json",
        "noise-bfloat16-TORCH-cuda-NVIDIA_H100_80GB-tf32-flash.json",
    ]
    assert len(gpu["files"]) == 4
    assert gpu["missing"] == ["noise"]  # with another precision
    assert gpu["calls"][0][:2] == ["torch.float64", "cuda:0"]
    assert gpu["calls"][1] == ["torch.float32", "cuda:0", "high"]
    assert gpu["device"] == "NVIDIA H100 80GB"
