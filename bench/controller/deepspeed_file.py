"""A DeepSpeed configuration file as people have it, mapped onto spbench's keys.

What follows from a key of spbench's own (stage, precision, batch sizes) becomes that key. What does
not reach the gradient of one step, or cannot be had here, is left out and named, with the value
that is used in its stead. All else goes to DeepSpeed as it stands in the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Optional

from bench.controller.messages import ConfigurationError
from bench.trial import Dtype

OPTION = "--deepspeed-config"
MOST_MICRO_BATCH = 8
"""Sequences per replica at most: more change no factor, and the reference takes longer."""
AUTO = "auto"
_DEFAULT = "DeepSpeed's default"

_BEFORE = "(the gradient is read before a step)"
_NOTHING = "nothing"
LEFT_OUT: dict[str, str] = {
    "optimizer": f"torch's Adam {_BEFORE}",
    "scheduler": f"none {_BEFORE}",
    "amp": _NOTHING,
    "torch_autocast": _NOTHING,
    **dict.fromkeys(("tensorboard", "wandb", "csv_monitor", "comet", "monitor_config"), _NOTHING),
    **dict.fromkeys(
        (
            "activation_checkpointing",
            "aio",
            "autotuning",
            "checkpoint",
            "comms_logger",
            "compile",
            "compression_training",
            "curriculum_learning",
            "data_efficiency",
            "dump_state",
            "eigenvalue",
            "elasticity",
            "flops_profiler",
            "hybrid_engine",
            "memory_breakdown",
            "nebula",
            "pipeline",
            "progressive_layer_drop",
            "quantize_training",
            "sparse_attention",
            "steps_per_print",
            "tensor_parallel",
            "wall_clock_breakdown",
        ),
        _NOTHING,
    ),
}
"""Sections of the file that are not handed to DeepSpeed, and what is done in their stead."""
_PRECISIONS = ("bf16", "bfloat16", "fp16")
_BATCH = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")


@dataclass(frozen=True)
class Ignored:
    """An option of the file that is not audited as it stands there."""

    option: str
    value: str
    """As in the file, shortened."""
    used: str
    """What is used instead."""


@dataclass(frozen=True)
class DeepspeedFile:
    """What a file comes to."""

    path: Path
    options: Mapping[str, Any]
    """Merged over the configuration that spbench builds."""
    zero: Optional[int] = None
    """The ZeRO stage; None where the file leaves it open (`auto`)."""
    zero_given: bool = False
    """Whether the file names the stage; DeepSpeed's own default is 0."""
    bf16: bool = False
    micro_batch: int = 1
    ignored: tuple[Ignored, ...] = ()

    @property
    def dtype(self) -> Dtype:
        """Of weights and activations."""
        return "bfloat16" if self.bf16 else "float32"

    @property
    def flat(self) -> dict[str, Any]:
        """`options` under dotted names."""
        return dict(_flat("", self.options))

    def without(self, names: list[str], why: str) -> DeepspeedFile:
        """Without some top-level options, which are named as ignored."""
        left = {name: value for name, value in self.options.items() if name not in names}
        gone = tuple(Ignored(name, _short(self.options[name]), why) for name in names)
        return replace(self, options=left, ignored=self.ignored + gone)


def read(path: Path) -> DeepspeedFile:
    """Read and map the file.

    Raises:
        ConfigurationError: it is missing, no JSON object, or holds a value that cannot be mapped.
    """
    content, ignored = _content(path), list[Ignored]()
    options = _without_auto("", content, ignored)
    zero_section = _section(path, options, "zero_optimization")
    stage = _stage(path, zero_section.pop("stage", None))
    stage_auto = _at(content, "zero_optimization", "stage") == AUTO
    _offload(zero_section, ignored)
    bf16 = _precision(path, options, ignored)
    micro_batch = _micro_batch(path, options, ignored)
    for name in [name for name in options if name in LEFT_OUT]:
        ignored.append(Ignored(name, _short(options.pop(name)), LEFT_OUT[name]))
    if zero_section:
        options["zero_optimization"] = zero_section
    else:
        options.pop("zero_optimization", None)
    return DeepspeedFile(
        path=path,
        options=options,
        zero=None if stage_auto else (stage or 0),
        zero_given=stage is not None,
        bf16=bf16,
        micro_batch=micro_batch,
        ignored=tuple(ignored),
    )


