"""What an answer of `spbench doctor` holds for: versions, sizes, and DeepSpeed's options."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from bench.controller.deepspeed_file import OPTION
from bench.controller.doctor_question import Question

if TYPE_CHECKING:
    from bench.controller.doctor import Audit

KNOWN_TO_CHANGE: dict[str, str] = {
    "sp and dp": "factors follow from them",
    "mesh_setup": "how DeepSpeed is told of sequence parallelism: docs/mesh-setups.md",
    "zero_optimization.reduce_scatter": "false: another factor at ZeRO 3",
    "zero_optimization.contiguous_gradients": "false: wrong at ZeRO 1 and 2 in some versions",
    "gradient_clipping": "clips what it finds too large",
    "gradient_accumulation_steps": "a mean over steps, not over their tokens",
}
"""Options that were seen to change which aggregation is right (docs/findings.md), and how."""


def heading(audit: Audit) -> Iterator[str]:
    """Interpreter, versions, sizes; the options that the answer holds for, and what it leaves."""
    q = audit.question
    versions = {name: value for name, value in version_fields(audit).items() if value}
    versions.pop("torch_git", None)
    emulated = ": torch's code for NCCL, emulated on gloo" if q.comm.emulated else ""
    yield str(q.python)
    yield ", ".join(f"{name} {value}" for name, value in versions.items())
    yield f"world={q.world} sp={q.sp} dp={q.dp}, {q.comm.name}{emulated}"
    yield f"DeepSpeed told of sequence parallelism by mesh_setup={audit.mesh_setup}"
    yield f"holds for: {', '.join(_options(q))}"
    others = [f"{name} ({how})" for name, how in KNOWN_TO_CHANGE.items()]
    remedy = "" if q.file is not None else f"; {OPTION} FILE audits under yours"
    yield f"known to change it: {', '.join(others)}{remedy}"
    for one in q.file.ignored if q.file is not None else ():
        yield f"ignored: {one.option}={one.value}; used instead: {one.used}"


def conditions(question: Question) -> dict[str, Any]:
    """The same as plain values."""
    file = question.file
    return {
        "holds_for": _options(question),
        "known_to_change": KNOWN_TO_CHANGE,
        "deepspeed_config": None if file is None else str(file.path),
        "deepspeed": {} if file is None else dict(file.options),
        "ignored": [] if file is None else [vars(one) for one in file.ignored],
    }


def version_fields(audit: Audit) -> dict[str, Any]:
    """Versions as the worker saw them; empty where none ran."""
    w = audit.worker
    if w is None:
        return {}
    names = ("python", "torch", "torch_git", "deepspeed", "numpy", "transformers", "cuda", "nccl")
    return {name: getattr(w, name) for name in names}


def _options(question: Question) -> list[str]:
    """`dtype=float32`, `micro_batch=1`, then the options of the user's file, if any."""
    file = question.file
    if file is None:
        return ["dtype=float32", "micro_batch=1", "DeepSpeed's default options"]
    found = [f"{name}={json.dumps(value)}" for name, value in file.flat.items()]
    rest = "and else DeepSpeed's defaults" if found else "DeepSpeed's default options"
    return [f"dtype={file.dtype}", f"micro_batch={file.micro_batch}", *found, rest]
