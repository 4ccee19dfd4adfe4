"""Rows on gradients: right where they must be, and the same by every way of comparing."""

from __future__ import annotations

import itertools
from typing import Any

from bench.controller.doctor import Question
from bench.controller.self_test import self_test
from bench.controller.selfcheck.row import Seen, together
from bench.controller.selfcheck.stand import RowFailed, Stand, preset
from bench.record import GradientError, Record, Status
from bench.trial import CommSpec, Trial

STAGES = (0, 1, 2, 3)
CELLS = tuple(itertools.product(("all_gather", "weighted_all_reduce"), (1, 3)))
"""Aggregation and ZeRO stage: on these the two ways of the loss part."""
SCALES = (("functional_all_reduce", 1), ("weighted_all_reduce", 1), ("weighted_all_reduce", 3))
"""The same, where a scale is wanted: these run on every torch, `all_gather` does not."""
NOISES = 3.0
"""Times the noise floor up to which the residual of a right gradient may go at real sizes."""
FUSED = ("flash", "cudnn")
"""On an H100 some versions of torch prefer cuDNN's kernel to flash (`check_prefer_cudnn_attention`
in its `sdp_utils.cpp`)."""
SCALES_AGREE = 0.01
SKETCHES_AGREE = 0.05
REFERENCES_AGREE = 1e-10


def one_rank(stand: Stand) -> Seen:
    """Without sequence parallelism nothing can be wrong but spbench."""
    return together([_matches(f"ZeRO {zero}", stand.ok(zero=zero)) for zero in STAGES])


def tf32(stand: Stand) -> Seen:
    """Images that switch TF32 on by a variable must not make float32 gradients wrong."""
    with stand.elsewhere({"TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1"}) as other:
        return together([_matches("float32", other.ok())])


def four_ranks(stand: Stand) -> Seen:
    """On GPUs: NCCL gives what the emulation of its code path on gloo gives with this stack.

    On CPU: the exact comparison and the directional one tell the same scale. What fails must fail
    in the same way.
    """
    if stand.on_gpu:
        with stand.elsewhere({"NCCL_DEBUG": "INFO"}) as talking:
            return _some_ran([_on_nccl(talking, loss, zero) for loss, zero in CELLS])
    found = []
    for loss, zero in CELLS:
        cell: dict[str, Any] = {"loss": loss, "zero": zero}
        exact = stand.launch(4, **cell)
        seen, due = _outcome(stand.launch(4, gradient_check="directional", **cell)), _outcome(exact)
        found.append((f"{loss} ZeRO {zero} {seen}", seen == due, exact.status is Status.OK))
    return _some_ran(found)


def _some_ran(found: list[tuple[str, bool, bool]]) -> Seen:
    """Text, whether two ways agree, and whether the trial ran: failures alone prove nothing."""
    seen = together([(text, agree) for text, agree, _ in found])
    if any(ran for _, _, ran in found):
        return seen
    return Seen(f"no trial ended ok: {seen.text}", False)


def _on_nccl(stand: Stand, loss: str, zero: int) -> tuple[str, bool, bool]:
    """One cell by NCCL and by its emulation; `stand` has NCCL tell its transports."""
    record = stand.launch(4, loss=loss, zero=zero)
    emulation = CommSpec(name="nccl_over_gloo")
    due = _outcome(stand.launch(4, comm=emulation, loss=loss, zero=zero))
    seen, ran = _outcome(record), record.status is Status.OK
    text = f"{loss} ZeRO {zero} {seen}" + ("" if seen == due else f", emulated {due}")
    if len(stand.gpus) >= 4:  # they need no network
        return text, seen == due, ran
    network = "NET/Socket" in stand.log_of(record)
    text += "" if network else " (no NET/Socket in NCCL's log)"
    return text, seen == due and network, ran


