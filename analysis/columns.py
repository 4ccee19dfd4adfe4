"""The columns of `analysis.frame.load`: what each means, its unit, and how a record fills it.

Axes carry the names of Hydra's keys, so that what was swept as `comm.oversubscribe=true` is
found in the column `comm.oversubscribe`.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from bench.failure_text import useful_line
from bench.identity import identity_of
from bench.record import PHASES, Status
from bench.rounds import slowest
from bench.theory import sent_bytes, tokens_per_second


class Column(NamedTuple):
    """A column's pandas dtype and its meaning, with the unit in brackets."""

    dtype: str
    meaning: str


AXES = {
    "scenario": Column("str", "what the ranks do"),
    "model": Column("str", "name of the model"),
    "model.layers": Column("int64", "decoder layers"),
    "model.hidden": Column("int64", "width of the residual stream [elements]"),
    "model.heads": Column("int64", "query heads"),
    "model.kv_heads": Column("int64", "key and value heads"),
    "model.ffn": Column("int64", "width of the SwiGLU [elements]"),
    "model.vocab": Column("int64", "size of the vocabulary"),
    "model.activation_checkpointing": Column("bool", "layers are recomputed in backward"),
    "model.loss_tiles": Column("int64", "parts in which logits and loss are computed"),
    "dtype": Column("str", "of weights and activations"),
    "mask": Column("str", "which labels are ignored"),
    "micro_batch": Column("int64", "sequences per data-parallel replica and step"),
    "zero": Column("int64", "ZeRO stage"),
    "world": Column("int64", "ranks: sp * dp"),
    "sp": Column("int64", "sequence-parallel size"),
    "dp": Column("int64", "data-parallel size"),
    "seq_len": Column("int64", "global sequence length [tokens]"),
    "warmup_steps": Column("int64", "steps before the measured ones"),
    "steps": Column("int64", "measured steps"),
    "learning_rate": Column("float64", "of Adam"),
    "seed": Column("int64", "of weights and data"),
    "gradient_check": Column("str", "how the first step's gradient was to be compared"),
    "reference": Column("str", "which loss of the whole batch the gradient is compared by"),
    "matmul": Column("str", "precision of float32 matrix products on GPU"),
    "sdpa": Column("str", "kernel of scaled-dot-product attention that was asked for"),
    "mesh_setup": Column("str", "how DeepSpeed was to be told of sequence parallelism"),
    "memory_limit": Column("float64", "allowed per rank [bytes]; missing: no limit"),
    "comm": Column("str", "how ranks communicate"),
    "comm.oversubscribe": Column("bool", "several ranks on one GPU"),
    "comm.deepspeed_shm": Column("bool", "DeepSpeed's CPU shared-memory all-reduce"),
    "environment": Column("str", "label of the interpreter that was measured"),
    "attention": Column("str", "attention method"),
    "loss": Column("str", "loss aggregation"),
}
"""What defines a configuration, in the order that tables sort by. Entries of the free
dictionaries `deepspeed` and `options` add columns such as `deepspeed.gradient_clipping`."""

