"""Published results: their arithmetic, and the page that is made of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.theory import marginal_rate, rate, total_parameters
from benchmarks.published import PAGE, Series, page, predicted_memory_bytes, series


@pytest.fixture(scope="module")
def every() -> dict[str, Series]:
    return {one.entry["name"]: one for one in series()}


def test_parameters_are_the_published_ones(every: dict[str, Series]) -> None:
    # Qwen3-4B: 4,022,468,096 with tied embeddings (ours are not), 36 * 2 * 128 of norms on q, k.
    qwen = every["HF baseline"].model
    assert total_parameters(qwen) - 151936 * 2560 + 36 * 2 * 128 == 4_022_468_096
    assert total_parameters(every["torchtitan, CP 1"].model) == 8_030_261_248


def test_step_times_follow_from_throughput(every: dict[str, Series]) -> None:
    steps = [one.step_s for one in every["HF Ulysses, as published"].observations]
    assert steps[:3] == pytest.approx([8192 / 3933, 32768 / 7733, 65536 / 13396])
    assert steps[3] is None
    [titan] = every["torchtitan, CP 2"].observations
    assert titan.tokens_per_step == 4 * 65536  # four replicas of a pair
    assert titan.step_s == pytest.approx(65536 / 2 / 2540)


def test_the_marginal_rate_of_the_article_by_hand(every: dict[str, Series]) -> None:
    _, shorter, longer, _ = every["HF Ulysses, as published"].observations
    layer = 2 * 2560 * 128 * (32 + 8) + 3 * 2560 * 9728
    linear = 6 * (36 * layer + 151936 * 2560)
    flops = [n * (linear + 12 * 36 * 32 * 128 * (n + 1) / 2) for n in (32768, 65536)]
    seconds = 65536 / 13396 - 32768 / 7733
    expected = (flops[1] - flops[0]) / seconds / 4
    assert marginal_rate(shorter, longer) == pytest.approx(expected)
    assert expected == pytest.approx(1390e12, rel=0.001)  # an H100 has 989.5e12
    alone = marginal_rate(shorter, longer, attention=False)
    assert alone == pytest.approx(linear * 32768 / seconds / 4)
    assert alone < 989.5e12


def test_only_what_contradicts_itself_is_called_impossible(every: dict[str, Series]) -> None:
    found = [name for name, one in every.items() if one.objections()]
    assert found == ["HF Ulysses, as published", "HF Ulysses, another revision"]


def test_rates_count_fp8_where_it_was_used(every: dict[str, Series]) -> None:
    titan = every["torchtitan, CP 1"]
    assert titan.peak_flops == 2 * 989.5e12
    assert rate(titan.observations[0]) == pytest.approx(275e12, rel=0.01)


def test_what_was_kept_elsewhere_is_no_memory_of_the_gpu(every: dict[str, Series]) -> None:
    one = every["ALST, 8 GPUs"]
    [length] = one.observations
    spared = predicted_memory_bytes(one, length)
    assert spared < 80e9  # it was trained on such GPUs
    for name, least in (
        ("tiled", 6 * 2 * 462_500 * 14336),  # SwiGLU and the gradients in it, two bytes each
        ("offloaded_checkpoints", 32 * 2 * 462_500 * 4096),
        ("offloaded_optimizer", 12 * 8_030_261_248 // 8),
    ):
        kept = replace(one, entry={**one.entry, name: False})
        assert predicted_memory_bytes(kept, length) >= spared + least


def test_memory_of_the_article_grows_as_predicted(every: dict[str, Series]) -> None:
    one = every["HF Ulysses, as published"]
    shorter, longer = one.observations[1], one.observations[3]
    assert shorter.peak_memory_bytes is not None and longer.peak_memory_bytes is not None
    published = longer.peak_memory_bytes - shorter.peak_memory_bytes
    predicted = predicted_memory_bytes(one, longer) - predicted_memory_bytes(one, shorter)
    assert predicted / published == pytest.approx(1, abs=0.1)


def test_the_page_is_the_one_that_the_data_makes() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(series())