def real_size(stand: Stand) -> Seen:
    """160 million parameters in bfloat16 on 2,048 tokens, by a fused kernel of attention."""
    record = stand.ok(model=preset("160m"), seq_len=2048, dtype="bfloat16")
    gradient, kernel = _gradient(record), record.worker.sdpa_kernel if record.worker else None
    residual, noise = gradient.residual, gradient.noise_floor
    within = residual is not None and noise is not None and residual <= NOISES * noise
    figures = [
        f"{name} {'unknown' if value is None else format(value, '.2g')}"
        for name, value in (("residual", residual), ("noise", noise))
    ]
    text = ", ".join([_verdict(record), *figures, f"kernel {kernel}"])
    return Seen(text, gradient.verdict == "match" and within and kernel in FUSED)


def modes(stand: Stand) -> Seen:
    """Directional tells the exact scale within 1 %, and two sketches their ratio within 5 %."""
    found, exact = [], {}
    for loss, zero in SCALES:
        cell: dict[str, Any] = {"loss": loss, "zero": zero}
        exact[loss, zero] = _scale(stand.ok(4, **cell))
        seen = _scale(stand.ok(4, gradient_check="directional", **cell))
        off = seen / exact[loss, zero] - 1.0
        found.append((f"directional ×{seen:.4f}", abs(off) <= SCALES_AGREE))
    pair = SCALES[:2]
    sketches = [stand.ok(4, gradient_check="sketch", loss=loss, zero=zero) for loss, zero in pair]
    ratio = stand.sketch_scale(*(_sketch(stand, record) for record in sketches))
    if ratio is None:
        raise RowFailed("the sketches could not be compared")
    due = exact[pair[0]] / exact[pair[1]]
    found.append((f"sketch ×{ratio:.3f}", abs(ratio / due - 1.0) <= SKETCHES_AGREE))
    return together(found)


def reference(stand: Stand) -> Seen:
    """The float64 reference by layers, on the trial's device, equals the whole one on CPU."""
    details = stand.ok(
        scenario="selfcheck", options={"check": "reference"}, gradient_check="off"
    ).details
    error, device = details["relative_error"], details["device"]
    return Seen(f"{error:.1e} ({device})", error <= REFERENCES_AGREE)


def judge(stand: Stand) -> Seen:
    """The doctor's self-test."""
    question = Question(stand.python, 4, 2, stand.comm(4))

    def launch(trial: Trial) -> Record:
        c = trial.configuration
        return stand.launch(**{name: getattr(c, name) for name in c.model_fields_set})

    found = self_test(question, launch, lambda _: None)
    escaped = [one.name for one in found if not one.caught]
    caught = f"{len(found) - len(escaped)} of {len(found)}"
    return Seen(caught + (f"; not: {', '.join(escaped)}" if escaped else ""), not escaped)


def _matches(what: str, record: Record) -> tuple[str, bool]:
    return f"{what} {_verdict(record)}", _gradient(record).verdict == "match"


def _verdict(record: Record) -> str:
    found = _gradient(record)
    return f"{found.verdict} {found.scale_label}" if found.verdict == "scaled" else found.verdict


def _outcome(record: Record) -> str:
    """The verdict, or how a trial failed: what a version of torch cannot do is no miss of ours."""
    if record.status is Status.OK:
        return _verdict(record)
    kinds = sorted({f"{error.type.rpartition('.')[2]} in {error.phase}" for error in record.errors})
    return f"{record.status.value} ({', '.join(kinds) or record.reason})"


def _scale(record: Record) -> float:
    scale = _gradient(record).scale
    if not scale:
        raise RowFailed(f"the gradient has no scale: {_verdict(record)}")
    return scale


def _gradient(record: Record) -> GradientError:
    if record.gradient is None:
        raise RowFailed(record.gradient_reason or "the record has no gradient")
    return record.gradient


def _sketch(stand: Stand, record: Record) -> Any:
    if record.sketch is None:
        raise RowFailed(record.gradient_reason or "the record has no sketch")
    return stand.folder / record.sketch