RESULTS = {
    "trial_id": Column("str", "names the record and the files beside it"),
    "config_hash": Column("str", "identity of the configuration"),
    "round": Column("int64", "index of the repetition"),
    "attempt": Column("int64", "index of the retry"),
    "experiment": Column("str", "label of the sweep; missing: none"),
    "started": Column("datetime64[us, UTC]", "when the trial began"),
    "duration_s": Column("float64", "the whole trial [s]"),
    "status": Column("str", "how the trial ended"),
    "reason": Column("str", "why the status is not ok; missing: it is"),
    "failure": Column("str", "the same in a few words: what, where, on which ranks"),
    "message": Column("str", "the useful line of what was raised; missing: nothing was"),
    "step_s": Column("float64", "median over steps of the maximum over ranks [s]; only if ok"),
    **{f"{name}_s": Column("float64", f"the same for {name} alone [s]") for name in PHASES},
    "tokens_per_s": Column("float64", "all ranks together, each token once [tokens/s]"),
    "tokens_per_s_per_rank": Column("float64", "tokens_per_s / world [tokens/s]"),
    "peak_memory_bytes": Column("float64", "maximum over ranks [bytes]"),
    "outside_allocator_bytes": Column(
        "float64", "on a rank's own GPU beside torch's allocator, maximum over ranks [bytes]"
    ),
    "state_traffic_bytes": Column(
        "float64",
        "sent by a rank for gradients and weights in the first step, as counted, maximum over "
        "ranks [bytes]; missing: nothing was counted, or a collective without a rule",
    ),
    "gradient_mode": Column("str", "what the gradient was compared with; missing: not said"),
    "gradient_reason": Column("str", "why it was not compared; missing: it was, or not asked for"),
    "gradient_verdict": Column("str", "match, scaled, wrong or none; missing: not compared"),
    "gradient_scale": Column("float64", "factor between gradient and reference"),
    "gradient_scale_label": Column("str", "the factor for people, such as ×2"),
    "gradient_relative_error": Column("float64", "|g - r| / |r|"),
    "gradient_residual": Column("float64", "the same with the scale taken out"),
    "gradient_noise_floor": Column("float64", "relative error that the dtype alone costs"),
    "gradient_ranks_agree": Column("boolean", "every rank saw the same gradient"),
    "gradient_other": Column("str", "verdict beside the other reference; missing: they are one"),
    "gradient_other_scale_label": Column("str", "the factor beside the other reference"),
    "gradient_other_relative_error": Column("float64", "|g - r'| / |r'| of the other reference r'"),
    "gradient_other_residual": Column("float64", "the same with the scale taken out"),
    "references_apart": Column("float64", "|r - r'| / |r'|: how far the two references are apart"),
    "clip_threshold": Column(
        "float64", "DeepSpeed's gradient_clipping; 0: none; missing: not said"
    ),
    "gradient_norm": Column("float64", "norm of the gradient before clipping"),
    "clip_factor": Column("float64", "what the optimizer consumed over what was compared"),
    "sketch": Column("str", "the gradient as a sketch, relative to the folder; missing: none"),
    "first_loss": Column("float64", "loss of the first step, mean over ranks or replicas"),
    "reference_loss": Column("float64", "the reference's loss of the first step"),
    "first_loss_agrees": Column(
        "boolean", "their difference is within its tolerance; missing: not judged"
    ),
    "first_loss_reason": Column("str", "why it was not compared; missing: it was, or not asked"),
    "emulated": Column("bool", "torch's NCCL code path ran on gloo"),
    "timings_valid": Column("bool", "False: the times are no measure (ranks shared a GPU)"),
    "sdpa_kernel": Column("str", "attention kernel that torch chose; missing: not said"),
    "mesh_setup_used": Column("str", "how DeepSpeed was told of the mesh; missing: not said"),
    "late_imports": Column("int64", "modules that ranks imported in the trial and paid for"),
    "noisy": Column("str", "why the machine was not quiet; empty: it was"),
    "torch": Column("str", "version that the worker saw; missing: no worker ran"),
    "deepspeed": Column("str", "version that the worker saw; missing: no worker ran"),
    "hostname": Column("str", "machine of the controller"),
    "code": Column("str", "fingerprint by role of the code that ran; unknown; empty: none ran"),
    "versions": Column("str", "versions that make results differ; empty: no worker ran"),
    "machine_class": Column("str", "kind of machine; hosts of one kind count as one; empty: none"),
}

VARIANT = {
    "variant": Column(
        "str",
        "what tells this result from others of its configuration: code, versions or class of "
        "machine; empty: it has no other",
    ),
}
"""Drawn from all records of a configuration together."""

COLUMNS = {**RESULTS, **VARIANT, **AXES}
"""All documented columns of the frame, in order."""

ULYSSES = ("all_to_all", "all_to_all_single")
"""Collectives that move activations between ranks."""
FREE_AXES = ("deepspeed.", "options.", "environment.", "model.", "comm.", "config")
"""What names of further axes begin with: entries of the free dictionaries, and keys that nothing
else tells two configurations apart by (`config.KEY`; `config`: nothing but their hash)."""

Content = Mapping[str, Any]

_CHECKS = {True: "auto", False: "off"}
"""What records of schema version 1 say of `gradient_check`."""


def is_axis(name: str) -> bool:
    """Whether a frame's column of that name is an axis."""
    return name in AXES or (name.startswith(FREE_AXES) and name != "config_hash")


