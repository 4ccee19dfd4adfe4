"""Cluster and model files: what is wrong with one is said in a line that names the field."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.prediction.files import CONF, cluster_named, model_named
from analysis.reading import AnalysisError
from bench.theory import Link

GOOD = (CONF / "cluster" / "h100.yaml").read_text()


def changed(folder: Path, old: str, new: str) -> str:
    assert old in GOOD
    path = folder / "mine.yaml"
    path.write_text(GOOD.replace(old, new, 1))
    return str(path)


def test_h100_is_what_its_data_sheet_says() -> None:
    described = cluster_named("h100")
    assert described is not None
    assert described.cluster.peak_flops == 989.5e12
    assert described.cluster.memory_bytes == 80e9
    assert described.cluster.intra == Link(450e9, 10e-6)
    assert 0 < described.assumed.attention < described.assumed.matmul < 1


@pytest.mark.parametrize("path", sorted((CONF / "cluster").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_cluster_that_ships_is_valid_and_named_as_its_file(path: Path) -> None:
    described = cluster_named(path.stem)
    assert (path.stem == "this-machine") == (described is None)
    assert described is None or described.cluster.name == path.stem


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("peak_flops: 989.5e12", "", "peak_flops: missing; add a line `peak_flops: NUMBER`"),
        ("memory_bytes: 80e9", "memory_bytes: -1", "memory_bytes=-1: input should be greater"),
        ("memory_bandwidth: 3.35e12", "memory_bandwidth: 0", "memory_bandwidth=0: input should"),
        ("memory_bytes: 80e9", "memory_bytes: .nan", "memory_bytes=nan: input should be"),
        ("memory_bytes: 80e9", "memory_bytes: much", "memory_bytes=much: input should be"),
        ("{bandwidth: 50e9, latency_s: 25e-6}", "{bandwidth: 50e9}", "inter.latency_s: missing"),
        ("gpus_per_node: 8", "gpus_per_nod: 8", "gpus_per_node: missing"),
        ("name: h100", "name: h100\npeak: 3", "peak: unknown field; allowed: name, gpus_per_node"),
        ("matmul: 0.70", "matmul: 1.70", "assumed.matmul=1.7: input should be less than or equal"),
    ],
)
def test_a_bad_field_is_named(old: str, new: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(AnalysisError) as refused:
        cluster_named(changed(tmp_path, old, new))
    text = str(refused.value)
    assert text.startswith("cluster file mine.yaml: ") and said in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("content", "said"), [("a: [", "is no YAML"), ("- 1\n- 2\n", "holds no `field: value` lines")]
)
def test_what_is_no_cluster_file(content: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(content)
    with pytest.raises(AnalysisError, match=said) as refused:
        cluster_named(str(path))
    assert "\n" not in str(refused.value)


def test_unknown_names_get_the_nearest_one() -> None:
    with pytest.raises(AnalysisError, match=r"--cluster h10: unknown.*did you mean 'h100'\?"):
        cluster_named("h10")
    with pytest.raises(AnalysisError, match=r"--model 8bb: unknown.*did you mean '8b'\?"):
        model_named("8bb")


def test_checkpointing_is_a_property_of_the_model() -> None:
    assert not model_named("8b").activation_checkpointing
    assert model_named("8b", checkpointing=True).activation_checkpointing
