"""What a line of a records file must be to be a record: one rule for resume and for all readers.

The fields that tables, figures and resume use are checked for type and range; `bench.record`
validates all, and takes twenty times as long. Fields that older versions of the format lacked may
be missing. Needs `orjson`, which the environments that we measure lack.
"""

from __future__ import annotations

from itertools import chain
from typing import Any, Dict, List, Optional

import orjson

from bench.record import PHASES, READABLE_VERSIONS, SCHEMA_VERSION, Status
from bench.shapes import (
    FLAG,
    FREE,
    LIST,
    MAPPING,
    NUMBER,
    TEXT,
    Misshapen,
    Shape,
    absent,
    by_name,
    count,
    mapping,
    nullable,
    number,
    one_of,
    sequence,
)
from bench.specs import DTYPE_BYTES

BROKEN = "truncated or not a record"
_BOM = b"\xef\xbb\xbf"

_MOST_ROUNDS = 2**31
_SHORTEST_S = 1e-12
"""Of a step: rates divide by it."""

_VERDICT = one_of("match", "scaled", "wrong", "none")
_MAYBE_TEXT = absent(nullable(TEXT))
_MAYBE_NUMBER = absent(nullable(NUMBER))
_MAYBE_FLAG = absent(nullable(FLAG))
_BYTES = count(high=2**63)
_SIZE = count(low=1)

_CONFIG = mapping(
    {
        **dict.fromkeys(("scenario", "attention", "loss", "mask"), TEXT),
        **dict.fromkeys(("world", "sp", "seq_len", "micro_batch"), _SIZE),
        **dict.fromkeys(("steps", "warmup_steps"), count()),
        "dtype": one_of(*DTYPE_BYTES),
        "zero": count(high=4),
        "seed": count(high=2**63),
        "learning_rate": NUMBER,
        "memory_limit": nullable(_BYTES),
        "gradient_check": Shape(TEXT.kinds | FLAG.kinds, "text"),
        **dict.fromkeys(("reference", "matmul", "sdpa", "mesh_setup"), absent(TEXT)),
        "model": mapping(
            {
                "name": TEXT,
                **dict.fromkeys(("layers", "hidden", "heads", "kv_heads", "ffn", "vocab"), _SIZE),
                "activation_checkpointing": FLAG,
                "loss_tiles": absent(_SIZE),
            }
        ),
        "comm": mapping({"name": TEXT, "oversubscribe": FLAG, "deepspeed_shm": FLAG}),
        "environment": mapping(
            {"name": TEXT, "torch": _MAYBE_TEXT, "deepspeed": _MAYBE_TEXT, "python": _MAYBE_TEXT}
        ),
        "deepspeed": FREE,
        "options": FREE,
    }
)

_GRADIENT = mapping(
    {
        "mode": absent(TEXT),
        "verdict": _VERDICT,
        "scale_label": TEXT,
        "ranks_agree": FLAG,
        "other": absent(
            nullable(
                mapping(
                    {
                        "verdict": _VERDICT,
                        "scale_label": TEXT,
                        **dict.fromkeys(("relative_error", "residual", "distance"), _MAYBE_NUMBER),
                    }
                )
            )
        ),
        **dict.fromkeys(("scale", "relative_error", "residual", "noise_floor"), _MAYBE_NUMBER),
        **dict.fromkeys(("loss", "reference_loss"), _MAYBE_NUMBER),
    }
)

_WORKER = mapping(
    {
        "torch": TEXT,
        "deepspeed": TEXT,
        "driver": _MAYBE_TEXT,
        "sdpa_kernel": _MAYBE_TEXT,
        "mesh_setup": _MAYBE_TEXT,
        **dict.fromkeys(("devices", "warnings", "late_imports"), absent(LIST)),
    }
)

_MACHINE = mapping(
    {
        "hostname": TEXT,
        "cpu": TEXT,
        "cores": count(),
        "gpus": sequence(TEXT),
        "nodes": absent(count()),
        "transport": _MAYBE_TEXT,
    }
)

_RANK = count(high=2**31)
_SECONDS = number(0)
_TIMES = sequence(_SECONDS)
_RANK_SAMPLES = mapping(
    {
        "rank": _RANK,
        "warmup_s": _TIMES,
        "step_s": sequence(number(_SHORTEST_S)),
        "phases_s": by_name(_TIMES),
    }
)
_SAMPLES = sequence(_RANK_SAMPLES)
_RANK_MEMORY = mapping({"peak_bytes": _BYTES, "outside_allocator_bytes": absent(nullable(_BYTES))})
_CLIPPING = mapping(dict.fromkeys(("threshold", "norm", "factor"), _MAYBE_NUMBER))

_OF_RANKS = {
    "samples": _RANK_SAMPLES,
    "memory": _RANK_MEMORY,
    "gradient": _GRADIENT,
    "clipping": _CLIPPING,
}
"""What ranks report one by one."""