def axes_of(config: Content) -> dict[str, Any]:
    """The axes of a record's `config`; KeyError, TypeError or ValueError if it is none."""
    model, comm = config["model"], config["comm"]
    world, sp = int(config["world"]), int(config["sp"])
    axes = {name: config[name] for name in ("scenario", "attention", "loss", "dtype", "mask")}
    counts = ("micro_batch", "zero", "seq_len", "warmup_steps", "steps", "seed")
    sizes = ("layers", "hidden", "heads", "kv_heads", "ffn", "vocab")
    axes.update({name: int(config[name]) for name in counts})
    axes.update({f"model.{name}": int(model[name]) for name in sizes})
    axes.update(
        {
            "model": model["name"],
            "model.activation_checkpointing": bool(model["activation_checkpointing"]),
            "model.loss_tiles": int(model.get("loss_tiles", 1)),  # older records have none
            "world": world,
            "sp": sp,
            "dp": world // sp,
            "learning_rate": float(config["learning_rate"]),
            "memory_limit": _optional(config["memory_limit"]),
            "gradient_check": _CHECKS.get(config["gradient_check"], config["gradient_check"]),
            "reference": config.get("reference", "replica_mean"),  # older records have none
            "matmul": config.get("matmul", "highest"),
            "sdpa": config.get("sdpa", "auto"),
            "mesh_setup": config.get("mesh_setup", "auto"),
            "comm": comm["name"],
            "comm.oversubscribe": bool(comm["oversubscribe"]),
            "comm.deepspeed_shm": bool(comm["deepspeed_shm"]),
            "environment": config["environment"]["name"],
        }
    )
    for name in ("deepspeed", "options"):
        axes.update(flat(name, config[name]))
    return axes


def results_of(record: Content, axes: Content) -> dict[str, Any]:
    """All columns but the axes; KeyError, TypeError or ValueError if it is no record."""
    worker, machine = record["worker"] or {}, record["machine"] or {}
    identity = identity_of(record)
    return {
        "trial_id": record["trial_id"],
        "config_hash": record["config_hash"],
        "round": int(record["round"]),
        "attempt": int(record["attempt"]),
        "experiment": record["experiment"],
        "started": str(record["started"]),
        "duration_s": float(record["duration_s"]),
        "status": Status(record["status"]).value,
        "reason": record["reason"],
        "failure": failure_of(record),
        "message": message_of(record),
        **_times(record, axes),
        "peak_memory_bytes": _most(record, "peak_bytes"),
        "outside_allocator_bytes": _most(record, "outside_allocator_bytes"),
        "state_traffic_bytes": state_traffic_bytes(record["collectives"], axes["world"]),
        "gradient_mode": record.get("gradient_mode"),  # records of schema version 1 have neither
        "gradient_reason": record.get("gradient_reason"),
        "sketch": record.get("sketch"),
        **_gradient(record["gradient"]),
        **_clipping(record.get("clipping")),
        **_first_loss(record),
        "emulated": bool(record["emulated"]),
        "timings_valid": bool(record["timings_valid"]),
        "sdpa_kernel": worker.get("sdpa_kernel"),
        "mesh_setup_used": worker.get("mesh_setup"),
        "late_imports": len(worker.get("late_imports") or ()),
        "noisy": "; ".join(record["noisy"]),
        "torch": worker.get("torch"),
        "deepspeed": worker.get("deepspeed"),
        "hostname": machine.get("hostname"),
        "code": identity.code,
        "versions": identity.versions,
        "machine_class": identity.machine,
    }


def failure_of(record: Content) -> str | None:
    """What failed in a few words (`IndexError in backward, ranks 2,3`); None where nothing did."""
    status = record["status"]
    if status == Status.OK.value:
        return None
    # a rank that is gone comes before what the others raised: they only lost their peer
    gone = [rank for rank in record["ranks"] if rank["outcome"] in ("killed", "exited")]
    first = record.get("first_ended")
    if first is not None:
        gone = [rank for rank in gone if rank["rank"] == first]
    elif record["schema_version"] > 1 and record["errors"]:  # they only aborted after it
        gone = []
    ended = _by_place((_end(rank), rank["phase"], rank["rank"]) for rank in gone)
    if ended:
        return ended
    raised = _by_place(
        (error["type"].rpartition(".")[2], error["phase"], error["rank"])
        for error in record["errors"]
    )
    if raised:
        return raised
    stuck = [rank for rank in record["ranks"] if rank["outcome"] == "interrupted"]
    return (
        _by_place((status, rank["phase"], rank["rank"]) for rank in stuck)
        or record["reason"]
        or status
    )


def message_of(record: Content) -> str | None:
    """The useful line of what most ranks raised; None where none raised."""
    raised: dict[tuple[str, str], list[Content]] = {}
    for error in record["errors"] if record["status"] != Status.OK.value else []:
        raised.setdefault((error["type"], error["phase"]), []).append(error)
    if not raised:
        return None
    first = max(raised.values(), key=len)[0]
    return useful_line(first["message"], first["traceback"]) or None


def _times(record: Content, axes: Content) -> dict[str, float | None]:
    """Step and phase times, and throughput; all None unless the trial is ok and has samples."""
    ranks = record["samples"] if record["status"] == Status.OK.value else []
    step_s = slowest([rank["step_s"] for rank in ranks])
    phases = [rank["phases_s"] for rank in ranks]
    times = {"step_s": step_s}
    for name in PHASES:
        times[f"{name}_s"] = slowest([phase[name] for phase in phases if name in phase])
    rate = None
    if step_s is not None:
        rate = tokens_per_second(axes["dp"], axes["micro_batch"], axes["seq_len"], step_s)
    per_rank = rate / axes["world"] if rate else None
    return {**times, "tokens_per_s": rate, "tokens_per_s_per_rank": per_rank}


