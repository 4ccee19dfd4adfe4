"""A DeepSpeed configuration file: what becomes a key of ours, what is ignored, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.controller.deepspeed_file import DeepspeedFile, Ignored, read
from bench.controller.messages import ConfigurationError


def mapped(folder: Path, content: Any) -> DeepspeedFile:
    path = folder / "ds.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read(path)


AS_PEOPLE_HAVE_IT = {
    "fp16": {"enabled": "auto", "loss_scale": 0},
    "bf16": {"enabled": True, "immediate_grad_update": True},
    "optimizer": {"type": "AdamW", "params": {"lr": "auto", "betas": "auto"}},
    "scheduler": {"type": "WarmupLR", "params": {"warmup_num_steps": "auto"}},
    "zero_optimization": {
        "stage": 3,
        "reduce_scatter": False,
        "reduce_bucket_size": "auto",
        "offload_param": {"device": "nvme", "nvme_path": "/fast"},
        "offload_optimizer": {"device": "cpu", "pin_memory": True},
    },
    "gradient_clipping": "auto",
    "gradient_accumulation_steps": 16,
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": 2,
    "steps_per_print": 2000,
    "wandb": {"enabled": True, "project": "mine"},
}


def test_a_file_as_people_have_it(tmp_path: Path) -> None:
    found = mapped(tmp_path, AS_PEOPLE_HAVE_IT)
    assert (found.zero, found.zero_given, found.dtype, found.micro_batch) == (
        3,
        True,
        "bfloat16",
        2,
    )
    assert found.options == {
        "bf16": {"immediate_grad_update": True},
        "zero_optimization": {
            "reduce_scatter": False,
            "offload_param": {"device": "cpu"},
            "offload_optimizer": {"device": "cpu", "pin_memory": True},
        },
    }
    assert found.flat["zero_optimization.reduce_scatter"] is False
    used = {one.option: one.used for one in found.ignored}
    assert used == {
        "fp16.enabled": "float32",
        "fp16": "nothing",
        "zero_optimization.reduce_bucket_size": "DeepSpeed's default",
        "zero_optimization.offload_param.device": "cpu",
        "gradient_clipping": "DeepSpeed's default",
        "gradient_accumulation_steps": "1",
        "optimizer": "torch's Adam (the gradient is read before a step)",
        "scheduler": "none (the gradient is read before a step)",
        "steps_per_print": "nothing",
        "wandb": "nothing",
    }


@pytest.mark.parametrize(
    ("content", "zero", "given"),
    [
        ({}, 0, False),  # DeepSpeed's default
        ({"zero_optimization": {"stage": 2}}, 2, True),
        ({"zero_optimization": {"stage": 0}}, 0, True),
        ({"zero_optimization": {"reduce_scatter": True}}, 0, False),
        ({"zero_optimization": {"stage": "auto"}}, None, False),
    ],
    ids=str,
)
def test_the_stage(tmp_path: Path, content: Any, zero: int | None, given: bool) -> None:
    found = mapped(tmp_path, content)
    assert (found.zero, found.zero_given) == (zero, given)


@pytest.mark.parametrize(
    ("content", "dtype", "ignored"),
    [
        ({}, "float32", []),
        ({"bf16": {"enabled": False}}, "float32", []),
        ({"bf16": {"enabled": "auto"}}, "float32", [Ignored("bf16.enabled", "auto", "float32")]),
        ({"bfloat16": {"enabled": True}}, "bfloat16", []),
        (
            {"fp16": {"enabled": True}},
            "float32",
            [Ignored("fp16.enabled", "true", "float32 (float16 is no dtype of spbench)")],
        ),
    ],
    ids=str,
)
def test_precision(tmp_path: Path, content: Any, dtype: str, ignored: list[Ignored]) -> None:
    found = mapped(tmp_path, content)
    assert (found.dtype, list(found.ignored), found.options) == (dtype, ignored, {})


def test_batch_sizes(tmp_path: Path) -> None:
    sizes = {"train_batch_size": 256, "train_micro_batch_size_per_gpu": 64}
    found = mapped(tmp_path, {**sizes, "gradient_accumulation_steps": 1})
    assert (found.micro_batch, found.options) == (8, {})
    assert [(one.option, one.value) for one in found.ignored] == [
        ("train_micro_batch_size_per_gpu", "64"),
        ("train_batch_size", "256"),
    ]
    assert "train_micro_batch_size_per_gpu=8" in found.ignored[1].used


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        ("{", "no JSON: Expecting property name enclosed in double quotes (line 1, column 2)"),
        ("[1]", "must hold a JSON object, not a list"),
        ('{"a": 1, "a": 2}', "'a' stands there twice"),
        ('{"zero_optimization": {"stage": 4}}', "zero_optimization.stage=4; allowed: 0, 1, 2, 3"),
        ('{"zero_optimization": true}', "zero_optimization=true; allowed: an object"),
        ('{"bf16": {"enabled": 1}}', "bf16.enabled=1; allowed: true, false, auto"),
        ('{"train_batch_size": 0}', "train_batch_size=0; allowed: a whole number from 1 on"),
    ],
)
def test_what_cannot_be_mapped_is_one_line(tmp_path: Path, content: str, fragment: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        mapped(tmp_path, content)
    text = str(raised.value)
    assert text.startswith(f"--deepspeed-config {tmp_path / 'ds.json'}: ")
    assert fragment in text
    assert "\n" not in text


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nowhere: no such file"):
        read(tmp_path / "nowhere")
    with pytest.raises(ConfigurationError, match="cannot be read: Is a directory"):
        read(tmp_path)
    (tmp_path / "ds.json").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="it is not text in UTF-8"):
        read(tmp_path / "ds.json")