_RECORD = mapping(
    {
        **dict.fromkeys(("trial_id", "config_hash", "started"), TEXT),
        **dict.fromkeys(("round", "attempt"), count(high=_MOST_ROUNDS)),
        "status": one_of(*(status.value for status in Status)),
        "reason": nullable(TEXT),
        "experiment": nullable(TEXT),
        "duration_s": _SECONDS,
        "emulated": FLAG,
        "timings_valid": FLAG,
        "noisy": sequence(TEXT),
        "config": MAPPING,
        "details": MAPPING,
        "gradient": nullable(_GRADIENT),
        "worker": nullable(_WORKER),
        "machine": nullable(_MACHINE),
        "code": absent(nullable(by_name(TEXT))),
        "first_ended": absent(nullable(_RANK)),
        **dict.fromkeys(("gradient_mode", "gradient_reason", "sketch", "log"), _MAYBE_TEXT),
        "clipping": absent(nullable(_CLIPPING)),
        "first_loss": absent(
            nullable(
                mapping(
                    {
                        "loss": _MAYBE_NUMBER,
                        "reference": _MAYBE_NUMBER,
                        "agrees": _MAYBE_FLAG,
                        "reason": _MAYBE_TEXT,
                    }
                )
            )
        ),
        **dict.fromkeys(("errors", "ranks", "samples", "collectives"), LIST),
        "memory": sequence(_RANK_MEMORY),
    }
)

_FAILED = mapping(
    {
        "errors": sequence(
            mapping(
                {**dict.fromkeys(("type", "message", "traceback", "phase"), TEXT), "rank": _RANK}
            )
        ),
        "ranks": sequence(
            mapping(
                {
                    "rank": _RANK,
                    "outcome": TEXT,
                    "phase": TEXT,
                    "signal": absent(nullable(count())),
                    "exit_code": absent(nullable(NUMBER)),
                }
            )
        ),
    }
)
"""Who raised what, and how ranks ended: asked of what is not ok."""


class NotARecord(Exception):
    """A line is no record that this spbench reads; the message says why."""

    def __init__(self, reason: str, version: Any = None) -> None:
        super().__init__(reason)
        self.version = version
        """Schema version that the line names, if it names one."""


def record_in(line: bytes, configs: Dict[str, Any]) -> Dict[str, Any]:
    """The record that `line` holds, parsed. A byte-order mark before it is no part of it.

    `configs` keeps the configurations that were checked, by hash: rounds share theirs, and it is
    checked once. Raises NotARecord.
    """
    if line[:3] == _BOM:
        line = line[3:]
    try:
        content = orjson.loads(line)
    except orjson.JSONDecodeError:
        raise NotARecord(BROKEN) from None
    version = content.get("schema_version") if type(content) is dict else None
    if type(version) is not int:
        raise NotARecord(BROKEN, version)
    if version not in READABLE_VERSIONS:
        reads = f"this spbench reads 1 to {SCHEMA_VERSION}"
        raise NotARecord(f"schema version {version}; {reads}", version)
    try:
        _check(content, configs)
    except Misshapen as error:
        raise NotARecord(f"not a record: {error}", version) from None
    record: Dict[str, Any] = content
    return record


def refusal(name: str, part: Dict[str, Any]) -> Optional[str]:
    """Why no record with `part`, one rank's `samples`, say, is read; None: it is."""
    shape = _OF_RANKS.get(name)
    try:
        if shape is not None:
            _checked(shape, part)
    except Misshapen as error:
        return str(error)
    return None


def _check(content: Dict[str, Any], configs: Dict[str, Any]) -> None:
    _checked(_RECORD, content)
    key, config = content["config_hash"], content["config"]
    if configs.get(key) != config:
        _check_config(config)
        configs.setdefault(key, config)
    if not _surely_times(content["samples"]):
        _check_samples(content["samples"], content["status"] == Status.OK.value)
    if content["status"] != Status.OK.value:
        _checked(_FAILED, content)


def _checked(shape: Shape, value: Any) -> None:
    assert shape.check is not None
    shape.check(value)


def _check_config(config: Dict[str, Any]) -> None:
    try:
        _checked(_CONFIG, config)
        _checked(FREE, config)
    except Misshapen as error:
        raise error.inside("config") from None
    if config["world"] % config["sp"]:
        raise Misshapen("config.sp", "does not divide config.world")


def _surely_times(samples: List[Any]) -> bool:
    """Whether all are above 0 and equally many: a quick look, which almost all samples pass.

    Most of a record is times, and `_check_samples` takes longer than all else together.
    """
    measured: List[List[float]] = []
    warmup: List[List[float]] = []
    try:
        for one in samples:
            if type(one["rank"]) is not int:
                return False
            measured.append(one["step_s"])
            measured.extend(one["phases_s"].values())
            warmup.append(one["warmup_s"])
        if not {*map(type, measured), *map(type, warmup)} <= {list}:
            return False
        # what is no number cannot be compared with one
        times = chain.from_iterable(measured + warmup)
        return _equally_many(measured) and min(times, default=1.0) > _SHORTEST_S
    except (AttributeError, KeyError, TypeError):
        return False


def _equally_many(lists: List[List[float]]) -> bool:
    return len(set(map(len, lists))) <= 1


def _check_samples(samples: List[Dict[str, Any]], complete: bool) -> None:
    """Times are seconds; ranks of a trial that is `complete` took the same steps."""
    try:
        _checked(_SAMPLES, samples)
    except Misshapen as error:
        raise error.inside("samples") from None
    ranks = [{**one["phases_s"], "step_s": one["step_s"]} for one in samples]
    for name in ("step_s", *PHASES) if complete else ():
        if not _equally_many([rank[name] for rank in ranks if name in rank]):
            raise Misshapen(f"samples: {name}", "has not the same steps on all ranks")