def _most(record: Content, field: str) -> float | None:
    """The largest of a field of the ranks' memory; records of schema version 1 lack some."""
    known = [rank[field] for rank in record["memory"] if rank.get(field) is not None]
    return float(max(known)) if known else None


def state_traffic_bytes(collectives: Iterable[Content], world: int) -> float | None:
    """Bytes that a rank sent over all ranks for gradients and weights, the most of any.

    Of a record's `collectives`: all but all-to-alls in backward and in the optimizer's phase, and
    ZeRO 3's gathers of weights in forward. What a loss aggregation sends is a few bytes.
    None where a collective has no rule, or where one is no count at all.
    """
    sent: dict[int, float] = {}
    try:
        for count in collectives:
            name, phase, rank = count["collective"], count["phase"], count["rank"]
            if name not in ULYSSES and phase != "aggregate":
                handed_in = 0.0 + count["bytes"]
                sent[rank] = sent.get(rank, 0.0) + sent_bytes(name, handed_in, world)
    except (KeyError, TypeError):  # no rule for it, or no count
        return None
    return max(sent.values(), default=None)


def _gradient(gradient: Content | None) -> dict[str, Any]:
    found: Content = gradient or {}
    return {
        "gradient_verdict": found.get("verdict"),
        "gradient_scale": _optional(found.get("scale")),
        "gradient_scale_label": found.get("scale_label"),
        "gradient_relative_error": _optional(found.get("relative_error")),
        "gradient_residual": _optional(found.get("residual")),
        "gradient_noise_floor": _optional(found.get("noise_floor")),
        "gradient_ranks_agree": found.get("ranks_agree"),
        **_other(found.get("other") or {}),
    }


def _other(other: Content) -> dict[str, Any]:
    """How the gradient compares with the reference of the other definition."""
    return {
        "gradient_other": other.get("verdict"),
        "gradient_other_scale_label": other.get("scale_label"),
        "gradient_other_relative_error": _optional(other.get("relative_error")),
        "gradient_other_residual": _optional(other.get("residual")),
        "references_apart": _optional(other.get("distance")),
    }


def _clipping(clipping: Content | None) -> dict[str, float | None]:
    """Missing in records of schema versions 1 and 2."""
    found: Content = clipping or {}
    return {
        "clip_threshold": _optional(found.get("threshold")),
        "gradient_norm": _optional(found.get("norm")),
        "clip_factor": _optional(found.get("factor")),
    }


def _first_loss(record: Content) -> dict[str, Any]:
    """The forward pass's where there is one, else the gradient's, unless that is of a proxy."""
    apart: Content = record.get("first_loss") or {}
    gradient: Content = record["gradient"] or {}
    own = {} if apart or gradient.get("mode") == "proxy" else gradient
    return {
        "first_loss": _optional(apart.get("loss", own.get("loss"))),
        "reference_loss": _optional(apart.get("reference", own.get("reference_loss"))),
        "first_loss_agrees": apart.get("agrees"),
        "first_loss_reason": apart.get("reason"),
    }


def _optional(value: Any) -> float | None:
    return None if value is None else float(value)


def flat(prefix: str, value: Any) -> dict[str, Any]:
    """Leaves of nested dictionaries under dotted names; lists as text."""
    if isinstance(value, dict):
        return {k: v for key in value for k, v in flat(f"{prefix}.{key}", value[key]).items()}
    return {prefix: str(value) if isinstance(value, list) else value}


def _end(rank: Content) -> str:
    """How a rank that crashed went: `SIGKILL`, or its exit code."""
    number = rank["signal"]
    if number is None:
        return f"exit code {rank['exit_code']}"
    known = {s.value: s.name for s in signal.Signals}
    return known.get(number, f"signal {number}")


def _by_place(events: Iterable[tuple[str, str, int]]) -> str:
    """`what in phase, ranks 2,3` for each kind of event, the most frequent first."""
    groups: dict[tuple[str, str], list[int]] = {}
    for what, phase, rank in events:
        groups.setdefault((what, phase), []).append(rank)
    texts = []
    for (what, phase), ranks in sorted(groups.items(), key=lambda group: -len(group[1])):
        noun = "rank" if len(ranks) == 1 else "ranks"
        texts.append(f"{what} in {phase}, {noun} {','.join(map(str, sorted(ranks)))}")
    return "; ".join(texts)