def _content(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text()
    except FileNotFoundError as error:
        raise ConfigurationError(f"{OPTION} {path}: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise ConfigurationError(f"{OPTION} {path}: cannot be read: {why}") from error
    try:
        content = json.loads(text, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ConfigurationError(f"{OPTION} {path}: no JSON: {error.msg} ({where})") from error
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{OPTION} {path}: {error}") from error
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise ConfigurationError(f"{OPTION} {path}: must hold a JSON object, not a {kind}")
    return content


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; DeepSpeed, too, refuses a key that stands there twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"'{twice}' stands there twice")
    return found


def _without_auto(prefix: str, content: dict[str, Any], ignored: list[Ignored]) -> dict[str, Any]:
    """`content` without the values `auto`, which transformers would fill in."""
    kept: dict[str, Any] = {}
    for name, value in content.items():
        top = (prefix + name).partition(".")[0]
        if isinstance(value, dict) and top not in LEFT_OUT:
            kept[name] = _without_auto(f"{prefix}{name}.", value, ignored)
        elif value == AUTO and top not in LEFT_OUT:
            if name not in _BATCH:  # which are told with the others
                ignored.append(Ignored(prefix + name, AUTO, _used_for_auto(prefix + name)))
        else:
            kept[name] = value
    return kept


def _used_for_auto(option: str) -> str:
    if option.partition(".")[0] in _PRECISIONS:
        return "float32" if option.endswith(".enabled") else _DEFAULT
    return "every stage" if option == "zero_optimization.stage" else _DEFAULT


def _stage(path: Path, value: Any) -> Optional[int]:
    if value is None:
        return None
    if isinstance(value, bool) or value not in (0, 1, 2, 3):
        raise _refused(path, "zero_optimization.stage", value, "0, 1, 2, 3")
    return int(value)


def _offload(section: dict[str, Any], ignored: list[Ignored]) -> None:
    """Offloading to NVMe needs a library and a disk that may not be here."""
    for name in ("offload_optimizer", "offload_param"):
        offload = section.get(name)
        if isinstance(offload, dict) and offload.get("device") == "nvme":
            section[name] = {"device": "cpu"}
            ignored.append(Ignored(f"zero_optimization.{name}.device", "nvme", "cpu"))


def _precision(path: Path, options: dict[str, Any], ignored: list[Ignored]) -> bool:
    """Whether the file says bfloat16; float16 is no dtype of spbench's."""
    enabled = False
    for name in ("bf16", "bfloat16"):
        section = _section(path, options, name)
        enabled = enabled or _switch(path, name, section)
        options.pop(name, None)
        if section:
            options[name] = section
    half = _section(path, options, "fp16")
    if _switch(path, "fp16", half):
        used = "bfloat16" if enabled else "float32"
        ignored.append(Ignored("fp16.enabled", "true", f"{used} (float16 is no dtype of spbench)"))
    if half:
        ignored.append(Ignored("fp16", _short(half), _NOTHING))
    options.pop("fp16", None)
    return enabled


def _switch(path: Path, name: str, section: dict[str, Any]) -> bool:
    value = section.pop("enabled", False)
    if not isinstance(value, bool):
        raise _refused(path, f"{name}.enabled", value, "true, false, auto")
    return value


def _micro_batch(path: Path, options: dict[str, Any], ignored: list[Ignored]) -> int:
    """Sequences per replica; one step without accumulation is audited, whatever the file says."""
    found = {name: options.pop(name) for name in _BATCH if name in options}
    for name, value in found.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise _refused(path, name, value, "a whole number from 1 on, or auto")
    total, micro, accumulated = (found.get(name) for name in _BATCH)
    used = min(micro or 1, MOST_MICRO_BATCH)
    if micro is not None and micro != used:
        ignored.append(Ignored(_BATCH[1], str(micro), str(used)))
    if accumulated not in (None, 1):
        ignored.append(Ignored(_BATCH[2], str(accumulated), "1"))
    if total is not None:
        used_for = f"what follows from train_micro_batch_size_per_gpu={used} and the ranks audited"
        ignored.append(Ignored(_BATCH[0], str(total), used_for))
    return used


def _section(path: Path, options: dict[str, Any], name: str) -> dict[str, Any]:
    """A section of the file; empty where there is none."""
    section = options.get(name, {})
    if not isinstance(section, dict):
        raise _refused(path, name, section, "an object")
    return dict(section)


def _refused(path: Path, option: str, value: Any, allowed: str) -> ConfigurationError:
    return ConfigurationError(f"{OPTION} {path}: {option}={_short(value)}; allowed: {allowed}")


def _at(content: Any, *names: str) -> Any:
    for name in names:
        content = content.get(name) if isinstance(content, dict) else None
    return content


def _flat(prefix: str, content: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if isinstance(value, dict) and value:
            yield from _flat(f"{prefix}{name}.", value)
        else:
            yield prefix + name, value


def _short(value: Any, most: int = 60) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= most else f"{text[: most - 1]}…"
