"""Rows on time: clocks, the first measured step, what measuring costs, profiles, rates."""

from __future__ import annotations

import statistics
from typing import Any

import yaml

from bench import theory
from bench.controller.config import CONF
from bench.controller.selfcheck.row import Seen, together
from bench.controller.selfcheck.stand import Stand, preset
from bench.trial import ModelSpec

CLOCKS_AGREE = 0.01
FIRST_STEP = 1.1
"""Times the median that the first measured step may take."""
INSTRUMENTATION = 0.01
"""Share of a bare step that the harness may add."""
MATMUL_SHARE = (0.65, 0.92)
"""Of a data sheet's dense peak, what large bfloat16 products reach on a card in order: 700 to 800
of an H100's 989.5 TFLOP/s, 250 to 280 of an A100's 312."""
OTHER_BUILDS = {"pcie", "nvl", "mig", "40gb"}
"""Words in the names of cards whose rates are not those of the SXM card with 80 GB or more, which
`conf/cluster` describes."""
COPY_SHARE = (0.8, 1.0)
"""Of a data sheet's bandwidth, what a large copy reaches, read and written."""


def events(stand: Stand) -> Seen:
    """CUDA events against the wall clock around the same work, synchronised."""
    details = stand.ok(
        scenario="selfcheck", options={"check": "events"}, gradient_check="off"
    ).details
    ratio = details["events_s"] / details["wall_s"]
    return Seen(f"{ratio:.4f}", abs(ratio - 1.0) <= CLOCKS_AGREE)


def first_step(stand: Stand) -> Seen:
    """The first measured step allocates nothing that the later ones do not."""
    record = stand.ok(**_sized(stand), warmup_steps=2, steps=20, gradient_check="off")
    [samples] = record.samples
    middle = statistics.median(samples.step_s)
    ratio = samples.step_s[0] / middle
    text = f"{ratio:.3f} of the median, {middle * 1e3:.2f} ms"
    return Seen(text, ratio <= FIRST_STEP if stand.on_gpu else None)


def instrumentation(stand: Stand) -> Seen:
    """A step of the harness against a bare loop on the same engine, and its MFU."""
    fields = _sized(stand)
    options = {"check": "instrumentation"}
    details = stand.ok(
        **fields, scenario="selfcheck", options=options, gradient_check="off"
    ).details
    ratio, bare_s = details["ratio"], details["bare_s"]
    model: ModelSpec = fields.get("model") or stand.configuration().model
    flops = theory.model_flops_per_step(model, 1, 1, fields["seq_len"])
    dtype = fields.get("dtype", "float32")
    rates = stand.ok(scenario="machine", dtype=dtype, gradient_check="off").details
    mfu = theory.utilization(flops, bare_s, 1, rates["matmul_flops"])
    text = f"{ratio:.4f} of {bare_s * 1e3:.2f} ms, MFU {mfu:.1%} of the measured peak"
    passed = abs(ratio - 1.0) <= INSTRUMENTATION and mfu <= 1.0
    return Seen(text, passed if stand.on_gpu else None)


def profile(stand: Stand) -> Seen:
    """A profile's parts add up to the step and its bytes are theory's, also with recomputation."""
    parts = []
    for checkpointing in (False, True):
        model = stand.configuration().model.model_copy(
            update={"activation_checkpointing": checkpointing}
        )
        record = stand.ok(
            2, scenario="profile", model=model, seq_len=256, loss="local", gradient_check="off"
        )
        details = record.details
        off = max(abs(one["off_by"]) for one in details["breakdown"])
        bytes_agree = details["bytes_agree"] is True
        text = f"checkpointing {'on' if checkpointing else 'off'}: parts within {off:.2%}, "
        text += f"bytes {'agree' if bytes_agree else 'differ'}"
        parts.append((text, details["adds_up"] and bytes_agree))
    return together(parts)


def rates(stand: Stand) -> Seen:
    """Products and copies; judged on cards that conf/cluster describes."""
    dtype = "bfloat16" if stand.on_gpu else "float32"
    details = stand.ok(scenario="machine", dtype=dtype, gradient_check="off").details
    flops, copied = details["matmul_flops"], details["copy_bandwidth"]
    text = f"{flops / 1e12:,.3g} TFLOP/s, {copied / 1e9:,.4g} GB/s"
    sheet = data_sheet(stand.gpus[0]) if stand.on_gpu else None
    if sheet is None:
        return Seen(text)
    return Seen(
        text, _within(flops / sheet[0], MATMUL_SHARE) and _within(copied / sheet[1], COPY_SHARE)
    )


def data_sheet(card: str) -> tuple[float, float] | None:
    """Peak [FLOP/s] and bandwidth [bytes/s] of the cluster file named like a word of `card`."""
    words = card.lower().replace("-", " ").split()
    if OTHER_BUILDS & set(words):
        return None
    for path in sorted((CONF / "cluster").glob("*.yaml")):
        if path.stem in words:
            content: dict[str, Any] = yaml.safe_load(path.read_text())
            return float(content["peak_flops"]), float(content["memory_bandwidth"])
    return None


def _within(share: float, bounds: tuple[float, float]) -> bool:
    return bounds[0] <= share <= bounds[1]


def _sized(stand: Stand) -> dict[str, Any]:
    """A step long enough to be timed on this device."""
    if stand.on_gpu:
        return {"model": preset("160m"), "dtype": "bfloat16", "seq_len": 2048}
    return {"seq_len": 64}
